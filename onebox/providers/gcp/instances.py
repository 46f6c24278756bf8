"""Find Compute Engine instances, and read them as boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onebox.errors import Gone, NotAllowed, UsageError
from onebox.providers.gcp import metadata, reach, service_account
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import Box, BoxState, Request, Tags

_STATES: dict[str, BoxState] = {
    "PENDING": "starting",
    "PROVISIONING": "starting",
    "STAGING": "starting",
    "REPAIRING": "starting",
    "RUNNING": "running",
    "PENDING_STOP": "stopping",
    "STOPPING": "stopping",
    "SUSPENDING": "stopping",
    "DEPROVISIONING": "stopping",
    "STOPPED": "stopped",
    "SUSPENDED": "stopped",
    "TERMINATED": "stopped",
}


def find(cloud: Cloud, box: str, place: str = "") -> Any:
    """Return the instance whose name is this box id, None if it does not exist."""
    doing = f"looking for box {box}"
    if place:
        try:
            return cloud.ask("instances", "get", doing, zone=place, instance=box)
        except Gone as error:
            # A 404 can also mean that the project or the zone does not exist. Then this
            # call does not show whether the box exists.
            if f"/instances/{box}'" in error.message:
                return None
            advice = "check [gcp] in onebox.toml"
            raise UsageError(error.message, next=advice) from error
    found = cloud.everywhere("instances", doing, filter=f'name = "{box}"')
    return next((one for one in found if one.name == box), None)


def find_owned(cloud: Cloud, box: str, tags: Tags, place: str = "") -> Any:
    """
    Return the instance of this box, None if the instance does not exist.

    Raises:
        NotAllowed: The instance carries the labels of another box.
    """
    found = find(cloud, box, place)
    if found is not None and not metadata.is_owned(found.labels, box, tags):
        raise NotAllowed(
            f"instance {box} carries other labels than box {box}: it was not touched",
            next="inv cleanup lists your boxes",
        )
    return found


def owned(cloud: Cloud, box: Box) -> Any:
    """
    Return the instance of this box.

    Raises:
        Gone: The instance does not exist any more.

        NotAllowed: The instance carries the labels of another box.
    """
    found = find_owned(cloud, box.id, box.tags, box.place)
    if found is None:
        raise Gone(f"box {box.id} does not exist any more", next="inv status")
    return found


def request_record(
    request: Request, system: str, notes: Sequence[str] = (), way: str = ""
) -> str:
    """
    Return the metadata record of the instance that a request creates.

    Args:
        way: The value of the setting `reach`.
    """
    # The record leaves out the keys. The guest generates its own host key, see
    # `host_keys`, and the user's key is in a metadata item of its own.
    stored = replace(
        BoxMetadata.of_request(request),
        system=system,
        notes=tuple(notes),
        reach=way,
        host_key="",
        bootstrap_key=False,
        user_key="",
    )
    return metadata.box_record(stored)


def state(instance: Any) -> BoxState:
    """Return the state of an instance; an unknown state counts as starting."""
    return _STATES.get(str(instance.status), "starting")


def read_box(
    instance: Any, host_key: str = "", why: str = "", project: str = ""
) -> Box | None:
    """
    Return an instance as a box, None if it does not belong to onebox.

    *project* is that of the instance. A running instance whose host key is unknown
    counts as starting, because a client could not verify its ssh server yet.
    """
    stored = read_metadata(instance)
    if stored is None:
        return None
    now = state(instance)
    if now == "running" and not host_key:
        now = "starting"
    offer = replace(
        stored.offer,
        name=stored.offer.name or last(instance.machine_type),
        type=last(instance.machine_type),
        spot=instance.scheduling.provisioning_model == "SPOT",
        place=last(instance.zone),
    )
    return stored.to_box(
        state=now,
        offer=offer,
        created=epoch_seconds(instance.creation_timestamp),
        host=_host(instance, private_only=bool(stored.reach)),
        proxy=reach.proxy(stored.reach, stored.box, project, offer.place),
        host_key=host_key,
        why=why if now in ("stopping", "stopped") else "",
        identity=service_account.of_instance(instance),
    )


def read_metadata(instance: Any) -> BoxMetadata | None:
    """Return the metadata of an instance, None if it does not belong to onebox."""
    return metadata.read(instance.labels, read_record(instance))


def read_record(instance: Any) -> dict[str, str]:
    """Return the key-value pairs of an instance's record; labels are not considered."""
    text = items(instance).get(metadata.RECORD, "")
    return metadata.read_record(text)


def items(instance: Any) -> dict[str, str]:
    """Return the metadata items of an instance, as keys and values."""
    return {item.key: item.value for item in instance.metadata.items}


def _host(instance: Any, *, private_only: bool) -> str:
    for interface in instance.network_interfaces:
        for access in () if private_only else interface.access_configs:
            return str(access.nat_i_p)
        return str(interface.network_i_p)
    return ""
