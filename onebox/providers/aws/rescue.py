"""
Give the kept disk of a preempted box to a small instance, so that it can be read.

The instance is in the disk's zone. It boots a common image of the disk's architecture,
and powers itself off. Then onebox replaces the instance's own disk by the kept disk,
and starts the instance again. Until that start, a tag marks the instance as one that
waits for a disk. Because of the tag, another command sees a box of which only the disk
is left. If a crash interrupts the start of the box, the next start continues from
there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onebox.errors import Gone, NoCapacity, OneboxError, ProviderError, QuotaExceeded
from onebox.providers.aws import base_images, creation, errors, machine_types, metadata
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.aws.instances import BoxResources, swapping
from onebox.providers.aws.network import Network
from onebox.providers.aws.power import (
    STEP_SECONDS,
    described,
    tag,
    volume_ids,
    wait_for_state,
)
from onebox.providers.kernel import ranking
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import Requirements

# The instance first boots from its own disk, not from that of the box. It has nothing
# to do there, so it powers itself off.
_POWER_OFF = b"#cloud-config\nbootcmd: [poweroff]\n"
# An instance with this many vCPUs and bytes of memory is large enough to read a disk
# and send its files.
_CPUS, _MEMORY = 2, 4 << 30


@dataclass(frozen=True)
class Rescuer:
    """Creates the small instances that read kept disks."""

    network: Network
    bases: base_images.Bases

    def instance_with_disk(
        self, ec2: EC2, resources: BoxResources, meta: BoxMetadata
    ) -> Answer:
        """
        Return a stopped instance whose only disk is the kept disk of the box.

        Raises:
            Gone: The disk no longer exists.

            NoCapacity: AWS has no capacity for an instance; the disk is kept.
        """
        helper = resources.helper or self._launch(ec2, resources, meta)
        instance = str(helper["InstanceId"])
        wait_for_state(ec2, meta.box, instance, "running", "stopped")
        ec2.call("stop_instances", InstanceIds=[instance])
        helper = wait_for_state(ec2, meta.box, instance, "stopped")
        kept = resources.kept
        if kept is None:
            raise Gone(f"the disk of {meta.box} is no longer there")
        disk, root = str(kept["VolumeId"]), str(helper["RootDeviceName"])
        own = volume_ids(helper)
        own += [str(one["VolumeId"]) for one in resources.volumes if swapping(one)]
        for volume in dict.fromkeys(own):
            if volume != disk:
                self._delete_own_disk(ec2, volume)
        if self._holder(ec2, disk, "available", "in-use") != instance:
            self._holder(ec2, disk, "available")
            ec2.call("attach_volume", VolumeId=disk, InstanceId=instance, Device=root)
        self._holder(ec2, disk, "in-use")
        return described(ec2, meta.box, instance)

    def _launch(self, ec2: EC2, resources: BoxResources, meta: BoxMetadata) -> Answer:
        """
        Launch the cheapest small instance that AWS has in the zone of the kept disk.
        """
        kept = resources.kept
        if kept is None:
            raise Gone(f"nothing is left of {meta.box}")
        zone = str(kept["AvailabilityZone"])
        image_arch = meta.offer.arch or ranking.DEFAULT_ARCH
        base = self.bases.find(ec2, base_images.DEFAULT, image_arch)
        subnet = self.network.subnet(ec2, zone)
        ended = sum(1 for one in resources.instances if swapping(one))
        requirements = Requirements(meta.offer.name, _CPUS, _MEMORY, arch=image_arch)
        # EC2's lists may show a new instance late. So onebox tags the disk first. A
        # command that deletes the box sees the tag, and waits until the instance can
        # show.
        disk = [str(kept["VolumeId"])]
        tag(ec2, disk, {metadata.RESCUED: repr(ec2.clock())})
        refusal: OneboxError | None = None
        for offer in machine_types.in_zone(self.network, ec2, zone, requirements):
            plan = creation.Plan(
                # Repeated calls with this token launch only one instance. After that
                # instance has ended, *ended* is higher, so the token is a new one.
                token=f"{meta.box}-{ended}-{offer.type}"[:64],
                type=offer.type,
                base=base,
                subnet=subnet,
                user_data=_POWER_OFF,
                disk=base.size,
                disk_type=self.network.settings.disk_type,
                spot=False,
            )
            small = replace(offer, name=meta.offer.name)
            helper = replace(meta, offer=small, swapping=True, rescue=True)
            try:
                return creation.run_in_groups(ec2, self.network, plan, helper)
            except (NoCapacity, QuotaExceeded) as error:
                refusal = error
        tag(ec2, disk, {metadata.RESCUED: ""})
        raise refusal or NoCapacity(f"no instance for a disk fits in {zone}")

    def _delete_own_disk(self, ec2: EC2, volume: str) -> None:
        """Detach and delete a disk that the small instance was launched with."""
        for operation in ("detach_volume", "delete_volume"):
            try:
                ec2.call(operation, VolumeId=volume)
            except Gone:
                return
            except ProviderError as error:
                if errors.code(error) != "IncorrectState":
                    raise
            if operation == "detach_volume":
                self._holder(ec2, volume, "available")

    def _holder(self, ec2: EC2, volume: str, *states: str) -> str:
        """
        Wait until a volume is in one of *states*; return the id of its instance.

        The result is "" if the volume is attached to no instance.
        """

        def look() -> Answer | None:
            found = ec2.pages("describe_volumes", "Volumes", VolumeIds=[volume])
            return next((one for one in found if one.get("State") in states), None)

        what = f"waiting for {volume}"
        found = ec2.poller.require(look, STEP_SECONDS, what)
        holders = (str(one["InstanceId"]) for one in found.get("Attachments", ()))
        return next(holders, "")
