"""Stop an instance, and start it again with a new deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from onebox.errors import Gone
from onebox.providers.aws import alarm, creation, errors, instances, metadata
from onebox.providers.aws.client import Answer, Cloud
from onebox.providers.aws.metadata import BoxMetadata
from onebox.providers.kernel import user_data
from onebox.providers.values import BootConfig, Box, HostKey, Request

# The longest time that EC2 may need for one change of state.
STEP_SECONDS = 300.0

# Returns a stopped instance that has the kept disk of a box.
MakeInstance = Callable[[str, instances.BoxResources, BoxMetadata], Answer]


def stop(cloud: Cloud, region: str, box: Box) -> None:
    """Stop a box and wait until it is off. A spot instance ends, its disk stays."""
    instance = instances.find_resources(cloud, region, box.id).instance
    if instance is None:
        return
    metadata.check_owner(box.id, instance, box.tags)
    if instances.state(instance) in ("running", "pending"):
        spot = instances.is_spot(instance)
        operation = "terminate_instances" if spot else "stop_instances"
        ids = [str(instance["InstanceId"])]
        with suppress(Gone):
            cloud.poller.until_free(
                lambda: cloud.call("ec2", operation, region, InstanceIds=ids),
                STEP_SECONDS,
                # An instance that is only starting cannot be stopped yet.
                lambda error: errors.code(error) == "IncorrectInstanceState",
            )

    def is_off() -> bool:
        now = instances.find_resources(cloud, region, box.id).instance
        return now is None or instances.state(now) == "stopped"

    cloud.poller.require(is_off, STEP_SECONDS, f"stopping {box.id}")


def start(
    cloud: Cloud, region: str, box: Box, deadline: float, make_instance: MakeInstance
) -> None:
    """
    Start a stopped box with a new deadline (epoch seconds).

    Args:
        make_instance: Called if only the disk of the box is left.

    Raises:
        NoCapacity: There is no room for it now; its disk stays.
    """
    resources = instances.find_resources(cloud, region, box.id)
    instance = resources.instance
    present = instance or resources.kept or resources.helper
    if present is None:
        raise Gone(f"nothing is left of {box.id}")
    metadata.check_owner(box.id, present, box.tags)
    stored = metadata.read(present)
    assert stored is not None  # its tags name the box
    meta = stored.with_deadline(deadline)
    if instance is None:
        instance = make_instance(region, resources, meta)
        offer = replace(meta.offer, type=str(instance["InstanceType"]), spot=False)
        meta = replace(meta, offer=offer)
    elif instances.state(instance) in ("running", "pending"):
        return
    _renew_and_start(cloud, region, str(instance["InstanceId"]), meta)


def tag(
    cloud: Cloud, region: str, resources: Sequence[str], tags: dict[str, str]
) -> None:
    """Set tags of resources of onebox; the value "" cancels a tag."""
    pairs = [{"Key": k, "Value": metadata.escape(v)} for k, v in tags.items()]
    cloud.call("ec2", "create_tags", region, Resources=list(resources), Tags=pairs)


def resource_ids(resource: Answer) -> list[str]:
    """Return the ids of an instance and its volumes, or that of a volume."""
    if "VolumeId" in resource:
        return [str(resource["VolumeId"])]
    return [str(resource["InstanceId"]), *volume_ids(resource)]


def volume_ids(instance: Answer) -> list[str]:
    """Return the ids of the volumes that an instance has."""
    mappings = instance.get("BlockDeviceMappings", ())
    return [str(one["Ebs"]["VolumeId"]) for one in mappings if "Ebs" in one]


def wait_for_state(
    cloud: Cloud, region: str, box: str, instance: str, *states: str
) -> Answer:
    """Return an instance of a box once it is in one of these states."""

    def look() -> Answer | None:
        found = described(cloud, region, box, instance)
        if instances.state(found) in ("terminated", "shutting-down"):
            raise Gone(f"the instance of {box} has been terminated")
        return found if instances.state(found) in states else None

    return cloud.poller.require(look, STEP_SECONDS, f"{box} ({instance})")


def described(cloud: Cloud, region: str, box: str, instance: str) -> Answer:
    """Return an instance of a box, once it shows in EC2's lists."""

    def look() -> Answer | None:
        found = instances.describe_instances(cloud, region, metadata.box_filters(box))
        return next((one for one in found if one["InstanceId"] == instance), None)

    return cloud.poller.require(look, creation.LAG_SECONDS, f"looking for {box}")


def _renew_and_start(
    cloud: Cloud, region: str, instance: str, meta: BoxMetadata
) -> None:
    """Set the new deadline in user data, alarm and tags, then start an instance."""
    wait_for_state(cloud, region, meta.box, instance, "stopped")
    cloud.call(
        "ec2",
        "modify_instance_attribute",
        region,
        InstanceId=instance,
        UserData={"Value": _user_data(meta)},
    )
    has_alarm = alarm.put(cloud, region, meta, instance, spot=False)
    tag(
        cloud,
        region,
        resource_ids(described(cloud, region, meta.box, instance)),
        {
            metadata.DEADLINE: repr(meta.deadline),
            metadata.EXPIRES: repr(meta.tags.expires),
            metadata.NO_ALARM: "" if has_alarm else "1",
            metadata.SWAPPING: "",
        },
    )
    cloud.call("ec2", "start_instances", region, InstanceIds=[instance])


def _user_data(meta: BoxMetadata) -> bytes:
    """Return the user data of a restart: agent and host key are on the disk already."""
    request = Request(
        box=meta.box,
        tags=meta.tags,
        offer=meta.offer,
        image=None,
        user_key=meta.user_key,
        host_key=HostKey("", meta.host_key),
        boot_config=BootConfig(meta.deadline, meta.setup_grace, meta.idle_grace, b""),
    )
    return user_data.user_data(request, notice="ec2", packed=True)
