"""The provider `aws`: boxes on EC2, spot included, that cannot be forgotten."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from onebox.errors import Gone, OneboxError, ProviderError
from onebox.providers.aws import (
    base_images,
    creation,
    deletion,
    doctor,
    errors,
    images,
    instances,
    machine_types,
    metadata,
    policy,
    prices,
    rescue,
)
from onebox.providers.aws.client import Answer, Cloud, poll
from onebox.providers.aws.network import Network
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.base import (
    Box,
    Check,
    FreeThing,
    Image,
    Leftover,
    Offer,
    Provider,
    Request,
    Requirements,
)
from onebox.providers.kernel import public_ip, user_data

# The SDK itself is loaded when a call is made, which is not the first thing to do.
if importlib.util.find_spec("boto3") is None:
    raise ImportError("there is no boto3", name="boto3")

CONSOLE_LINES = 40

_GB = 1 << 30
_STOPPED_SECONDS = 300.0
# Families of one letter that share a vCPU limit (EC2's quota L-1216C47A; spot has
# its own, L-34B43A08); the others have one each.
_STANDARD = "acdhimrtz"


class AWS(Provider):
    """
    Boxes on EC2, as *settings* (the table [aws]) want them.

    Credentials, profile, region and endpoints are those of the user's own AWS
    configuration and variables.

    Args:
        here: What tells this machine's own address.

        timeout: How many seconds AWS has to answer a call.

    Raises:
        UsageError: The settings contradict themselves.
    """

    name = "aws"
    settle = creation.SETTLE_SECONDS
    poll_interval = 2.0
    # Snapshots are billed by what is on them, at most by their size.
    image_rate = 0.05
    adopts = ("amazon-ebs", "amazon-ebssurrogate", "amazon-chroot")

    def __init__(
        self,
        settings: AWSSettings,
        root: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        here: Callable[[], str] = public_ip.address,
        timeout: float = 30.0,
    ) -> None:
        self._cloud = Cloud(
            settings.region or None, clock=clock, sleep=sleep, timeout=timeout
        )
        self._clock = self._cloud.clock
        self._more = settings.regions
        self._zones = settings.zones
        self._subnet = bool(settings.subnet)
        self._disk_type = settings.disk_type
        self._disk = settings.disk
        self._network = Network(self._cloud, settings, here)
        self._bases = base_images.Bases(self._cloud)
        self._reach = instances.Addressing(
            private=settings.private,
            jump=settings.jump,
            notes=self._network.notes,
        )
        self._starter = rescue.Rescuer(
            self._cloud,
            self._network,
            self._bases,
            self._in_zone,
            self._disk_type,
        )
        self.unreachable_regions: tuple[str, ...] = ()

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Return the types that fit, in each zone that has them, cheapest first."""
        wanted = self._regions()
        if need.image is not None and need.image.places:
            wanted = [one for one in wanted if one in need.image.places]
            if not wanted:
                raise Gone(
                    f"image {need.image.id} is in {', '.join(need.image.places)} only",
                    next="inv image builds it here, or set that region under [aws]",
                )
        if self._subnet:
            # A subnet is in one region.
            wanted = wanted[:1]
        why: list[str] = []
        found = machine_types.offers(
            self._cloud,
            [partial(self._usable, region) for region in wanted],
            need,
            why,
        )
        self.unpriced = "; ".join(dict.fromkeys(why))
        return found

    def also_refused(self, size: Offer, limit: str, other: Offer) -> bool:
        """Tell whether a type counts against the same vCPU limit of a region."""
        return other.cpus >= size.cpus and _quota(other) == _quota(size)

    def egress_rate(self, place: str) -> float | None:
        """Return what a GB to the internet costs; the first 100 a month are free."""
        return prices.egress(instances.region_of(place))

    def base(self, name: str = "", arch: str = "") -> str:
        """Name the machine image that a name means, in the first region."""
        return base_images.text(self._bases.find(self._cloud.region, name, arch))

    def create(self, request: Request) -> Box:
        """Make the box; see `Provider`. It has an address a little later."""
        region = instances.region_of(request.offer.place) or self._cloud.region
        said = metadata.of_request(request)
        base = self._base_of(request, region)
        zone = request.offer.place
        if not zone or zone == region:
            zone = self._usable(region).zones[0]
        socket = self._network.socket(region, zone)
        plan = creation.Plan(
            token=request.box,
            type=request.offer.type,
            base=base,
            socket=socket,
            user_data=user_data.user_data(request, notice="ec2", packed=True),
            disk=request.disk or self._disk,
            disk_type=self._disk_type,
            spot=request.offer.spot,
        )
        made = creation.run_in_groups(self._cloud, self._network, region, plan, said)
        instance = str(made["InstanceId"])
        if instances.state(made) in ("pending", "running"):
            made = self._with_alarm(region, instance, made, said, request.offer.spot)
        box = instances.of_machine(made, self._reach, self._clock())
        if box is None:
            raise ProviderError(f"{instance} has come up without its tags")
        return box

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """
        Return this owner's boxes, also those of which only the disk is left.

        With *everywhere*, a region that does not answer does not keep the others
        from being told of: `unreachable_regions` says which, and why.
        """
        near = list(dict.fromkeys([*self._regions(), *map(instances.region_of, also)]))
        wanted = list(dict.fromkeys([*near, *self._enabled()])) if everywhere else near
        found: list[Box] = []
        unreachable_regions = []
        answers = self._cloud.answers(
            wanted, lambda region: instances.look_for_owner(self._cloud, region, owner)
        )
        for region, result in zip(wanted, answers):
            try:
                there = result()
            except OneboxError as error:
                if not everywhere:
                    raise
                unreachable_regions.append(f"{region}: {error.message}")
                continue
            boxes = [instances.box_of(one, self._reach, self._clock()) for one in there]
            found += [box for box in boxes if box is not None and box.state != "gone"]
        self.unreachable_regions = tuple(unreachable_regions)
        if unreachable_regions and len(unreachable_regions) == len(wanted):
            raise ProviderError(
                f"no region could be looked into: {unreachable_regions[0]}"
            )
        return found

    def get(self, box: str, place: str = "") -> Box | None:
        """Return this box as it is now, None if it is not there."""
        for region in self._where(place):
            things = instances.look(self._cloud, region, box)
            found = instances.box_of(things, self._reach, self._clock())
            if found is not None:
                return found
        return None

    def start(self, box: Box, deadline: float) -> Box:
        """Start a stopped box; a disk alone gets a small machine of its own."""
        region = self._region_of(box)
        self._starter.start(region, box, deadline)

        def look() -> Box | None:
            things = instances.look(self._cloud, region, box.id)
            found = instances.box_of(things, self._reach, self._clock())
            return found if found and found.state in ("starting", "running") else None

        return poll(self._cloud, look, self.settle, f"starting {box.id}")

    def stop(self, box: Box) -> None:
        """Stop the box; one of spot capacity ends, and leaves its disk."""
        region = self._region_of(box)
        machine = instances.look(self._cloud, region, box.id).machine
        if machine is None:
            return
        said = metadata.read(machine)
        metadata.check(box.id, said.tags if said else None, box.tags)
        if instances.state(machine) in ("running", "pending"):
            operation = "stop_instances"
            if instances.is_spot(machine):
                operation = "terminate_instances"
            self._end(region, operation, str(machine["InstanceId"]))

        def look() -> bool | None:
            now = instances.look(self._cloud, region, box.id).machine
            return True if now is None or instances.state(now) == "stopped" else None

        poll(self._cloud, look, _STOPPED_SECONDS, f"stopping {box.id}")

    def delete(self, box: Box) -> None:
        """Remove this one box with all that was made for it, and see it gone."""
        if not box.id:
            raise ProviderError("a box without an id cannot be deleted")
        deletion.delete(self._cloud, self._region_of(box), box, self.settle)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Ask again for everything that belonged to this box id."""
        return [
            one
            for region in self._where(place)
            for one in deletion.leftovers(self._cloud, region, box, self._disk_type)
        ]

    def free_things(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeThing]:
        """Return the owner's security groups; a machine in one keeps it."""
        wanted = [*self._regions(), *(self._enabled() if everywhere else [])]
        found = self._cloud.each(
            list(dict.fromkeys(wanted)),
            lambda region: self._network.free_things(region, owner),
        )
        return [thing for part in found for thing in part]

    def remove_free(self, owner: str, thing: FreeThing) -> None:
        """Remove a security group of the owner's that no machine is in."""
        if thing.kind != "security group":
            super().remove_free(owner, thing)
        self._network.remove_free(thing.place, owner, thing.id)

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first; each with the region it is in."""
        found = self._cloud.each(
            self._regions(),
            lambda region: images.of_owner(self._cloud, region, owner),
        )
        every = [image for part in found for image in part]
        return sorted(every, key=lambda image: image.created, reverse=True)

    def save(self, box: Box, image: Image) -> Image:
        """Save a stopped box's disk as an image of its region."""
        return images.save(self._cloud, self._region_of(box), box, image)

    def delete_image(self, image: Image) -> None:
        """Remove this one image, and what its disk was saved in."""
        for region in image.places or self._regions():
            images.delete(self._cloud, region, image)

    def adopt_image(self, id: str, image: Image) -> Image:
        """Make an image of ours of one that Packer has built in this account."""
        return images.adopt(self._cloud, self._regions(), id, image)

    def console(self, box: Box) -> str:
        """Return the last lines that the box said while booting."""
        region = self._region_of(box)
        machine = instances.look(self._cloud, region, box.id).machine
        if machine is None:
            return ""
        try:
            answer = self._cloud.call(
                "ec2",
                "get_console_output",
                region,
                InstanceId=machine["InstanceId"],
                Latest=True,
            )
        except Gone:
            return ""
        lines = str(answer.get("Output") or "").splitlines()
        return "\n".join(lines[-CONSOLE_LINES:])

    def checks(self) -> Sequence[Check]:
        """Look for whatever would keep a box from coming up here."""
        return doctor.look(self._cloud, self._network, self._bases)

    def set_host_key(self, box: Box, host_key: str) -> Box:
        """Write down, in the box's tags, that it answers with another host key now."""
        region = self._region_of(box)
        things = instances.look(self._cloud, region, box.id)
        thing = things.machine or things.kept
        if thing is None:
            raise Gone(f"there is nothing left of {box.id}")
        said = metadata.read(thing)
        metadata.check(box.id, said.tags if said else None, box.tags)
        rescue.tag(
            self._cloud,
            region,
            _resources(thing),
            {metadata.HOST_KEY: host_key, metadata.EXPOSED: ""},
        )
        return replace(box, host_key=host_key, bootstrap_key=False)

    def now(self) -> float:
        """Return the time by AWS's clock, once it has answered."""
        return self._clock()

    def allow_my_ip(self, box: Box) -> bool:
        """Let this machine's present address in, and no longer its former one."""
        region = self._region_of(box)
        machine = instances.look(self._cloud, region, box.id).machine
        groups = machine.get("SecurityGroups", ()) if machine is not None else ()
        ids = [str(group["GroupId"]) for group in groups]
        return bool(ids) and self._network.allow_my_ip(region, box.tags.owner, ids)

    def credentials_expire(self) -> float | None:
        """Return when the credentials end, None if they do not or nobody knows."""
        return doctor.expiry(self._cloud)

    def policy(self) -> str:
        """Return the least permissions that a user needs, as IAM takes them."""
        return policy.document()

    def _with_alarm(
        self,
        region: str,
        instance: str,
        made: Answer,
        said: metadata.BoxMetadata,
        spot: bool,
    ) -> Answer:
        """Set the cloud's own deadline; if that cannot be, write it down."""
        if rescue.put_alarm(self._cloud, region, said, instance, spot=spot):
            return made
        mark = {metadata.NO_ALARM: "1"}
        # If not even that can be, it is only said now: the box has its own deadline.
        with contextlib.suppress(OneboxError):
            rescue.tag(self._cloud, region, [instance], mark)
        return {**made, "Tags": [*made.get("Tags", ()), *metadata.as_list(mark)]}

    def _base_of(self, request: Request, region: str) -> base_images.Base:
        if request.image is not None:
            return images.base(self._cloud, region, request.image)
        return self._bases.find(region, request.base, request.offer.arch)

    def _usable(self, region: str) -> machine_types.Region:
        """Return a region with the zones of it that boxes may be in."""
        there = [socket.zone for socket in self._network.sockets(region)]
        chosen = [zone for zone in self._zones if instances.region_of(zone) == region]
        zones = [zone for zone in chosen if zone in there] if chosen else there
        return self._region(region, tuple(zones))

    def _region(self, name: str, zones: tuple[str, ...]) -> machine_types.Region:
        there = self._network.sockets(name)
        public = any(socket.public for socket in there if socket.zone in zones)
        return machine_types.Region(name, zones, self._disk, self._disk_type, public)

    def _in_zone(self, need: Requirements, zone: str) -> Sequence[Offer]:
        """Return the candidates for a machine that must be in one zone."""
        region = self._region(instances.region_of(zone), (zone,))
        return machine_types.offers(self._cloud, [lambda: region], need)

    def _end(self, region: str, operation: str, instance: str) -> None:
        def attempt() -> bool | None:
            try:
                self._cloud.call("ec2", operation, region, InstanceIds=[instance])
            except Gone:
                return True
            except ProviderError as error:
                # One that is only just starting cannot be stopped yet.
                if errors.code(error) != "IncorrectInstanceState":
                    raise
                return None
            return True

        poll(self._cloud, attempt, _STOPPED_SECONDS, f"stopping {instance}")

    def _regions(self) -> list[str]:
        return list(dict.fromkeys([self._cloud.region, *self._more]))

    def _where(self, place: str) -> list[str]:
        return [instances.region_of(place)] if place else self._regions()

    def _region_of(self, box: Box) -> str:
        return instances.region_of(box.place) or self._cloud.region

    def _enabled(self) -> list[str]:
        found = self._cloud.call("ec2", "describe_regions", self._cloud.region)
        return sorted(str(one["RegionName"]) for one in found.get("Regions", ()))


def _resources(thing: Answer) -> list[str]:
    """Return what carries a box's marks: a machine and its disks, or a disk."""
    if "VolumeId" in thing:
        return [str(thing["VolumeId"])]
    disks = [
        str(mapping["Ebs"]["VolumeId"])
        for mapping in thing.get("BlockDeviceMappings", ())
        if "Ebs" in mapping
    ]
    return [str(thing["InstanceId"]), *disks]


def _quota(size: Offer) -> tuple[str, bool, str]:
    """Return the region, market and families that a vCPU limit is for."""
    letters = re.match("[a-z]+", size.type)
    family = letters[0] if letters else ""
    standard = len(family) == 1 and family in _STANDARD
    region = instances.region_of(size.place)
    return region, size.spot, "standard" if standard else family
