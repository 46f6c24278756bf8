"""The provider `gcp`: boxes that are instances of Google Compute Engine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from onebox.errors import ProviderError
from onebox.providers.gcp import (
    base_images,
    creation,
    deletion,
    doctor,
    host_keys,
    instances,
    machine_types,
    metadata,
    network,
    policy,
    power,
    prices,
    reach,
    sdk,
)
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.images import ProjectImages
from onebox.providers.gcp.settings import GCPSettings, region_of
from onebox.providers.kernel import public_ip
from onebox.providers.kernel.cloud_provider import CloudProvider, last_lines
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

# This raises ImportError if Google's library is missing. It does not import the
# library.
sdk.require()

_ID = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class GCP(CloudProvider):
    """
    Boxes in one project of Google Cloud.

    The constructor starts to import Google's library in the background, which takes
    a second.

    Args:
        settings: The table [gcp] of onebox.toml.

        cloud: The client of Google's API.

        my_ip: Returns the public address of this machine.
    """

    name = "gcp"
    consistency_lag = 120.0
    poll_interval = 1.0
    adopts = ("googlecompute",)
    image_rate = 0.05
    egress_rates = prices.EGRESS

    def __init__(
        self,
        settings: GCPSettings,
        root: Path,
        *,
        cloud: Cloud | None = None,
        my_ip: Callable[[], str] = public_ip.my_ip,
    ) -> None:
        self._settings = settings
        self.identity = settings.identity
        self._cloud = cloud or Cloud(settings)
        self.clock = self._cloud.clock
        self.image_store = ProjectImages(self._cloud)
        self._rules = network.Rules(self._cloud, my_ip)
        self._prices = prices.Prices(self._cloud)
        # Maps each deleted box to its owner, so that `leftovers` can look for the
        # owner's firewall rules.
        self._owners: dict[str, str] = {}
        sdk.begin()

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """Return the offers that fit the requirements, in all zones, best first."""
        reach.require(self._settings.reach)
        found = machine_types.offers(self._cloud, self._prices, requirements)
        self.unpriced = self._prices.problem
        return found

    def also_refused(self, offer: Offer, limit: str, other: Offer) -> bool:
        """Return whether the quota that refused *offer* would refuse *other* too."""
        if other.cpus < offer.cpus:
            return False
        if "ALL_REGIONS" in limit:
            return True
        if region_of(offer.place) != region_of(other.place):
            return False
        # A quota for vCPUs covers one family of machine types. A quota for disks or
        # addresses covers all families.
        families = {one.type.partition("-")[0] for one in (offer, other)}
        cpus = not limit or "CPUS" in limit
        return not cpus or (len(families) == 1 and offer.spot == other.spot)

    def base(self, name: str = "", arch: str = "") -> str:
        """Return the image that a base name stands for now, as "project/name"."""
        return base_images.exactly(self._cloud, name, arch)

    def packer_source(self, base: str) -> dict[str, Any]:
        """Return the Packer variables with project and name of the image *base*."""
        return base_images.packer_source(base)

    def create(self, request: Request) -> Box:
        """Create the box; its state is "starting" until its host key is known."""
        _check_id(request.box)
        instance = creation.launch(self._cloud, self._rules, request)
        return self._box(instance)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return this owner's boxes in all zones; a single API call lists them."""
        found = self._cloud.everywhere(
            "instances", "looking for boxes", filter=metadata.owner_filter(owner)
        )
        mine = [self._box(one) for one in found if _is_of(one, owner)]
        return sorted(mine, key=lambda box: (box.created, box.id))

    def get(self, box: str, place: str = "") -> Box | None:
        """Return this box, None if it does not exist or does not belong to onebox."""
        _check_id(box)
        instance = instances.find(self._cloud, box, place)
        if instance is None or metadata.read_tags(instance.labels, {}) is None:
            return None
        return self._box(instance)

    def start(self, box: Box, deadline: float) -> Box:
        """
        Start a stopped box with a new deadline, which both the box and Google enforce.

        If there is no capacity for a spot box, it starts as a smaller machine type.
        """
        way = reach.IAP if box.proxy else ""
        self._rules.wait(self._rules.open(box.tags.owner, way))
        power.start(self._cloud, self._prices, box, deadline)
        return self._box(instances.owned(self._cloud, box))

    def stop(self, box: Box) -> None:
        """Stop the box and wait; its disk stays."""
        power.stop(self._cloud, box)

    def delete(self, box: Box) -> None:
        """
        Delete this box and its disk.

        If it was the owner's last box, delete the owner's firewall rules too.
        """
        _check_id(box.id)
        self._owners[box.id] = box.tags.owner
        deletion.delete(self._cloud, box.id, box.tags, box.place)
        self._rules.close(box.tags.owner)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """
        Return the resources of this box that still exist.

        If no instance, disk or address is left of a box that this object has deleted,
        return the owner's firewall rules instead, unless another box uses them.
        """
        _check_id(box)
        left = deletion.leftovers(self._cloud, box, place)
        owner = self._owners.get(box, "")
        if left or not owner:
            return left
        rules = self._rules.names(owner)
        if rules and network.used_by(self._cloud, owner):
            return []
        return [Leftover("firewall rule", name, 0.0) for name in rules]

    def free_objects(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeObject]:
        """Return the owner's firewall rules in all networks."""
        rules = self._rules.of_owner(owner)
        why = network.used_by(self._cloud, owner) if rules else ""
        return [FreeObject("firewall rule", name, why=why) for name in rules]

    def remove_free(self, owner: str, resource: FreeObject) -> None:
        """Delete a firewall rule of the owner, unless the owner has a box."""
        if resource.kind != "firewall rule":
            super().remove_free(owner, resource)
        self._rules.remove_one(owner, resource.id)

    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """Save a stopped box's disk as an image, stored in the box's region."""
        _check_id(image.id)
        return super().save(box, image, progress)

    def delete_image(self, image: Image) -> None:
        """Delete this image; an image that is gone is no error."""
        _check_id(image.id)
        super().delete_image(image)

    def console(self, box: Box) -> str:
        """Return the last lines of the box's serial port."""
        try:
            output = self._cloud.ask(
                "instances",
                "get_serial_port_output",
                f"reading the console of {box.id}",
                zone=box.place,
                instance=box.id,
            )
        except ProviderError as error:
            return f"(no console: {error.message})"
        return last_lines(str(output.contents))

    def checks(self) -> Sequence[Check]:
        """Check the credentials, project, API, permissions, quotas and prices."""
        return doctor.checks(self._cloud, self._prices, self._rules.access)

    def allow_my_ip(self, box: Box) -> bool:
        """
        Open ssh to this machine's current address only; return whether rules changed.
        """
        if box.proxy is not None:
            return False
        changes = self._rules.open(box.tags.owner, refresh=True)
        self._rules.wait(changes)
        return bool(changes)

    def credentials_expire(self) -> float | None:
        """Return when the credentials expire (epoch seconds), None if they renew."""
        return self._cloud.account.expires

    def policy(self) -> str:
        """Return the minimal permissions, as a role definition for gcloud."""
        account = self._settings.service_account
        return policy.document(account, self._settings.reach)

    def _box(self, instance: Any) -> Box:
        host_key, problem = host_keys.find(self._cloud, instance)
        why = power.why(self._cloud, instance)
        found = instances.read_box(instance, host_key, why, self._cloud.project)
        if found is None:
            raise ProviderError(f"instance {last(instance.self_link)} is not onebox's")
        notes = (*found.notes, problem) if problem else found.notes
        return dataclasses.replace(found, notes=notes, jump=self._settings.jump)


def _is_of(instance: Any, owner: str) -> bool:
    tags = metadata.read_tags(instance.labels, instances.read_record(instance))
    return tags is not None and tags.owner == owner


def _check_id(text: str) -> None:
    """Raise ProviderError unless a text can be a name in Google Cloud."""
    if not _ID.fullmatch(text):
        raise ProviderError(f"{text!r} cannot be the id of a box or an image")
