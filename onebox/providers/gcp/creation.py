"""Make an instance: everything that it needs and is goes into the one call."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    OneboxError,
    QuotaExceeded,
    Unclear,
    UsageError,
)
from onebox.providers.base import HostKey, Request
from onebox.providers.gcp import (
    base_images,
    instances,
    machine_families,
    metadata,
    network,
)
from onebox.providers.gcp.client import Cloud, Exists
from onebox.providers.gcp.deletion import clear
from onebox.providers.gcp.settings import region_of
from onebox.providers.kernel import user_data

# How much later than the box itself Google stops it; and what Google allows.
_GRACE_SECONDS = 900
_SHORTEST, _LONGEST = 30, 120 * 86400
# For so long a box that was surely made may be missing.
_LAG_SECONDS = 20.0
_GIB = 1 << 30


def launch(
    cloud: Cloud,
    rules: network.Rules,
    request: Request,
    clock: Callable[[], float] = time.time,
) -> Any:
    """
    Return the instance of this request, made now or before.

    Raises:
        ProviderError: It was not made, and nothing of it is left.

        Unclear: It may have been made.

        NotAllowed: There is another one of that name.
    """
    doing = f"making box {request.box} in {request.offer.place}"
    source = base_images.source(cloud, request)
    opening = rules.open(request.tags.owner)
    try:
        _insert(cloud, rules, request, source, doing, clock())
        rules.wait(opening)
        instance = _made(cloud, request, doing)
        # Another command may have removed the rules with its own last box.
        rules.wait(rules.open(request.tags.owner))
    except Unclear:
        raise
    except OneboxError as error:
        _undo(cloud, request, error)
        # The next candidate, elsewhere, wants the same rules.
        if not isinstance(error, (NoCapacity, QuotaExceeded)):
            # They cost nothing: should they stay, the next teardown removes them.
            with contextlib.suppress(OneboxError):
                rules.wait(opening)
                rules.close(request.tags.owner)
        raise
    return instance


def _insert(
    cloud: Cloud,
    rules: network.Rules,
    request: Request,
    source: base_images.Source,
    doing: str,
    now: float,
) -> None:
    """Have the instance made, unless there is one of that name."""
    try:
        begun = cloud.change(
            "instances",
            "insert",
            doing,
            token=request.box,
            named=True,
            zone=request.offer.place,
            instance_resource=body(cloud, rules, request, source, now),
        )
    except Exists:
        # By this request's first life, or by somebody else: its labels will tell.
        return
    cloud.wait(begun, doing)


def _undo(cloud: Cloud, request: Request, error: OneboxError) -> None:
    """
    Remove what a failed launch has made of this box.

    Raises:
        Unclear: It is not known whether anything is left.
    """
    try:
        clear(cloud, request.box, request.tags, request.offer.place)
    except (NotAllowed, UsageError):
        # Somebody else's, so it stays; or who may not look, or looks in a zone that
        # is none, has made nothing either.
        return
    except OneboxError as second:
        raise Unclear(
            f"{error.message}; whether anything of it is left is not known: "
            f"{second.message}",
            next="inv status",
        ) from second


def _made(cloud: Cloud, request: Request, doing: str) -> Any:
    """Return the instance as it is, if it is this request's."""
    until = time.monotonic() + _LAG_SECONDS
    while True:
        try:
            instance = cloud.ask(
                "instances",
                "get",
                doing,
                zone=request.offer.place,
                instance=request.box,
            )
            break
        except Gone as error:
            if time.monotonic() > until:
                raise Unclear(
                    f"{doing}: Google says that it was made, and does not show it",
                    next="inv status",
                ) from error
            cloud.sleep(1.0)
    if not metadata.belongs(instance.labels, request.box, request.tags):
        raise NotAllowed(
            f"there is an instance {request.box} already, and it is not ours",
            next="once more: another name is taken then",
        )
    return instance


def body(
    cloud: Cloud,
    rules: network.Rules,
    request: Request,
    source: base_images.Source,
    now: float,
) -> dict[str, Any]:
    """Return what `instances.insert` is given."""
    zone, settings = request.offer.place, cloud.settings
    owned = metadata.labels(request.box, request.tags)
    wanted = math.ceil((request.disk or settings.disk) / _GIB)
    kind = machine_families.disk(request.offer.type, settings.disk_type)
    notes = []
    if kind != settings.disk_type:
        said = f"{request.offer.type} takes no {settings.disk_type}"
        notes.append(f"the disk is {kind}: {said}")
    notes += rules.access.notes
    return {
        "name": request.box,
        "description": f"onebox {request.tags.project}/{request.tags.name}",
        "machine_type": f"zones/{zone}/machineTypes/{request.offer.type}",
        "labels": owned,
        "tags": {"items": [rules.tag(request.tags.owner)]},
        "disks": [
            {
                "boot": True,
                "auto_delete": True,
                "initialize_params": {
                    "disk_name": request.box,
                    "source_image": source.address,
                    "disk_size_gb": max(wanted, source.size),
                    "disk_type": f"zones/{zone}/diskTypes/{kind}",
                    # A disk does not inherit its instance's labels.
                    "labels": owned,
                },
            }
        ],
        "network_interfaces": [_interface(cloud, rules, zone)],
        "scheduling": scheduling(
            request.offer.type, request.offer.spot, request.arming.deadline, now
        ),
        "metadata": {"items": _items(request, source, notes)},
    }


def scheduling(type_: str, spot: bool, deadline: float, now: float) -> dict[str, Any]:
    """Return how long the instance runs at most, and what ends it before."""
    seconds = math.ceil(deadline - now) + _GRACE_SECONDS
    return {
        "provisioning_model": "SPOT" if spot else "STANDARD",
        "on_host_maintenance": (
            "MIGRATE" if machine_families.moves(type_) and not spot else "TERMINATE"
        ),
        "automatic_restart": False,
        # The disk stays: outputs may still be on it.
        "instance_termination_action": "STOP",
        "max_run_duration": {"seconds": min(max(seconds, _SHORTEST), _LONGEST)},
    }


def _interface(cloud: Cloud, rules: network.Rules, zone: str) -> dict[str, Any]:
    settings = cloud.settings
    found: dict[str, Any] = {"network": rules.network}
    if settings.subnet:
        found["subnetwork"] = settings.subnet
        if "/" not in settings.subnet:
            region = f"projects/{cloud.project}/regions/{region_of(zone)}"
            found["subnetwork"] = f"{region}/subnetworks/{settings.subnet}"
    if not settings.private:
        found["access_configs"] = [{"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}]
    return found


def _items(
    request: Request, source: base_images.Source, notes: list[str]
) -> list[dict[str, str]]:
    """Return the instance's metadata: what it is, who may come in, how it is armed."""
    user = user_data.USER
    items = {
        metadata.RECORD: instances.record(request, source.system, notes),
        "ssh-keys": f"{user}:{' '.join(request.user_key.split()[:2])} {user}",
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "FALSE",
        "enable-guest-attributes": "TRUE",
        "serial-port-enable": "FALSE",
    }
    # It makes a host key of its own, and publishes the public half.
    request = dataclasses.replace(request, host_key=HostKey("", ""))
    if source.cloud_init:
        told = user_data.user_data(request, notice="gce", host_key=False)
        items["user-data"] = told.decode("ascii")
    else:
        items["startup-script"] = user_data.startup_script(request, notice="gce")
    return [{"key": key, "value": value} for key, value in items.items()]
