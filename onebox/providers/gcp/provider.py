"""The provider `gcp`: boxes that are instances of Google Compute Engine."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from onebox.errors import Gone, ProviderError
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
from onebox.providers.gcp import (
    base_images,
    creation,
    deletion,
    doctor,
    host_keys,
    images,
    instances,
    machine_types,
    metadata,
    network,
    policy,
    power,
    prices,
    sdk,
    settings,
)
from onebox.providers.gcp.client import Cloud, last

# Says that Google's library is missing, without importing it.
sdk.require()

CONSOLE_LINES = 40
_ID = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class GCP(Provider):
    """
    Boxes in one project of Google Cloud, as *table* ([gcp]) wants them.

    Google's library is imported in the background from here on: whoever makes
    this object early has it ready when it is used.

    Args:
        clock: Tells the time (epoch seconds).

        sleep: Waits; tests wait less.

        timeout: For how many seconds one call may be silent.

        address: Returns this machine's public address.

    Raises:
        ConfigError: A setting cannot be used.
    """

    name = "gcp"
    settle = 120.0
    poll_interval = 1.0
    adopts = ("googlecompute",)
    image_rate = 0.05

    def __init__(
        self,
        table: settings.Settings,
        root: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        timeout: float = 30.0,
        address: Callable[[], str] | None = None,
    ) -> None:
        self._settings = table
        self._cloud = Cloud(self._settings, clock=clock, sleep=sleep, timeout=timeout)
        self._clock = self._cloud.clock
        self._rules = network.Rules(self._cloud, address or _address)
        self._prices = prices.Prices(self._cloud)
        # Whose boxes were deleted here: their rules are looked for afterwards.
        self._owners: dict[str, str] = {}
        sdk.begin()

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Return types times zones, the cheapest first; see `Provider`."""
        found = machine_types.find(self._cloud, self._prices, need)
        self.unpriced = self._prices.problem
        return found

    def also_refused(self, size: Offer, limit: str, other: Offer) -> bool:
        """Tell whether a quota covers another type too: see `failures.limit`."""
        if other.cpus < size.cpus:
            return False
        if "ALL_REGIONS" in limit:
            return True
        if settings.region_of(size.place) != settings.region_of(other.place):
            return False
        # Those of vCPUs are a family's own; of disks, addresses and instances not.
        families = {one.type.partition("-")[0] for one in (size, other)}
        cpus = not limit or "CPUS" in limit
        return not cpus or (len(families) == 1 and size.spot == other.spot)

    def egress_rate(self, place: str) -> float | None:
        """Return what a GB to the internet costs at most, in the Premium Tier."""
        return prices.egress(settings.region_of(place))

    def base(self, name: str = "", arch: str = "") -> str:
        """Name the image that an environment's family stands for today."""
        return base_images.exactly(self._cloud, name, arch)

    def create(self, request: Request) -> Box:
        """Make the box; see `Provider`. It is starting until its host key is known."""
        _check_id(request.box)
        instance = creation.launch(self._cloud, self._rules, request, self._clock)
        return self._box(instance)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return this owner's boxes in all zones: Google lists them in one call."""
        found = self._cloud.everywhere(
            "instances", "looking for boxes", filter=metadata.owned_by(owner)
        )
        mine = [self._box(one) for one in found if _is_of(one, owner)]
        return sorted(mine, key=lambda box: (box.created, box.id))

    def get(self, box: str, place: str = "") -> Box | None:
        """Return this box as it is now, None if it is not there."""
        _check_id(box)
        instance = deletion.instance(self._cloud, box, place)
        if instance is None or metadata.tags(instance.labels, {}) is None:
            return None
        return self._box(instance)

    def start(self, box: Box, deadline: float) -> Box:
        """
        Start a stopped box with a new deadline, Google's own included.

        One that was taken back comes up smaller where there is no room for it.
        """
        self._rules.wait(self._rules.open(box.tags.owner))
        power.start(self._cloud, self._prices, box, deadline, self._clock)
        instance = deletion.own(self._cloud, box.id, box.tags, box.place)
        if instance is None:
            raise Gone(f"box {box.id} is not there any more", next="inv provision")
        return self._box(instance)

    def stop(self, box: Box) -> None:
        """Stop the box and wait until it has; its disk stays."""
        power.stop(self._cloud, box)

    def delete(self, box: Box) -> None:
        """Remove this one box and its disk; with the owner's last, the rules."""
        _check_id(box.id)
        self._owners[box.id] = box.tags.owner
        deletion.clear(self._cloud, box.id, box.tags, box.place)
        self._rules.close(box.tags.owner)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Ask again for instance, disks and addresses, and for rules without a box."""
        _check_id(box)
        left = deletion.leftovers(self._cloud, box, place)
        owner = self._owners.get(box, "")
        if left or not owner:
            return left
        rules = self._rules.left(owner)
        if rules and network.any_box(self._cloud, owner):
            return []
        return [Leftover("firewall rule", name, 0.0) for name in rules]

    def free_things(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeThing]:
        """Return the owner's firewall rules, of whatever network."""
        rules = self._rules.of_owner(owner)
        why = network.used_by(self._cloud, owner) if rules else ""
        return [FreeThing("firewall rule", name, why=why) for name in rules]

    def remove_free(self, owner: str, thing: FreeThing) -> None:
        """Remove a rule of the owner's, unless there is a box of theirs."""
        if thing.kind != "firewall rule":
            super().remove_free(owner, thing)
        self._rules.remove_one(owner, thing.id)

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""
        return images.all_of(self._cloud, owner)

    def save(self, box: Box, image: Image) -> Image:
        """Save a stopped box's disk as an image, kept in the box's region."""
        _check_id(image.id)
        return images.save(self._cloud, box, image)

    def delete_image(self, image: Image) -> None:
        """Remove this one image; already gone is fine."""
        _check_id(image.id)
        images.delete(self._cloud, image)

    def adopt_image(self, id: str, image: Image) -> Image:
        """Make an image of ours of one that Packer has built in this project."""
        return images.adopt(self._cloud, id, image)

    def console(self, box: Box) -> str:
        """Return the last lines that the box said on its serial port."""
        try:
            said = self._cloud.ask(
                "instances",
                "get_serial_port_output",
                f"reading the console of {box.id}",
                zone=box.place,
                instance=box.id,
            )
        except ProviderError as error:
            return f"(no console: {error.message})"
        lines = str(said.contents).splitlines()
        return "\n".join(lines[-CONSOLE_LINES:])

    def checks(self) -> Sequence[Check]:
        """Look at credentials, project, API, permissions, quotas, prices."""
        return doctor.checks(self._cloud, self._prices, self._clock)

    def now(self) -> float:
        """Return the time by Google's clock, once it has answered."""
        return self._clock()

    def allow_my_ip(self, box: Box) -> bool:
        """Let this machine's present address in, and no longer its former one."""
        begun = self._rules.open(box.tags.owner, anew=True)
        self._rules.wait(begun)
        return bool(begun)

    def credentials_expire(self) -> float | None:
        """Return when the credentials end for good, None if they renew themselves."""
        return self._cloud.account.expires

    def policy(self) -> str:
        """Return a role with the least permissions, as gcloud takes it."""
        return policy.policy()

    def _box(self, instance: Any) -> Box:
        host_key, problem = host_keys.find(self._cloud, instance)
        found = instances.box(instance, host_key, power.why(self._cloud, instance))
        if found is None:
            raise ProviderError(f"instance {last(instance.self_link)} is not onebox's")
        if problem:
            found = dataclasses.replace(found, notes=(*found.notes, problem))
        if self._settings.jump:
            found = dataclasses.replace(found, jump=self._settings.jump)
        return found


def _is_of(instance: Any, owner: str) -> bool:
    tags = metadata.tags(instance.labels, instances.read_record(instance))
    return tags is not None and tags.owner == owner


def _address() -> str:
    from onebox.providers.kernel.public_ip import address

    return address()


def _check_id(text: str) -> None:
    """Raise ProviderError unless this can be a name in Google Cloud."""
    if not _ID.fullmatch(text):
        raise ProviderError(f"{text!r} cannot be the id of a box or an image")
