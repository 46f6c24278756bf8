"""Stop an instance, start it with a new deadline, and find out why it has stopped."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

from onebox.errors import Gone, NoCapacity, NotAllowed, ProviderError
from onebox.providers.gcp import instances, metadata
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.creation import scheduling
from onebox.providers.gcp.machine_families import plain
from onebox.providers.gcp.machine_types import in_zone
from onebox.providers.gcp.prices import Prices
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.values import Box, Offer, Requirements

# This is the type of the operation by which Google preempts an instance.
_PREEMPTED = "compute.instances.preempted"
# One of these metadata items holds the program that enforces the deadline on the box.
_ARMED = ("user-data", "startup-script")
# A stop counts as caused by the deadline if it happened after the deadline, or at most
# this many seconds before it.
_CLOSE_SECONDS = 90.0
# A machine with this many vCPUs and bytes of memory is large enough to read a disk and
# send its content.
_RESCUE_CPUS, _RESCUE_MEMORY = 2, 4 << 30


def stop(cloud: Cloud, box: Box) -> None:
    """Stop the instance of a box and wait; an instance that is gone is no error."""
    found = instances.find_owned(cloud, box.id, box.tags, box.place)
    if found is None or instances.state(found) == "stopped":
        return
    with suppress(Gone):
        cloud.do("instances", "stop", f"stopping {box.id}", **_at(found))


def start(cloud: Cloud, prices: Prices, box: Box, deadline: float) -> None:
    """
    Start a stopped instance with a new deadline (epoch seconds).

    If there is no capacity for a spot instance, it starts as the smallest suitable type
    of its family. That is enough to fetch the job's checkpoints from the disk.

    Raises:
        Gone: The instance does not exist any more.

        NoCapacity: There is no capacity for the smallest type either.
    """
    found = instances.owned(cloud, box)
    if instances.state(found) == "stopping":
        # Google accepts no change until the instance has stopped. A second stop call
        # returns an operation to wait for.
        cloud.do("instances", "stop", f"waiting for {box.id} to stop", **_at(found))
    elif instances.state(found) != "stopped":
        return
    _set_deadline(cloud, found, deadline)
    try:
        _begin(cloud, found)
    except NoCapacity as error:
        smaller = _smallest_offer(cloud, prices, found)
        if not _is_spot(found) or smaller is None:
            raise
        _set_type(cloud, found, smaller, error)
        _begin(cloud, found)


def why(cloud: Cloud, instance: Any) -> str:
    """Return the reason why an instance has stopped, "" if that is unknown."""
    if instances.state(instance) not in ("stopping", "stopped"):
        return ""
    since = epoch_seconds(instance.last_start_timestamp)
    stopped = epoch_seconds(instance.last_stop_timestamp)
    try:
        types = _operation_types(cloud, instance, since)
    except NotAllowed:
        # The credentials may see instances but lack the permission to list operations.
        return ""
    if _PREEMPTED in types:
        return "preempted"
    if "stop" in types:
        return "stopped"
    stored = instances.read_metadata(instance)
    if stored is not None and stopped >= stored.deadline - _CLOSE_SECONDS:
        return "deadline"
    return "poweroff" if instances.state(instance) == "stopped" else ""


def _set_deadline(cloud: Cloud, instance: Any, deadline: float) -> None:
    """Set the deadline in an instance's schedule, metadata items and label."""
    doing = f"setting the deadline of {instance.name}"
    type_ = last(instance.machine_type)
    limits = scheduling(type_, _is_spot(instance), deadline, cloud.clock())
    place = _at(instance)
    cloud.do("instances", "set_scheduling", doing, scheduling_resource=limits, **place)
    _set_items(cloud, instance, _items_until(instance, deadline), doing)
    cloud.do(
        "instances",
        "set_labels",
        doing,
        instances_set_labels_request_resource={
            "labels": {**instance.labels, metadata.EXPIRES: str(int(deadline))},
            "label_fingerprint": instance.label_fingerprint,
        },
        **place,
    )


def _begin(cloud: Cloud, instance: Any) -> None:
    cloud.do("instances", "start", f"starting {instance.name}", **_at(instance))


def _smallest_offer(cloud: Cloud, prices: Prices, instance: Any) -> Offer | None:
    """
    Return the offer of the smallest suitable type in the instance's machine family.

    Return None if there is no such type, or if the instance has this type already.
    """
    type_, zone = last(instance.machine_type), last(instance.zone)
    family = type_.partition("-")[0]
    requirements = Requirements(type_, _RESCUE_CPUS, _RESCUE_MEMORY, spot=True)
    fitting = [
        offer
        for offer in in_zone(cloud, prices, zone, requirements)
        if offer.type.partition("-")[0] == family and plain(offer.type)
    ]
    smallest = min(fitting, key=lambda offer: (offer.cpus, offer.memory), default=None)
    return None if smallest is None or smallest.type == type_ else smallest


def _set_type(cloud: Cloud, instance: Any, offer: Offer, error: NoCapacity) -> None:
    """
    Change the machine type of a stopped instance, and note the reason in its record.
    """
    doing = f"changing the machine type of {instance.name}"
    place = _at(instance)
    cloud.do(
        "instances",
        "set_machine_type",
        doing,
        instances_set_machine_type_request_resource={
            "machine_type": f"zones/{last(instance.zone)}/machineTypes/{offer.type}"
        },
        **place,
    )
    instance = cloud.ask("instances", "get", doing, **place)
    stored = instances.read_metadata(instance)
    if stored is not None:
        changed = replace(
            stored,
            offer=replace(offer, name=stored.offer.name),
            notes=(*stored.notes, f"it is a {offer.type} now: {error.message}"),
            rescue=True,
        )
        items = instances.items(instance)
        items[metadata.RECORD] = metadata.box_record(changed)
        _set_items(cloud, instance, items, doing)


def _set_items(cloud: Cloud, instance: Any, items: dict[str, str], doing: str) -> None:
    """
    Replace the metadata items of an instance.

    Google refuses the call if the items have changed since *instance* was read.
    """
    cloud.do(
        "instances",
        "set_metadata",
        doing,
        metadata_resource={
            "fingerprint": instance.metadata.fingerprint,
            "items": [{"key": key, "value": value} for key, value in items.items()],
        },
        **_at(instance),
    )


def _operation_types(cloud: Cloud, instance: Any, since: float) -> list[str]:
    """
    Return the types of the operations on an instance after *since* (epoch seconds).
    """
    found = cloud.list(
        "zone_operations",
        f"asking why {instance.name} has stopped",
        filter=f"targetId = {instance.id}",
        zone=last(instance.zone),
    )
    return [
        operation.operation_type
        for operation in found
        if epoch_seconds(operation.insert_time) >= since
    ]


def _items_until(instance: Any, deadline: float) -> dict[str, str]:
    """Return an instance's metadata items, with *deadline* as the new deadline."""
    items = instances.items(instance)
    stored = instances.read_metadata(instance)
    if stored is None:
        raise ProviderError(
            f"the deadline of {instance.name} is not recorded: it was not started",
            next="inv teardown, then inv run",
        )
    items[metadata.RECORD] = metadata.box_record(stored.with_deadline(deadline))
    for key in _ARMED:
        if key in items:
            items[key] = _rearmed(items[key], stored.deadline, deadline, instance.name)
    return items


def _rearmed(script: str, before: float, deadline: float, box: str) -> str:
    """
    Return a script in which the old deadline is replaced by the new one.

    The script holds the deadline twice: as an exact number, and rounded up to whole
    seconds.
    """
    old = rf"(?<![\w.]){re.escape(json.dumps(before))}(?![\w.])"
    script, exact = re.subn(old, json.dumps(deadline), script)
    old = rf"(?<![\w.]){math.ceil(before)}(?![\w.])"
    script, whole = re.subn(old, str(math.ceil(deadline)), script)
    if not (exact and whole):
        raise ProviderError(
            f"the deadline of {box} cannot be changed: it was not started",
            next="inv teardown, then inv run",
        )
    return script


def _is_spot(instance: Any) -> bool:
    return bool(instance.scheduling.provisioning_model == "SPOT")


def _at(instance: Any) -> dict[str, str]:
    return {"zone": last(instance.zone), "instance": instance.name}
