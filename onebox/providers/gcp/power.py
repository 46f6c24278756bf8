"""Stop an instance, start it again with a new deadline, say why it has stopped."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from onebox.errors import Gone, NotAllowed, ProviderError
from onebox.providers.base import Box
from onebox.providers.gcp import instances, metadata, smaller_type
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.creation import scheduling
from onebox.providers.gcp.deletion import own
from onebox.providers.gcp.prices import Prices

# What starts a box anew, as Google calls it in its own operations.
_PREEMPTED = "compute.instances.preempted"
_ARMED = ("user-data", "startup-script")
# Google stops at the deadline later than the box itself would.
_CLOSE_SECONDS = 90.0


def stop(cloud: Cloud, box: Box) -> None:
    """Stop the instance and wait until it has; one that is gone has stopped."""
    found = own(cloud, box.id, box.tags, box.place)
    if found is None or instances.state(found) == "stopped":
        return
    try:
        cloud.do("instances", "stop", f"stopping {box.id}", **_at(found))
    except Gone:
        return


def start(
    cloud: Cloud,
    prices: Prices,
    box: Box,
    deadline: float,
    clock: Callable[[], float],
) -> None:
    """
    Arm a stopped instance for another deadline, then start it.

    Raises:
        Gone: It is not there any more.

        NoCapacity: There is no room for it, nor for a small one with its disk.
    """
    found = own(cloud, box.id, box.tags, box.place)
    if found is None:
        raise Gone(f"box {box.id} is not there any more", next="inv provision")
    if instances.state(found) == "stopping":
        # A stop that is under way must be over before anything may be changed.
        cloud.do("instances", "stop", f"waiting for {box.id} to stop", **_at(found))
    elif instances.state(found) != "stopped":
        return
    doing = f"arming {box.id} anew"
    spot = found.scheduling.provisioning_model == "SPOT"
    cloud.do(
        "instances",
        "set_scheduling",
        doing,
        scheduling_resource=scheduling(
            last(found.machine_type), spot, deadline, clock()
        ),
        **_at(found),
    )
    cloud.do(
        "instances",
        "set_metadata",
        doing,
        metadata_resource={
            "fingerprint": found.metadata.fingerprint,
            "items": _items(found, deadline),
        },
        **_at(found),
    )
    cloud.do(
        "instances",
        "set_labels",
        doing,
        instances_set_labels_request_resource={
            "labels": {**found.labels, metadata.EXPIRES: str(int(deadline))},
            "label_fingerprint": found.label_fingerprint,
        },
        **_at(found),
    )

    def begin() -> None:
        cloud.do("instances", "start", f"starting {box.id}", **_at(found))

    smaller_type.start(cloud, prices, found, begin)


def why(cloud: Cloud, instance: Any) -> str:
    """Say why an instance has stopped, as far as that is known."""
    if instances.state(instance) not in ("stopping", "stopped"):
        return ""
    since = instances.moment(instance.last_start_timestamp)
    stopped = instances.moment(instance.last_stop_timestamp)
    try:
        kinds = _kinds(cloud, instance, since)
    except NotAllowed:
        # Who may not look at operations still may see boxes.
        return ""
    if _PREEMPTED in kinds:
        return "preempted"
    stored = instances.read(instance)
    if "stop" in kinds:
        return "stopped"
    if stored is not None and stopped >= stored.deadline - _CLOSE_SECONDS:
        return "deadline"
    return "poweroff" if instances.state(instance) == "stopped" else ""


def _kinds(cloud: Cloud, instance: Any, since: float) -> list[str]:
    """Return what has happened to an instance since then, as Google calls it."""
    found = cloud.list(
        "zone_operations",
        f"asking why {instance.name} has stopped",
        filter=f"targetId = {instance.id}",
        zone=last(instance.zone),
    )
    return [
        operation.operation_type
        for operation in found
        if instances.moment(operation.insert_time) >= since
    ]


def _items(instance: Any, deadline: float) -> list[dict[str, str]]:
    """Return the instance's metadata with another deadline in it."""
    items = instances.metadata(instance)
    stored = instances.read(instance)
    if stored is None:
        raise ProviderError(
            f"the deadline of {instance.name} is not recorded: it is not started",
            next="inv teardown, then inv run",
        )
    items[metadata.RECORD] = metadata.box_record(stored.with_deadline(deadline))
    for key in _ARMED:
        if key in items:
            items[key] = _rearmed(items[key], stored.deadline, deadline, instance.name)
    return [{"key": key, "value": value} for key, value in items.items()]


def _rearmed(script: str, before: float, deadline: float, box: str) -> str:
    """Return a script with the deadline replaced: exact, and in whole seconds."""
    old = rf"(?<![\w.]){re.escape(json.dumps(before))}(?![\w.])"
    script, exact = re.subn(old, json.dumps(deadline), script)
    old = rf"(?<![\w.]){math.ceil(before)}(?![\w.])"
    script, whole = re.subn(old, str(math.ceil(deadline)), script)
    if not (exact and whole):
        raise ProviderError(
            f"the deadline of {box} cannot be changed: it is not started",
            next="inv teardown, then inv run",
        )
    return script


def _at(instance: Any) -> dict[str, str]:
    return {"zone": last(instance.zone), "instance": instance.name}
