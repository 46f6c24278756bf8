"""Remove a box, and ask what there still is of it."""

from __future__ import annotations

from typing import Any

from onebox.errors import Gone, NotAllowed, ProviderError, UsageError
from onebox.providers.base import Leftover, Tags
from onebox.providers.gcp import instances, metadata
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.settings import region_of

_DELETE_SECONDS = 900.0


def instance(cloud: Cloud, box: str, place: str = "") -> Any:
    """Return the instance of this box id, None if it is not there."""
    doing = f"looking for box {box}"
    if place:
        try:
            return cloud.ask("instances", "get", doing, zone=place, instance=box)
        except Gone as error:
            # Not its project, nor its zone: of such a one nothing would be known.
            if f"/instances/{box}'" in error.message:
                return None
            raise UsageError(error.message, next="look at [gcp] of onebox.toml") from (
                error
            )
    found = cloud.everywhere("instances", doing, filter=f'name = "{box}"')
    return next((one for one in found if one.name == box), None)


def own(cloud: Cloud, box: str, tags: Tags, place: str = "") -> Any:
    """
    Return the instance of this box, None if it is not there.

    Raises:
        NotAllowed: It carries other tags.
    """
    found = instance(cloud, box, place)
    if found is not None and not metadata.belongs(found.labels, box, tags):
        raise NotAllowed(
            f"instance {box} carries other labels than box {box}: it is not touched",
            next="inv sweep shows what is yours",
        )
    return found


def clear(cloud: Cloud, box: str, tags: Tags, place: str) -> None:
    """
    Delete this box's instance and whatever disk is left of it, and see them gone.

    Raises:
        NotAllowed: The instance carries other tags; nothing was touched.
    """
    found = own(cloud, box, tags, place)
    if found is not None:
        place = last(found.zone)
        _delete(cloud, "instances", f"deleting box {box}", zone=place, instance=box)
    # Its disk goes with it, but not with one whose making has failed halfway.
    for disk in _disks(cloud, box, place):
        if not disk.users and metadata.belongs(disk.labels, box, tags):
            doing = f"deleting disk {disk.name}"
            zone = last(disk.zone)
            _delete(cloud, "disks", doing, zone=zone, disk=disk.name)


def leftovers(cloud: Cloud, box: str, place: str = "") -> list[Leftover]:
    """Return what there still is of this box id: instance, disks, addresses."""
    found = instance(cloud, box, place)
    left = []
    if found is not None:
        known = instances.box(found)
        left.append(Leftover("instance", box, known.offer.price if known else None))
    left += [Leftover("disk", disk.name, None) for disk in _disks(cloud, box, place)]
    addresses = _labelled(cloud, "addresses", box, region=region_of(place))
    return [*left, *(Leftover("address", one.name, None) for one in addresses)]


def _disks(cloud: Cloud, box: str, place: str = "") -> list[Any]:
    return _labelled(cloud, "disks", box, zone=place)


def _labelled(cloud: Cloud, service: str, box: str, **place: str) -> list[Any]:
    doing = f"looking for {service} of {box}"
    wanted = f'labels.onebox-box = "{metadata.encoded(box)}"'
    if all(place.values()):
        return list(cloud.list(service, doing, filter=wanted, **place))
    return list(cloud.everywhere(service, doing, filter=wanted))


def _delete(cloud: Cloud, service: str, doing: str, **what: Any) -> None:
    """Delete one thing; that it is gone already, or being deleted, is fine."""
    for attempt in (1, 2, 3):
        try:
            begun = cloud.change(service, "delete", doing, **what)
            cloud.wait(begun, doing, _DELETE_SECONDS)
        except Gone:
            return
        except ProviderError as error:
            # It is still starting, stopping, or attached: in a moment, then.
            busy = "notReady" in error.message or "NOT_READY" in error.message
            busy = busy or "resourceInUse" in error.message
            if attempt == 3 or not busy:
                raise
            cloud.sleep(5.0)
        else:
            return
