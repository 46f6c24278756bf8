"""
Starting what was stopped: a machine, or a disk whose machine the cloud took back.

A disk is given to a small machine of its own architecture in its own zone. That
one starts from a common image, switches itself off at once, has its disk taken
out and the kept one put in, and starts again. All that time its tags say what it
is for, so that whoever looks meanwhile sees a disk, and whoever begins anew after
a crash goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onebox.errors import Gone, NoCapacity, OneboxError, ProviderError, QuotaExceeded
from onebox.providers.aws import (
    alarm,
    base_images,
    creation,
    errors,
    instances,
    metadata,
)
from onebox.providers.aws.client import Answer, Cloud, poll
from onebox.providers.aws.instances import swapping
from onebox.providers.aws.metadata import BoxMetadata
from onebox.providers.aws.network import Network
from onebox.providers.base import BootConfig, Box, HostKey, Offer, Request, Requirements
from onebox.providers.kernel import user_data

# How long EC2 may take for one step of it.
_STEP_SECONDS = 300.0
# It comes up with a disk that is not the box's, and has nothing to do there.
_OFF_AT_ONCE = b"#cloud-config\nbootcmd: [poweroff]\n"
# Enough to read a disk and send it.
_CPUS, _MEMORY = 2, 4 << 30


@dataclass(frozen=True)
class Rescuer:
    """What starting needs to know beside the box."""

    cloud: Cloud
    network: Network
    bases: base_images.Bases
    offers: Callable[[Requirements, str], Sequence[Offer]]
    disk_type: str

    def start(self, region: str, box: Box, deadline: float) -> bool:
        """
        Start a box with a new deadline; tell whether the cloud keeps that too.

        Raises:
            NoCapacity: There is no room for it now; its disk stays.
        """
        things = instances.look(self.cloud, region, box.id)
        machine = things.machine
        thing = machine or things.kept or things.helper
        if thing is None:
            raise Gone(f"there is nothing left of {box.id}")
        said = metadata.read(thing)
        metadata.check(box.id, said.tags if said else None, box.tags)
        assert said is not None
        said = metadata.with_deadline(said, deadline)
        if machine is None:
            machine = self._with_disk(region, things, said)
            said = replace(
                said,
                size=replace(said.size, type=str(machine["InstanceType"]), spot=False),
            )
        elif instances.state(machine) in ("running", "pending"):
            return not said.no_alarm
        return self._renew_and_start(region, str(machine["InstanceId"]), said)

    def _renew_and_start(self, region: str, instance: str, said: BoxMetadata) -> bool:
        self._until(region, said.box, instance, "stopped")
        self.cloud.call(
            "ec2",
            "modify_instance_attribute",
            region,
            InstanceId=instance,
            UserData={"Value": _user_data(said)},
        )
        rings = put_alarm(self.cloud, region, said, instance, spot=False)
        disks = [
            str(mapping["Ebs"]["VolumeId"])
            for mapping in self._one(region, said.box, instance)["BlockDeviceMappings"]
        ]
        tag(
            self.cloud,
            region,
            [instance, *disks],
            {
                metadata.DEADLINE: repr(said.deadline),
                metadata.EXPIRES: repr(said.tags.expires),
                metadata.NO_ALARM: "" if rings else "1",
                metadata.SWAPPING: "",
            },
        )
        self.cloud.call("ec2", "start_instances", region, InstanceIds=[instance])
        return rings

    def _with_disk(
        self, region: str, things: instances.BoxResources, said: BoxMetadata
    ) -> Answer:
        """Return a stopped machine that has the kept disk as its only one."""
        helper = things.helper or self._launch(region, things, said)
        instance = str(helper["InstanceId"])
        self._until(region, said.box, instance, "running", "stopped")
        self.cloud.call("ec2", "stop_instances", region, InstanceIds=[instance])
        helper = self._until(region, said.box, instance, "stopped")
        kept = things.kept
        if kept is None:
            raise Gone(f"the disk of {said.box} is no longer there")
        disk, root = str(kept["VolumeId"]), str(helper["RootDeviceName"])
        made = [str(m["Ebs"]["VolumeId"]) for m in helper["BlockDeviceMappings"]]
        made += [str(one["VolumeId"]) for one in things.volumes if swapping(one)]
        for volume in dict.fromkeys(made):
            if volume != disk:
                self._take_out(region, volume)
        if self._attached(region, disk, "available", "in-use") != instance:
            self._attached(region, disk, "available")
            self.cloud.call(
                "ec2",
                "attach_volume",
                region,
                VolumeId=disk,
                InstanceId=instance,
                Device=root,
            )
        self._attached(region, disk, "in-use")
        return self._one(region, said.box, instance)

    def _launch(
        self, region: str, things: instances.BoxResources, said: BoxMetadata
    ) -> Answer:
        kept = things.kept
        if kept is None:
            raise Gone(f"there is nothing left of {said.box}")
        zone = str(kept["AvailabilityZone"])
        image_arch = said.size.arch or base_images.DEFAULT_ARCH
        base = self.bases.find(region, base_images.DEFAULT, image_arch)
        socket = self.network.socket(region, zone)
        ended = sum(1 for one in things.instances if swapping(one))
        need = Requirements(said.size.name, _CPUS, _MEMORY)
        # It may be there and not show: whoever deletes the disk meanwhile has to wait.
        disk = [str(kept["VolumeId"])]
        tag(self.cloud, region, disk, {metadata.RESCUED: repr(self.cloud.clock())})
        refusal: OneboxError | None = None
        for size in self.offers(need, zone):
            plan = creation.Plan(
                # Another one only after this one has ended.
                token=f"{said.box}-{ended}-{size.type}"[:64],
                type=size.type,
                base=base,
                socket=socket,
                user_data=_OFF_AT_ONCE,
                disk=base.size,
                disk_type=self.disk_type,
                spot=False,
            )
            small = replace(size, name=said.size.name)
            here = replace(said, size=small, swapping=True, rescue=True)
            try:
                return creation.run_in_groups(
                    self.cloud, self.network, region, plan, here
                )
            except (NoCapacity, QuotaExceeded) as error:
                refusal = error
        tag(self.cloud, region, disk, {metadata.RESCUED: ""})
        raise refusal or NoCapacity(f"there is no machine for a disk in {zone}")

    def _take_out(self, region: str, volume: str) -> None:
        """Remove the disk that the machine was made with."""
        for operation in ("detach_volume", "delete_volume"):
            try:
                self.cloud.call("ec2", operation, region, VolumeId=volume)
            except Gone:
                return
            except ProviderError as error:
                if errors.code(error) != "IncorrectState":
                    raise
            if operation == "detach_volume":
                self._attached(region, volume, "available")

    def _attached(self, region: str, volume: str, *states: str) -> str:
        """Wait for a state of a volume; return the instance that holds it then."""

        def look() -> Answer | None:
            found = self.cloud.pages(
                "describe_volumes", "Volumes", region, VolumeIds=[volume]
            )
            return next((one for one in found if one.get("State") in states), None)

        seen = poll(self.cloud, look, _STEP_SECONDS, f"waiting for {volume}")
        return next((str(one["InstanceId"]) for one in seen.get("Attachments", ())), "")

    def _until(self, region: str, box: str, instance: str, *states: str) -> Answer:
        def look() -> Answer | None:
            found = self._one(region, box, instance)
            if instances.state(found) in ("terminated", "shutting-down"):
                raise Gone(f"the machine of {box} has been terminated")
            return found if instances.state(found) in states else None

        return poll(self.cloud, look, _STEP_SECONDS, f"{box} ({instance})")

    def _one(self, region: str, box: str, instance: str) -> Answer:
        def look() -> Answer | None:
            found = instances.of_instances(self.cloud, region, metadata.of_box(box))
            return next((one for one in found if one["InstanceId"] == instance), None)

        return poll(self.cloud, look, creation.SETTLE_SECONDS, f"looking for {box}")


def put_alarm(
    cloud: Cloud, region: str, said: BoxMetadata, instance: str, *, spot: bool
) -> bool:
    """Set the cloud's own deadline; tell whether that could be done."""
    seconds = said.deadline - cloud.clock()
    if not alarm.reaches(seconds):
        return False
    try:
        alarm.put(cloud, region, said.box, instance, seconds, spot=spot)
    except OneboxError:
        # The box has its own deadline; that this one is missing is told with it.
        return False
    return True


def tag(
    cloud: Cloud, region: str, resources: Sequence[str], texts: dict[str, str]
) -> None:
    """Change tags of things of ours; "" takes back what a tag has said."""
    tags = [{"Key": k, "Value": metadata.escape(v)} for k, v in texts.items()]
    cloud.call("ec2", "create_tags", region, Resources=list(resources), Tags=tags)


def _user_data(said: BoxMetadata) -> bytes:
    """
    Return what a box is told when it starts again.

    Its agent and its host key are on its disk; neither is told once more.
    """
    request = Request(
        box=said.box,
        tags=said.tags,
        offer=said.size,
        image=None,
        user_key=said.user_key,
        host_key=HostKey("", said.host_key),
        arming=BootConfig(said.deadline, said.setup_grace, said.idle_grace, b""),
    )
    return user_data.user_data(request, notice="ec2", packed=True)
