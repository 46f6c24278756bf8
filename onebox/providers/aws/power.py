"""Stop an instance, and start it again with a new deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from onebox.errors import Gone
from onebox.providers.aws import alarm, creation, errors, instances, metadata
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.kernel import user_data
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import BootConfig, Box, HostKey, Request

# EC2 may need at most this many seconds for one change of state.
STEP_SECONDS = 300.0

# The type of a function that returns a stopped instance with the kept disk of a box.
MakeInstance = Callable[[EC2, instances.BoxResources, BoxMetadata], Answer]


def stop(ec2: EC2, box: Box) -> None:
    """Stop a box and wait. A spot instance is terminated, but its disk is kept."""
    instance = instances.find_resources(ec2, box.id).instance
    if instance is None:
        return
    metadata.check_owner(box.id, instance, box.tags)
    if instances.state(instance) in ("running", "pending"):
        spot = instances.is_spot(instance)
        operation = "terminate_instances" if spot else "stop_instances"
        ids = [str(instance["InstanceId"])]
        with suppress(Gone):
            ec2.poller.until_free(
                lambda: ec2.call(operation, InstanceIds=ids),
                STEP_SECONDS,
                # EC2 answers with IncorrectInstanceState while the instance is still
                # starting.
                lambda error: errors.code(error) == "IncorrectInstanceState",
            )

    def is_off() -> bool:
        now = instances.find_resources(ec2, box.id).instance
        return now is None or instances.state(now) == "stopped"

    ec2.poller.require(is_off, STEP_SECONDS, f"stopping {box.id}")


def start(ec2: EC2, box: Box, deadline: float, make_instance: MakeInstance) -> None:
    """
    Start a stopped box with a new deadline (epoch seconds).

    Args:
        make_instance: Called if only the disk of the box is left. It returns a stopped
            instance that has this disk.

    Raises:
        Gone: Nothing is left of the box.

        NoCapacity: AWS has no capacity for the box now; its disk is kept.
    """
    resources = instances.find_resources(ec2, box.id)
    instance = resources.instance
    present = instance or resources.kept or resources.helper
    if present is None:
        raise Gone(f"nothing is left of {box.id}")
    metadata.check_owner(box.id, present, box.tags)
    stored = metadata.read(present)
    assert stored is not None  # the owner was checked, so it has onebox's tags
    meta = stored.with_deadline(deadline)
    if instance is None:
        instance = make_instance(ec2, resources, meta)
        offer = replace(meta.offer, type=str(instance["InstanceType"]), spot=False)
        meta = replace(meta, offer=offer)
    elif instances.state(instance) in ("running", "pending"):
        return
    _renew_and_start(ec2, str(instance["InstanceId"]), meta)


def tag(ec2: EC2, resources: Sequence[str], tags: dict[str, str]) -> None:
    """Set tags on these resources; onebox treats a tag with the value "" as not set."""
    pairs = [{"Key": k, "Value": metadata.escape(v)} for k, v in tags.items()]
    ec2.call("create_tags", Resources=list(resources), Tags=pairs)


def resource_ids(resource: Answer) -> list[str]:
    """Return the ids of an instance and its volumes; for a volume, only its own id."""
    if "VolumeId" in resource:
        return [str(resource["VolumeId"])]
    return [str(resource["InstanceId"]), *volume_ids(resource)]


def volume_ids(instance: Answer) -> list[str]:
    """Return the ids of the volumes that are attached to an instance."""
    mappings = instance.get("BlockDeviceMappings", ())
    return [str(one["Ebs"]["VolumeId"]) for one in mappings if "Ebs" in one]


def wait_for_state(ec2: EC2, box: str, instance: str, *states: str) -> Answer:
    """
    Wait until an instance of a box is in one of *states*, and return the instance.

    Raises:
        Gone: The instance has been terminated.
    """

    def look() -> Answer | None:
        found = described(ec2, box, instance)
        if instances.state(found) in ("terminated", "shutting-down"):
            raise Gone(f"the instance of {box} has been terminated")
        return found if instances.state(found) in states else None

    return ec2.poller.require(look, STEP_SECONDS, f"{box} ({instance})")


def described(ec2: EC2, box: str, instance: str) -> Answer:
    """Wait until EC2's lists show an instance of a box, and return the instance."""

    def look() -> Answer | None:
        found = instances.describe_instances(ec2, metadata.box_filters(box))
        return next((one for one in found if one["InstanceId"] == instance), None)

    return ec2.poller.require(look, creation.LAG_SECONDS, f"looking for {box}")


def _renew_and_start(ec2: EC2, instance: str, meta: BoxMetadata) -> None:
    """Set the new deadline in user data, alarm and tags, then start the instance."""
    wait_for_state(ec2, meta.box, instance, "stopped")
    ec2.call(
        "modify_instance_attribute",
        InstanceId=instance,
        UserData={"Value": _user_data(meta)},
    )
    has_alarm = alarm.put(ec2, meta, instance, spot=False)
    tag(
        ec2,
        resource_ids(described(ec2, meta.box, instance)),
        {
            metadata.DEADLINE: repr(meta.deadline),
            metadata.EXPIRES: repr(meta.tags.deadline),
            metadata.NO_ALARM: "" if has_alarm else "1",
            metadata.SWAPPING: "",
        },
    )
    ec2.call("start_instances", InstanceIds=[instance])


def _user_data(meta: BoxMetadata) -> bytes:
    """
    Return the user data for a restart.

    They contain no agent and no private host key, because both are on the disk already.
    """
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
