"""Create an instance, with one call that holds everything the instance needs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
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
from onebox.providers.gcp import (
    base_images,
    deletion,
    instances,
    machine_families,
    metadata,
    network,
    service_account,
)
from onebox.providers.gcp.client import Cloud
from onebox.providers.gcp.settings import region_of
from onebox.providers.kernel import user_data
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.metadata import without_comment
from onebox.providers.values import HostKey, Request

# The box itself enforces its deadline at once. Google stops the instance this many
# seconds later.
_GRACE_SECONDS = 900
# Google accepts only maximum run times between these two, in seconds.
_SHORTEST, _LONGEST = 30, 120 * 86400
# For at most this long, Google may answer that a new instance does not exist.
_LAG_SECONDS = 20.0
_GIB = 1 << 30


def launch(cloud: Cloud, rules: network.Rules, request: Request) -> Any:
    """
    Return the instance of this request, and create it unless it exists already.

    Raises:
        ProviderError: The instance was not created, and nothing of it is left.

        Unclear: The instance may have been created.

        NotAllowed: An instance of this name belongs to another box.
    """
    doing = f"creating box {request.box} in {request.offer.place}"
    source = base_images.source(cloud, request)
    way = cloud.settings.reach
    opening = rules.open(request.tags.owner, way)
    try:
        _insert(cloud, rules, request, source, doing)
        rules.wait(opening)
        instance = _created(cloud, request, doing)
        # Another command may have deleted the owner's last other box meanwhile, and the
        # firewall rules with it. So the rules are created again if needed.
        rules.wait(rules.open(request.tags.owner, way))
    except Unclear:
        raise
    except OneboxError as error:
        _undo(cloud, request, error)
        # After NoCapacity or QuotaExceeded the caller tries the next offer, which needs
        # the same firewall rules. After any other error the rules are deleted.
        if not isinstance(error, (NoCapacity, QuotaExceeded)):
            # A failure here is ignored, because rules are free of charge and the next
            # teardown deletes them.
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
) -> None:
    """Create the instance, unless one of this name exists."""
    try:
        operation = cloud.change(
            "instances",
            "insert",
            doing,
            token=request.box,
            named=True,
            zone=request.offer.place,
            instance_resource=body(cloud, rules, request, source),
        )
    except Exists:
        # An earlier attempt created the instance, or another owner did. `_created`
        # checks which.
        return
    cloud.wait(operation, doing)


def _undo(cloud: Cloud, request: Request, error: OneboxError) -> None:
    """
    Delete the instance and the disks that a failed launch has created.

    Raises:
        Unclear: Some of them may still exist.
    """
    try:
        deletion.delete(cloud, request.box, request.tags, request.offer.place)
    except (NotAllowed, UsageError):
        # The instance belongs to another box, or the permission to delete is missing,
        # or the zone does not exist. In each of these cases the launch created nothing.
        return
    except OneboxError as second:
        raise Unclear(
            f"{error.message}; whether anything of it is left is not known: "
            f"{second.message}",
            next="inv status",
        ) from second


def _created(cloud: Cloud, request: Request, doing: str) -> Any:
    """Return the new instance, after checking that it belongs to this request."""

    def look() -> Any:
        zone, name = request.offer.place, request.box
        try:
            return cloud.ask("instances", "get", doing, zone=zone, instance=name)
        except Gone:
            return None

    instance = cloud.poller.until(look, _LAG_SECONDS)
    if instance is None:
        raise Unclear(
            f"{doing}: Google reports it as created, but does not show it",
            next="inv status",
        )
    if not metadata.is_owned(instance.labels, request.box, request.tags):
        raise NotAllowed(
            f"an instance {request.box} exists already, and belongs to another owner",
            next="try again: the box gets another name then",
        )
    return instance


def body(
    cloud: Cloud, rules: network.Rules, request: Request, source: base_images.Source
) -> dict[str, Any]:
    """Return the description of the new instance, for the call `instances.insert`."""
    zone, settings = request.offer.place, cloud.settings
    labels = {**settings.tags, **metadata.labels(request.box, request.tags)}
    gigabytes = math.ceil((request.disk or settings.disk) / _GIB)
    kind = machine_families.disk(request.offer.type, settings.disk_type)
    notes = []
    if kind != settings.disk_type:
        why = f"{request.offer.type} does not support {settings.disk_type}"
        notes.append(f"the disk is {kind}: {why}")
    notes += rules.access.notes
    return {
        "name": request.box,
        "description": f"onebox {request.tags.project}/{request.tags.name}",
        "machine_type": f"zones/{zone}/machineTypes/{request.offer.type}",
        "labels": labels,
        "tags": {"items": [rules.tag(request.tags.owner, settings.reach)]},
        "disks": [
            {
                "boot": True,
                "auto_delete": True,
                "initialize_params": {
                    "disk_name": request.box,
                    "source_image": source.address,
                    "disk_size_gb": max(gigabytes, source.size),
                    "disk_type": f"zones/{zone}/diskTypes/{kind}",
                    # A disk does not inherit the labels of its instance.
                    "labels": labels,
                },
            }
        ],
        "network_interfaces": [_interface(cloud, rules, zone)],
        "scheduling": scheduling(
            request.offer.type,
            request.offer.spot,
            request.boot_config.deadline,
            cloud.clock(),
        ),
        "metadata": {"items": _items(request, source, notes, settings.reach)},
        **service_account.field(settings, request),
    }


def scheduling(type_: str, spot: bool, deadline: float, now: float) -> dict[str, Any]:
    """
    Return the `scheduling` field of an instance.

    It sets whether the instance is a spot instance, and when and how Google stops it.
    """
    seconds = math.ceil(deadline - now) + _GRACE_SECONDS
    return {
        "provisioning_model": "SPOT" if spot else "STANDARD",
        "on_host_maintenance": (
            "MIGRATE" if machine_families.moves(type_) and not spot else "TERMINATE"
        ),
        "automatic_restart": False,
        # Google stops the instance and does not delete it, because outputs of the job
        # may still be on its disk.
        "instance_termination_action": "STOP",
        "max_run_duration": {"seconds": min(max(seconds, _SHORTEST), _LONGEST)},
    }


def _interface(cloud: Cloud, rules: network.Rules, zone: str) -> dict[str, Any]:
    settings = cloud.settings
    interface: dict[str, Any] = {"network": rules.network}
    if settings.subnet:
        interface["subnetwork"] = settings.subnet
        if "/" not in settings.subnet:
            region = f"projects/{cloud.project}/regions/{region_of(zone)}"
            interface["subnetwork"] = f"{region}/subnetworks/{settings.subnet}"
    if not settings.private:
        interface["access_configs"] = [
            {"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}
        ]
    return interface


def _items(
    request: Request, source: base_images.Source, notes: list[str], way: str
) -> list[dict[str, str]]:
    """Return the metadata items: the box's record, the ssh key and the boot program."""
    user = user_data.USER
    items = {
        metadata.RECORD: instances.request_record(request, source.system, notes, way),
        "ssh-keys": f"{user}:{without_comment(request.user_key)} {user}",
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "FALSE",
        "enable-guest-attributes": "TRUE",
        "serial-port-enable": "FALSE",
    }
    # The request's host key is removed, because the box generates its own host key and
    # publishes the public half.
    request = dataclasses.replace(request, host_key=HostKey("", ""))
    if source.cloud_init:
        text = user_data.user_data(request, notice="gce", host_key=False)
        items["user-data"] = text.decode("ascii")
    else:
        items["startup-script"] = user_data.startup_script(request, notice="gce")
    return [{"key": key, "value": value} for key, value in items.items()]
