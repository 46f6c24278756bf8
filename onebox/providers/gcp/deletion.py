"""Delete a box, and list its resources that still exist."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from onebox.errors import Gone
from onebox.providers.gcp import instances, metadata
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.settings import region_of
from onebox.providers.values import Leftover, Tags

_DELETE_SECONDS = 900.0
# Google's error contains one of these texts while the instance is starting or stopping,
# or while the disk is still attached.
_BUSY = re.compile("notReady|NOT_READY|resourceInUse")
_BUSY_SECONDS = 15.0


def delete(cloud: Cloud, box: str, tags: Tags, place: str) -> None:
    """
    Delete the instance of a box, then its remaining disks, and wait.

    Raises:
        NotAllowed: The instance belongs to another box; nothing was touched.
    """
    found = instances.find_owned(cloud, box, tags, place)
    if found is not None:
        place = last(found.zone)
        _delete(cloud, "instances", f"deleting box {box}", zone=place, instance=box)
    # Google deletes the disk together with its instance. A create call that failed
    # halfway may leave a disk without an instance.
    for disk in _disks(cloud, box, place):
        if not disk.users and metadata.is_owned(disk.labels, box, tags):
            doing = f"deleting disk {disk.name}"
            _delete(cloud, "disks", doing, zone=last(disk.zone), disk=disk.name)


def leftovers(cloud: Cloud, box: str, place: str = "") -> list[Leftover]:
    """Return the instance, disks and addresses of a box that still exist."""
    found = instances.find(cloud, box, place)
    left = []
    if found is not None:
        known = instances.read_box(found)
        left.append(
            Leftover("instance", box, known.offer.machine_price if known else None)
        )
    left += [Leftover("disk", disk.name, None) for disk in _disks(cloud, box, place)]
    addresses = _labelled(cloud, "addresses", box, region=region_of(place))
    return [*left, *(Leftover("address", one.name, None) for one in addresses)]


def _disks(cloud: Cloud, box: str, place: str = "") -> list[Any]:
    return _labelled(cloud, "disks", box, zone=place)


def _labelled(cloud: Cloud, service: str, box: str, **place: str) -> list[Any]:
    doing = f"looking for {service} of {box}"
    label = f'labels.onebox-box = "{metadata.encoded(box)}"'
    if all(place.values()):
        return list(cloud.list(service, doing, filter=label, **place))
    return list(cloud.everywhere(service, doing, filter=label))


def _delete(cloud: Cloud, service: str, doing: str, **what: Any) -> None:
    """Delete a resource as soon as it is not busy; a missing resource is no error."""

    def delete() -> None:
        operation = cloud.change(service, "delete", doing, **what)
        cloud.wait(operation, doing, _DELETE_SECONDS)

    with suppress(Gone):
        cloud.poller.until_free(
            delete, _BUSY_SECONDS, lambda error: bool(_BUSY.search(error.message))
        )
