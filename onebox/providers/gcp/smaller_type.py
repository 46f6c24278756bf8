"""
Start a box that was taken back, where there is no room for one of its size.

Its disk holds what its job has saved, and any machine of its family can read it:
so it comes up as the smallest of these, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from onebox.errors import NoCapacity
from onebox.providers.base import Offer, Requirements
from onebox.providers.gcp import instances, metadata
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.machine_families import plain
from onebox.providers.gcp.machine_types import in_zone
from onebox.providers.gcp.prices import Prices

# Enough to read a disk and send it.
_CPUS, _MEMORY = 2, 4 << 30


def start(
    cloud: Cloud, prices: Prices, instance: Any, begin: Callable[[], None]
) -> None:
    """
    Start an instance as it is; if there is no room, as the smallest of its family.

    Args:
        begin: Starts it, and waits until that is done.

    Raises:
        NoCapacity: There is no room for that either; the disk stays.
    """
    try:
        begin()
    except NoCapacity as error:
        size = _smallest(cloud, prices, instance)
        if instance.scheduling.provisioning_model != "SPOT" or size is None:
            raise
        _change(cloud, instance.name, last(instance.zone), size, error)
        begin()


def _smallest(cloud: Cloud, prices: Prices, instance: Any) -> Offer | None:
    kind, zone = last(instance.machine_type), last(instance.zone)
    family = kind.partition("-")[0]
    need = Requirements(kind, _CPUS, _MEMORY, spot=True)
    known = in_zone(cloud, prices, zone, need)
    same = [size for size in known if size.type.partition("-")[0] == family]
    fitting = [size for size in same if plain(size.type)]
    smallest = min(fitting, key=lambda size: (size.cpus, size.memory), default=None)
    return None if smallest is None or smallest.type == kind else smallest


def _change(cloud: Cloud, name: str, zone: str, size: Offer, error: NoCapacity) -> None:
    doing = f"making {name} smaller"
    at = {"zone": zone, "instance": name}
    cloud.do(
        "instances",
        "set_machine_type",
        doing,
        instances_set_machine_type_request_resource={
            "machine_type": f"zones/{zone}/machineTypes/{size.type}"
        },
        **at,
    )
    instance = cloud.ask("instances", "get", doing, **at)
    items = instances.metadata(instance)
    stored = instances.read(instance)
    if stored is not None:
        note = f"it is a {size.type} now: {error.message}"
        changed = replace(
            stored,
            size=replace(size, name=stored.size.name),
            notes=(*stored.notes, note),
            rescue=True,
        )
        items[metadata.RECORD] = metadata.box_record(changed)
    cloud.do(
        "instances",
        "set_metadata",
        doing,
        metadata_resource={
            "fingerprint": instance.metadata.fingerprint,
            "items": [{"key": key, "value": value} for key, value in items.items()],
        },
        **at,
    )
