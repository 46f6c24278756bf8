"""Compute Engine instances, read as boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onebox.providers.base import Box, BoxState, Request
from onebox.providers.gcp import metadata as metadata_module
from onebox.providers.gcp.client import last
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.metadata import BoxMetadata

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
    """Return the record of the instance that a request creates."""
    # The guest makes its own host key, see `host_keys`; the keys are in user data.
    box = replace(
        BoxMetadata.of_request(request),
        system=system,
        notes=tuple(notes),
        host_key="",
        bootstrap_key=False,
        user_key="",
    )
    return metadata_module.box_record(box)


def state(instance: Any) -> BoxState:
    """Return the state of an instance; an unknown state counts as starting."""
    return _STATES.get(str(instance.status), "starting")


def box(instance: Any, host_key: str = "", why: str = "") -> Box | None:
    """
    Return an instance as a box, None if it is not onebox's.

    A running instance without a known host key is still starting: a client could
    not tell it from an impostor.
    """
    stored = read(instance)
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
        host=_host(instance),
        host_key=host_key,
        why=why if now in ("stopping", "stopped") else "",
    )


def read(instance: Any) -> BoxMetadata | None:
    """Return the metadata of an instance, None if it is not onebox's."""
    return metadata_module.read(instance.labels, read_record(instance))


def read_record(instance: Any) -> dict[str, str]:
    """Return the pairs in an instance's record, which its labels may contradict."""
    text = metadata(instance).get(metadata_module.RECORD, "")
    return metadata_module.read_record(text)


def metadata(instance: Any) -> dict[str, str]:
    """Return an instance's metadata items."""
    return {item.key: item.value for item in instance.metadata.items}


def _host(instance: Any) -> str:
    for interface in instance.network_interfaces:
        for access in interface.access_configs:
            return str(access.nat_i_p)
        return str(interface.network_i_p)
    return ""
