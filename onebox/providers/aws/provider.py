"""The provider `aws`: boxes that are EC2 instances, on demand or spot."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onebox.errors import Gone, OneboxError, ProviderError
from onebox.providers.aws import (
    alarm,
    base_images,
    creation,
    deletion,
    doctor,
    instance_profile,
    instances,
    machine_types,
    metadata,
    policy,
    power,
    prices,
    rescue,
)
from onebox.providers.aws.client import EC2, Answer, Cloud
from onebox.providers.aws.images import AMIs, adopt
from onebox.providers.aws.network import Network
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.kernel import public_ip, user_data
from onebox.providers.kernel.cloud_provider import CloudProvider, last_lines
from onebox.providers.kernel.images import newest_first
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import (
    Box,
    Check,
    FreeObject,
    Image,
    Leftover,
    Offer,
    Request,
    Requirements,
    SaveProgress,
    ignore_progress,
)

# This only checks that the SDK is installed. The SDK is imported at the first call,
# because the import takes half a second.
if importlib.util.find_spec("boto3") is None:
    raise ImportError("there is no boto3", name="boto3")


class AWS(CloudProvider):
    """
    The provider whose boxes are EC2 instances.

    Credentials, profile, region and endpoints come from the user's own AWS
    configuration and environment variables.

    Args:
        settings: The table [aws] of onebox.toml.

        cloud: The client of AWS's API.

        my_ip: Returns the public address of this machine.
    """

    name = "aws"
    consistency_lag = creation.LAG_SECONDS
    poll_interval = 2.0
    # A saved image is stored as snapshots. This is the price of snapshots, in USD for
    # one GB and month. AWS bills the blocks that a snapshot stores.
    image_rate = 0.05
    egress_rates = prices.EGRESS
    adopts = ("amazon-ebs", "amazon-ebssurrogate", "amazon-chroot")

    def __init__(
        self,
        settings: AWSSettings,
        root: Path,
        *,
        cloud: Cloud | None = None,
        my_ip: Callable[[], str] = public_ip.my_ip,
    ) -> None:
        self._cloud = cloud or Cloud(settings.region)
        self._cloud.user_tags = settings.tags
        self.clock = self._cloud.clock
        self._settings = settings
        self.identity = settings.identity
        self._network = Network(settings, my_ip)
        self._bases = base_images.Bases()
        self._addressing = instances.Addressing(
            settings.private,
            settings.jump,
            self._network.access.notes,
            lambda: self._cloud.profile,
        )
        self._rescuer = rescue.Rescuer(self._network, self._bases)

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """Return the offers that meet the requirements, best first."""
        regions = self._regions()
        image = requirements.image
        if image is not None and image.places:
            regions = [region for region in regions if region in image.places]
            if not regions:
                raise Gone(
                    f"image {image.id} is in {', '.join(image.places)} only",
                    next="inv image builds it here, or set that region under [aws]",
                )
        if self._settings.subnet:
            # A subnet is in one region. The one in the settings is in the first region.
            regions = regions[:1]
        why: list[str] = []
        reachable = self._network.reachable(list(map(self._cloud.ec2, regions)))
        offers = machine_types.offers(self._network, reachable, requirements, why)
        self.unpriced = "; ".join(dict.fromkeys(why))
        return offers

    def also_refused(self, offer: Offer, limit: str, other: Offer) -> bool:
        """
        Return whether the vCPU limit that refused *offer* refuses *other* too.

        It does if it limits *other* too and *other* has at least as many vCPUs.
        """
        quota = machine_types.quota
        return other.cpus >= offer.cpus and quota(other) == quota(offer)

    def base(self, name: str = "", arch: str = "") -> str:
        """Return a text that identifies the AMI of a base name in the first region."""
        return base_images.text(self._bases.find(self._cloud.ec2(), name, arch))

    def packer_source(self, base: str) -> dict[str, Any]:
        """Return the AMI in *base* as Packer's variable."""
        return base_images.packer_source(base)

    def create(self, request: Request) -> Box:
        """
        Create the box, or return it if it exists; its address may not be known yet.
        """
        ec2 = self._cloud.ec2(instances.region_of(request.offer.place))
        meta = replace(BoxMetadata.of_request(request), reach=self._settings.reach)
        base = self._base_of(request, ec2)
        zone = request.offer.place
        if not zone or zone == ec2.region:
            zone = self._network.usable_subnets(ec2)[0].zone
        subnet = self._network.subnet(ec2, zone)
        plan = creation.Plan(
            token=request.box,
            type=request.offer.type,
            base=base,
            subnet=subnet,
            user_data=user_data.user_data(request, notice="ec2", packed=True),
            disk=request.disk or self._settings.disk,
            disk_type=self._settings.disk_type,
            spot=request.offer.spot,
            profile=instance_profile.for_request(self._settings, request),
        )
        launched = creation.run_in_groups(ec2, self._network, plan, meta)
        if instances.state(launched) in ("pending", "running"):
            launched = self._with_alarm(ec2, launched, meta, request.offer.spot)
        box = instances.read_box(launched, self._addressing, self.clock())
        if box is None:
            raise ProviderError(f"{launched['InstanceId']} was launched without tags")
        return box

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """
        Return this owner's boxes, including those of which only the disk is left.

        The regions of the settings and of the places in *also* are searched. If
        *everywhere* is true, all enabled regions are searched. A region that does not
        answer is then skipped, and `unreachable_regions` names it.
        """
        near = list(dict.fromkeys([*self._regions(), *map(instances.region_of, also)]))
        regions = list(dict.fromkeys([*near, *self._enabled()])) if everywhere else near
        found: list[Box] = []
        unreachable = []
        answers = self._cloud.answers(
            regions,
            lambda region: instances.find_resources_of_owner(
                self._cloud.ec2(region), owner
            ),
        )
        for region, answer in zip(regions, answers):
            try:
                resources = answer()
            except OneboxError as error:
                if not everywhere:
                    raise
                unreachable.append(f"{region}: {error.message}")
                continue
            now = self.clock()
            boxes = [
                instances.read_resources(one, self._addressing, now)
                for one in resources
            ]
            found += [box for box in boxes if box is not None and box.state != "gone"]
        self.unreachable_regions = tuple(unreachable)
        if unreachable and len(unreachable) == len(regions):
            raise ProviderError(f"no region answers: {unreachable[0]}")
        return found

    def get(self, box: str, place: str = "") -> Box | None:
        """Return this box, None if it does not exist."""
        for ec2 in self._where(place):
            resources = instances.find_resources(ec2, box)
            found = instances.read_resources(resources, self._addressing, self.clock())
            if found is not None:
                return found
        return None

    def start(self, box: Box, deadline: float) -> Box:
        """
        Start a stopped box; if only its disk is left, start a small instance with it.
        """
        ec2 = self._at(box)
        power.start(ec2, box, deadline, self._rescuer.instance_with_disk)

        def started() -> Box | None:
            found = self.get(box.id, ec2.region)
            return found if found and found.state in ("starting", "running") else None

        return self._cloud.poller.require(
            started, self.consistency_lag, f"starting {box.id}"
        )

    def stop(self, box: Box) -> None:
        """Stop the box and wait; a spot instance is terminated, its disk is kept."""
        power.stop(self._at(box), box)

    def delete(self, box: Box) -> None:
        """Delete this box with everything that belongs to it, and wait."""
        if not box.id:
            raise ProviderError("a box without an id cannot be deleted")
        deletion.delete(self._at(box), box, self.consistency_lag)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Return the resources of this box that still exist."""
        return [
            one
            for ec2 in self._where(place)
            for one in deletion.leftovers(ec2, box, self._settings.disk_type)
        ]

    def free_objects(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeObject]:
        """Return the owner's security groups; those that are in use must stay."""
        regions = [*self._regions(), *(self._enabled() if everywhere else [])]
        found = self._cloud.each(
            list(dict.fromkeys(regions)),
            lambda region: self._network.free_objects(self._cloud.ec2(region), owner),
        )
        return [one for in_region in found for one in in_region]

    def remove_free(self, owner: str, resource: FreeObject) -> None:
        """Delete a security group of the owner, unless an instance uses it."""
        if resource.kind != "security group":
            super().remove_free(owner, resource)
        self._network.remove_free(self._cloud.ec2(resource.place), owner, resource.id)

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images with their regions, newest first."""
        found = self._cloud.each(
            self._regions(),
            lambda region: AMIs(self._cloud.ec2(region)).of_owner(owner),
        )
        return newest_first(image for in_region in found for image in in_region)

    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """Save a stopped box's disk as an image in its region."""
        return AMIs(self._at(box)).save(box, image, progress)

    def delete_image(self, image: Image) -> None:
        """Delete this image in all its regions, with its snapshots."""
        for region in image.places or self._regions():
            AMIs(self._cloud.ec2(region)).delete(image)

    def adopt_image(self, id: str, image: Image) -> Image:
        """Tag an AMI that Packer built in this account as *image*."""
        return adopt(self._cloud, id, image)

    def console(self, box: Box) -> str:
        """Return the last lines of the box's console."""
        ec2 = self._at(box)
        instance = instances.find_resources(ec2, box.id).instance
        if instance is None:
            return ""
        try:
            answer = ec2.call(
                "get_console_output", InstanceId=instance["InstanceId"], Latest=True
            )
        except Gone:
            return ""
        return last_lines(str(answer.get("Output") or ""))

    def checks(self) -> Sequence[Check]:
        """Check the credentials, permissions, quotas and prices."""
        return doctor.checks(self._cloud, self._network, self._bases)

    def set_host_key(self, box: Box, host_key: str) -> Box:
        """Record the box's new host key in its tags."""
        ec2 = self._at(box)
        resources = instances.find_resources(ec2, box.id)
        present = resources.instance or resources.kept
        if present is None:
            raise Gone(f"nothing is left of {box.id}")
        metadata.check_owner(box.id, present, box.tags)
        power.tag(
            ec2,
            power.resource_ids(present),
            {metadata.HOST_KEY: host_key, metadata.BOOTSTRAP_KEY: ""},
        )
        return replace(box, host_key=host_key, bootstrap_key=False)

    def allow_my_ip(self, box: Box) -> bool:
        """
        Open ssh to this machine's current address only; return whether a rule changed.
        """
        ec2 = self._at(box)
        instance = instances.find_resources(ec2, box.id).instance
        if instance is None or box.proxy is not None:
            return False
        ids = [str(group["GroupId"]) for group in instance.get("SecurityGroups", ())]
        return bool(ids) and self._network.allow_my_ip(ec2, box.tags.owner, ids)

    def credentials_expire(self) -> float | None:
        """
        Return when the credentials expire (epoch seconds), None if that is unknown.
        """
        return doctor.expiry(self._cloud)

    def policy(self) -> str:
        """Return the minimal permissions, as an IAM policy."""
        roles = instance_profile.passed_roles(
            self._cloud, self._settings.instance_profile
        )
        return policy.document(roles, self._settings.reach)

    def _with_alarm(
        self, ec2: EC2, launched: Answer, meta: BoxMetadata, spot: bool
    ) -> Answer:
        """
        Set the alarm of a new instance, and return the instance.

        If the alarm cannot be set, the instance's tags record that.
        """
        instance = str(launched["InstanceId"])
        if alarm.put(ec2, meta, instance, spot=spot):
            return launched
        mark = {metadata.NO_ALARM: "1"}
        # If the tag cannot be set either, only this command reports the missing alarm.
        # That is no error, because the box enforces its deadline in any case.
        with contextlib.suppress(OneboxError):
            power.tag(ec2, [instance], mark)
        return {
            **launched,
            "Tags": [*launched.get("Tags", ()), *metadata.tag_list(mark)],
        }

    def _base_of(self, request: Request, ec2: EC2) -> base_images.Base:
        if request.image is not None:
            return AMIs(ec2).base(request.image)
        return self._bases.find(ec2, request.base, request.offer.arch)

    def _regions(self) -> list[str]:
        return list(dict.fromkeys([self._cloud.region, *self._settings.regions]))

    def _where(self, place: str) -> list[EC2]:
        regions = [instances.region_of(place)] if place else self._regions()
        return list(map(self._cloud.ec2, regions))

    def _at(self, box: Box) -> EC2:
        return self._cloud.ec2(instances.region_of(box.place))

    def _enabled(self) -> list[str]:
        found = self._cloud.ec2().call("describe_regions")
        return sorted(str(one["RegionName"]) for one in found.get("Regions", ()))
