"""Read a box out of an instance: what Compute Engine says, and what we told it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from onebox.providers.base import Box, BoxState, Offer, Request
from onebox.providers.gcp import metadata as metadata_module
from onebox.providers.gcp.client import last
from onebox.providers.kernel.user_data import AGENT, USER, WORK

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


def record(request: Request, system: str, notes: Sequence[str] = ()) -> str:
    """Return what the instance is to remember about itself for us."""
    return metadata_module.record(
        request.tags,
        size=asdict(request.offer),
        image=request.image.id if request.image else "",
        system=system,
        deadline=request.arming.deadline,
        notes=list(notes),
    )


def state(instance: Any) -> BoxState:
    """Return the state of an instance in our words; an unknown one is not final."""
    return _STATES.get(str(instance.status), "starting")


def box(instance: Any, host_key: str = "", why: str = "") -> Box | None:
    """
    Return the box that an instance is, None if it is none of onebox's.

    A running one whose host key is not known yet is still starting: nobody can
    tell it from an impostor.
    """
    told = read_record(instance)
    tags = metadata_module.tags(instance.labels, told)
    if tags is None:
        return None
    now = state(instance)
    if now == "running" and not host_key:
        now = "starting"
    zone = last(instance.zone)
    deadline = told.get("deadline")
    return Box(
        id=instance.name,
        tags=tags,
        state=now,
        offer=_size(told.get("size"), instance, zone),
        image=str(told.get("image", "")),
        place=zone,
        host=_host(instance),
        port=22,
        user=USER,
        host_key=host_key,
        created=moment(instance.creation_timestamp),
        deadline=deadline if isinstance(deadline, float) else tags.expires,
        agent=AGENT,
        work=WORK,
        why=why if now in ("stopping", "stopped") else "",
        notes=tuple(str(note) for note in told.get("notes", ())),
        rescue=told.get("rescue") is True,
    )


def read_record(instance: Any) -> dict[str, Any]:
    """Return what we have told the instance about itself."""
    return metadata_module.read_record(
        metadata(instance).get(metadata_module.RECORD, "")
    )


def metadata(instance: Any) -> dict[str, str]:
    """Return an instance's metadata items."""
    return {item.key: item.value for item in instance.metadata.items}


def moment(timestamp: str) -> float:
    """Return seconds since the epoch, 0 for a time that is not known."""
    if not timestamp:
        return 0.0
    # Python before 3.11 does not read a Z.
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def _host(instance: Any) -> str:
    for interface in instance.network_interfaces:
        for access in interface.access_configs:
            return str(access.nat_i_p)
        return str(interface.network_i_p)
    return ""


def _size(told: object, instance: Any, zone: str) -> Offer:
    """Return the size as it was at the launch, with the price of then."""
    spot = instance.scheduling.provisioning_model == "SPOT"
    kind = last(instance.machine_type)
    unknown = Offer(kind, kind, 0, 0, None, None, spot=spot, place=zone)
    if not isinstance(told, Mapping):
        return unknown
    try:
        return Offer.read(told)
    except TypeError:
        # Another version's idea of a size.
        return unknown
