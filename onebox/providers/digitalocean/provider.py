"""The provider `digitalocean`: boxes that are droplets."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from onebox import formatting
from onebox.errors import (
    Gone,
    NotAllowed,
    OneboxError,
    ProviderError,
    Unclear,
)
from onebox.providers.digitalocean import (
    base_images,
    creation,
    deletion,
    doctor,
    images,
    machine_types,
    metadata,
    network,
    policy,
    power,
    prices,
    ssh_keys,
    tag_api,
)
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.deadline import BILLED_OFF
from onebox.providers.digitalocean.errors import ACCOUNT, UnknownKey
from onebox.providers.digitalocean.instances import Droplets, check_all, read_box
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.kernel import public_ip, self_destroy
from onebox.providers.kernel.cloud_provider import CloudProvider
from onebox.providers.kernel.metadata import without_comment
from onebox.providers.kernel.ssh_access import SSHAccess
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.values import (
    Box,
    Check,
    FreeObject,
    Leftover,
    Offer,
    Request,
    Requirements,
)

LAST_ACTIONS = 5
_ACCOUNT = "this account of DigitalOcean"


class DigitalOcean(CloudProvider):
    """
    Boxes that are droplets.

    Args:
        settings: The table [digitalocean] of onebox.toml.

        timeouts: The time limits of requests and waits.

        my_ip: Returns the public address of this machine.

        environ: The environment with the variable that `destroy_token` names.

    Raises:
        ConfigError: Two settings contradict each other.
    """

    image_store: images.Snapshots
    name = "digitalocean"
    consistency_lag = Timeouts().consistency_lag
    poll_interval = Timeouts().poll_interval
    adopts = ("digitalocean",)
    image_rate = prices.SNAPSHOT
    egress_rates = prices.EGRESS

    def __init__(
        self,
        settings: DigitalOceanSettings,
        root: Path,
        *,
        timeouts: Timeouts | None = None,
        my_ip: Callable[[], str] = public_ip.my_ip,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self.stopped_is_free = bool(settings.destroy_token)
        self._timeouts = timeouts or Timeouts()
        self._access = SSHAccess(
            ssh_cidr=settings.ssh_cidr, private=settings.private, my_ip=my_ip
        )
        self._notes = (BILLED_OFF.note(settings), *self._access.notes)
        self._environ = environ
        self._cloud = Cloud(self._timeouts)
        self._droplets = Droplets(self._cloud)
        self.clock = self._cloud.clock
        self.image_store = images.Snapshots(self._cloud, self._droplets)
        self._catalogue = machine_types.Catalogue(
            self._cloud, self._timeouts.price_cache
        )
        self.consistency_lag = self._timeouts.consistency_lag
        self.poll_interval = self._timeouts.poll_interval

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """Return the offers that fit the requirements, by price and then by region."""
        if requirements.spot:
            raise machine_types.no_spot(
                self._catalogue, requirements, self._settings.all_regions
            )
        # The token is checked here, before any work is done, and again in `create`.
        self._destroy_token()
        image = requirements.image
        snapshot = self.image_store.usable(image, _ACCOUNT) if image else {}
        least = int(snapshot.get("min_disk_size") or 0)
        return machine_types.offers(
            self._catalogue, requirements, self._settings.all_regions, least
        )

    def also_refused(self, offer: Offer, limit: str, other: Offer) -> bool:
        """
        Return whether *other* would be refused too.

        The limit of the account covers all sizes. Any other limit covers one size, in
        all regions.
        """
        return limit == ACCOUNT or other.type == offer.type

    def base(self, name: str = "", arch: str = "") -> str:
        """
        Return DigitalOcean's name for the image that a base stands for, and its number.
        """
        return base_images.exactly(self._cloud, name)

    def create(self, request: Request) -> Box:
        """Create the box, its firewall first; return the box if it exists already."""
        found = self._droplets.of_box(request.box)
        if found:
            droplet = creation.only_one(self._cloud, request, found)
            return self._box(droplet)
        self._destroy_token()
        image = self._image_for(request)
        owner = request.tags.owner
        key = ssh_keys.ensure(self._cloud, owner, request.user_key)
        body = creation.body(request, self._settings, image, key)
        self._create_firewall(request)
        try:
            droplet = self._post(request, body)
        except Unclear:
            raise
        except OneboxError:
            network.remove(self._cloud, request.box)
            tag_api.delete_unused(self._cloud, [metadata.tag("box", request.box)])
            raise
        self._remove_stale(owner)
        return self._box(droplet)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return this owner's boxes in all regions, which one call lists."""
        found: dict[str, Box] = {}
        for droplet in self._droplets.of_owner(owner):
            box = self._read(droplet)
            if box is not None and box.tags.owner == owner:
                found.setdefault(box.id, box)
        return list(found.values())

    def get(self, box: str, place: str = "") -> Box | None:
        """
        Return this box, None if it does not exist or the API does not list it yet.
        """
        for droplet in self._droplets.of_box(box):
            found = self._read(droplet)
            if found is not None:
                return found
        return None

    def start(self, box: Box, deadline: float) -> Box:
        """Power the box on; it reads the new deadline from its tags when it boots."""
        droplet = self._droplets.owned(box)
        self._retag(droplet, "expires", repr(deadline))
        droplet = power.start(self._cloud, self._droplets, int(droplet["id"]))
        return self._box(droplet)

    def stop(self, box: Box) -> None:
        """Shut the box down and wait; it is still billed in full."""
        found = self._droplets.of_box(box.id)
        check_all(found, box.id, box.tags)
        for droplet in found:
            power.stop(self._cloud, self._droplets, int(droplet["id"]))

    def delete(self, box: Box) -> None:
        """
        Delete this box and everything that belongs to it, and wait until it is gone.
        """
        deletion.delete(self._cloud, self._droplets, box)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """
        Return the box's droplets, firewalls, volumes and untagged snapshots that exist.
        """
        return deletion.leftovers(self._cloud, self._droplets, box)

    def free_objects(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeObject]:
        """
        Return the owner's firewalls and ssh keys; if *everywhere*, the owner's tag too.
        """
        live = {box.id for box in self.find(owner)}
        found = network.of_owner(self._cloud, owner, live, gone)
        why = (
            f"{formatting.first_names(sorted(live))} may need it again" if live else ""
        )
        for key in ssh_keys.of_owner(self._cloud, owner):
            found.append(FreeObject("ssh key", str(key["id"]), why=why))
        tag = metadata.tag("owner", owner)
        if everywhere and tag_api.exists(self._cloud, tag):
            why = "removing it could take it off a box that is being created"
            found.append(FreeObject("tag", tag, why=why))
        return found

    def remove_free(self, owner: str, resource: FreeObject) -> None:
        """Delete a firewall or an ssh key of the owner, unless a box may need it."""
        live = {box.id for box in self.find(owner)}
        if resource.kind == "firewall":
            network.remove_one(self._cloud, owner, resource.id, live)
        elif resource.kind == "ssh key":
            if live:
                raise ProviderError(
                    f"{formatting.first_names(sorted(live))} may need it"
                )
            ssh_keys.remove(self._cloud, owner, resource.id)
        else:
            super().remove_free(owner, resource)

    def console(self, box: Box) -> str:
        """
        Return the latest actions of the droplet, and the URL of its web console.

        The API does not give access to the console itself.
        """
        lines = []
        for droplet in self._droplets.of_box(box.id):
            number = droplet["id"]
            listed = self._cloud.all(f"droplets/{number}/actions", "actions")
            done = sorted(listed, key=lambda one: int(one["id"]))[-LAST_ACTIONS:]
            lines += [f"{one.get('type')}: {one.get('status')}" for one in done]
            lines.append(
                f"droplet {number} is {droplet.get('status')}; its console: "
                f"https://cloud.digitalocean.com/droplets/{number}/console"
            )
        return "\n".join(lines)

    def checks(self) -> Sequence[Check]:
        """Check the token, limits, region, sizes and deadline."""
        return doctor.checks(
            self._cloud,
            self._catalogue,
            self._settings,
            self._access,
            lambda: BILLED_OFF.check(self._settings, self._environ, self._cloud.secret),
        )

    def set_host_key(self, box: Box, host_key: str) -> Box:
        """Record the box's new host key in its tags."""
        droplet = self._droplets.owned(box)
        self._retag(droplet, "hostkey", without_comment(host_key))
        now = self._droplets.by_number(int(droplet["id"]))
        if now is None:
            raise Gone(f"box {box.id} does not exist any more")
        return self._box(now)

    def allow_my_ip(self, box: Box) -> bool:
        """
        Open ssh to this machine's current address only; return whether a rule changed.
        """
        self._droplets.owned(box)
        networks = self._access.networks(refresh=True)
        return network.ensure(self._cloud, box.tags.owner, box.id, networks)

    def policy(self) -> str:
        """Return the scopes that the token needs."""
        return policy.document()

    def post_boot_script(self, box: Box) -> bytes:
        """
        Return the Python program that enables a new box to delete itself.

        The program holds a token, so it is sent over stdin of the verified connection.
        Return b"" if the user has set no token, and for a box that builds an image: its
        set-up needs root, which the program takes away.
        """
        if not self._settings.destroy_token or box.tags.kind != "box":
            return b""
        return self_destroy.post_boot_script(
            self._destroy_token(),
            f"{self._cloud.address}droplets/",
            "metadata/v1/id",
        )

    def _destroy_token(self) -> str:
        return BILLED_OFF.token(self._settings, self._environ, self._cloud.secret)

    def _post(self, request: Request, body: Answer) -> Answer:
        """
        Send the create call; if the ssh key is missing, register it and send again.
        """
        try:
            return creation.post(self._cloud, self._droplets, request, body)
        except UnknownKey:
            # Another command of the owner has deleted the ssh key together with the
            # last box.
            ssh_keys.ensure(self._cloud, request.tags.owner, request.user_key)
        return creation.post(self._cloud, self._droplets, request, body)

    def _create_firewall(self, request: Request) -> None:
        """
        Create the firewall.

        If the response is lost, this raises a ProviderError and not Unclear, because no
        droplet exists yet.
        """
        box, networks = request.box, self._access.networks()
        try:
            network.ensure(self._cloud, request.tags.owner, box, networks)
        except Unclear as error:
            with suppress(ProviderError):
                network.remove(self._cloud, box)
            raise ProviderError(
                f"there is no firewall for {box}, so the box was not created: "
                f"{error.message}",
                next="the same command again",
            ) from error

    def _image_for(self, request: Request) -> str | int:
        image = request.image
        snapshot = self.image_store.usable(image, _ACCOUNT) if image else {}
        disk = self._catalogue.disk(request.offer.type)
        creation.check_disk(request, disk, int(snapshot.get("min_disk_size") or 0))
        if not snapshot:
            return base_images.slug(request.base)
        region = request.offer.place or self._settings.all_regions[0]
        self.image_store.bring(snapshot, region)
        return int(snapshot["id"])

    def _remove_stale(self, owner: str) -> None:
        # A failure is ignored, because old firewalls are free of charge and the next
        # command tries again.
        with suppress(ProviderError):
            network.remove_stale(
                self._cloud, owner, lambda: {box.id for box in self.find(owner)}
            )

    def _retag(self, droplet: Answer, key: str, value: str) -> None:
        """
        Replace the droplet's tag for this key.

        The new tag is added before the old one is removed, so that the droplet always
        has one.
        """
        new = metadata.tag(key, value)
        present = [str(tag).lower() for tag in droplet.get("tags") or []]
        prefix = f"onebox-{key}:"
        old = [tag for tag in present if tag.startswith(prefix) and tag != new]
        number = int(droplet["id"])
        if new not in present:
            tag_api.add(self._cloud, new, "droplet", number)
        for tag in old:
            tag_api.remove(self._cloud, tag, "droplet", number)
        tag_api.delete_unused(self._cloud, old)

    def _box(self, droplet: Answer) -> Box:
        box = self._read(droplet)
        if box is None:
            raise NotAllowed(f"droplet {droplet['id']} lacks the tags of its box")
        return box

    def _read(self, droplet: Answer) -> Box | None:
        return read_box(droplet, self._settings, self._notes, self.clock())
