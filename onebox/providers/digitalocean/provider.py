"""The provider `digitalocean`: boxes that are droplets."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from onebox import formatting
from onebox.errors import (
    ConfigError,
    Gone,
    NotAllowed,
    OneboxError,
    ProviderError,
    Unclear,
)
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
from onebox.providers.digitalocean import (
    creation,
    deletion,
    doctor,
    images,
    machine_types,
    metadata,
    network,
    power,
    self_destroy,
    ssh_keys,
    tag_api,
)
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.errors import ACCOUNT, TOKEN, UnknownKey
from onebox.providers.digitalocean.instances import Droplets, as_box, check_all
from onebox.providers.digitalocean.settings import Settings, Timeouts
from onebox.providers.kernel import public_ip
from onebox.providers.kernel.ssh_access import SSHAccess

LAST_ACTIONS = 5
TAG_STAYS = "to remove it could take it off a box that is being made"


class DigitalOcean(Provider):
    """
    Boxes that are droplets, as *settings* (the table [digitalocean]) wants them.

    Args:
        patience: How long what may take.

        address: How to learn this machine's own address.

        environ: Where the variable of `destroy_token` is.

    Raises:
        ConfigError: Two settings do not go together.
    """

    name = "digitalocean"
    settle = Timeouts().settle
    poll_interval = Timeouts().look
    adopts = ("digitalocean",)
    image_rate = images.SNAPSHOT_PRICE

    def __init__(
        self,
        settings: Settings,
        root: Path,
        *,
        patience: Timeouts | None = None,
        address: Callable[[], str] = public_ip.address,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._wishes = settings
        self.stopped_is_free = bool(self._wishes.destroy_token)
        self._patience = patience or Timeouts()
        self._access = SSHAccess(
            ssh_cidr=self._wishes.ssh_cidr,
            private=self._wishes.private,
            my_ip=address,
        )
        self._environ = environ
        self._calls = Calls(self._patience)
        self._droplets = Droplets(self._calls)
        self._catalogue = machine_types.Catalogue(self._calls, self._patience.prices)
        self.settle, self.poll_interval = self._patience.settle, self._patience.look

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Return the cheapest that fit, by price and then by region."""
        if need.spot:
            raise machine_types.no_spot(self._catalogue, need, self._wishes.all_regions)
        # Before anything is begun; and again before anything is made.
        self._check_deadline()
        least = 0
        if need.image is not None:
            least = int(self._snapshot(need.image).get("min_disk_size") or 0)
        return machine_types.candidates(
            self._catalogue, need, self._wishes.all_regions, least
        )

    def also_refused(self, size: Offer, limit: str, other: Offer) -> bool:
        """Tell whether another size is refused too: all are, or this one anywhere."""
        return limit == ACCOUNT or other.type == size.type

    def egress_rate(self, place: str) -> float | None:
        """
        Return what a GB to the internet costs at most.

        $0.01 a GiB beyond what the droplets of a month bring along, which is not
        deducted here (DigitalOcean, "Bandwidth Billing", as of 2026).
        """
        return 0.01

    def base(self, name: str = "", arch: str = "") -> str:
        """Name the image that a droplet starts from, and which of its versions."""
        slug = creation.base_slug(name)
        try:
            image = self._calls.get(f"images/{slug}")["image"]
        except Gone as error:
            raise ProviderError(
                f"DigitalOcean has no image {slug} any more",
                next="another [image] base",
            ) from error
        return f"{slug} {image['id']}"

    def create(self, request: Request) -> Box:
        """Make the droplet, its firewall first; see `Provider`."""
        found = self._droplets.called(request.box)
        if found:
            droplet = creation.only_one(self._calls, self._patience, request, found)
            return self._box(droplet)
        self._check_deadline()
        image = self._image_for(request)
        owner = request.tags.owner
        key = ssh_keys.ensure(self._calls, owner, request.user_key)
        said = creation.body(request, self._wishes, image, key)
        self._wall_off(request)
        try:
            droplet = self._post(request, said)
        except Unclear:
            raise
        except OneboxError:
            network.remove(self._calls, request.box)
            tag_api.forget(self._calls, [metadata.tag("box", request.box)])
            raise
        self._remove_stale(owner)
        return self._box(droplet)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return this owner's boxes; one call sees all regions."""
        found: dict[str, Box] = {}
        for droplet in self._droplets.owned(owner):
            box = self._read(droplet)
            if box is not None and box.tags.owner == owner:
                found.setdefault(box.id, box)
        return list(found.values())

    def get(self, box: str, place: str = "") -> Box | None:
        """Return this box as it is now, None if it is not there, or not yet."""
        for droplet in self._droplets.called(box):
            found = self._read(droplet)
            if found is not None:
                return found
        return None

    def start(self, box: Box, deadline: float) -> Box:
        """Power a box on; its deadline is in its tags, which it reads as it boots."""
        droplet = self._one(box)
        self._retag(droplet, "expires", repr(deadline))
        number = int(droplet["id"])
        droplet = power.start(self._calls, self._droplets, self._patience, number)
        return self._box(droplet)

    def stop(self, box: Box) -> None:
        """Shut the box down and wait until it is off; it is billed on."""
        found = self._droplets.called(box.id)
        check_all(found, box.id, box.tags)
        for droplet in found:
            power.stop(self._calls, self._droplets, self._patience, int(droplet["id"]))

    def delete(self, box: Box) -> None:
        """Remove this one box and what was made for it, and see it gone."""
        deletion.delete(self._calls, self._droplets, self._patience, box)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Ask again for droplet, firewall, volumes and half-made snapshots."""
        return deletion.leftovers(self._calls, self._droplets, box)

    def free_things(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeThing]:
        """Return the owner's firewalls and ssh key, and with *everywhere* its tag."""
        live = {box.id for box in self.find(owner)}
        found = network.of_owner(self._calls, owner, live, gone)
        why = (
            f"{formatting.first_names(sorted(live))} may be made again with it"
            if live
            else ""
        )
        for key in ssh_keys.of_owner(self._calls, owner):
            found.append(FreeThing("ssh key", str(key["id"]), why=why))
        word = metadata.tag("owner", owner)
        if everywhere and tag_api.is_there(self._calls, word):
            found.append(FreeThing("tag", word, why=TAG_STAYS))
        return found

    def remove_free(self, owner: str, thing: FreeThing) -> None:
        """Remove a firewall or the ssh key of the owner's, unless a box needs it."""
        live = {box.id for box in self.find(owner)}
        if thing.kind == "firewall":
            network.remove_one(self._calls, owner, thing.id, live)
        elif thing.kind == "ssh key":
            if live:
                names = formatting.first_names(sorted(live))
                raise ProviderError(f"{names} may need it")
            ssh_keys.remove(self._calls, owner, thing.id)
        else:
            super().remove_free(owner, thing)

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""
        return images.of_owner(self._calls, owner)

    def save(self, box: Box, image: Image) -> Image:
        """Save a stopped box's disk as a snapshot."""
        droplet = self._one(box)
        if droplet["status"] != "off":
            raise ProviderError(f"box {box.id} must be stopped before it is saved")
        number = int(droplet["id"])
        return images.save(self._calls, self._patience, number, box.id, image)

    def adopt_image(self, id: str, image: Image) -> Image:
        """Make an image of ours of a snapshot that Packer has made."""
        return images.adopt(self._calls, self._patience, id, image)

    def delete_image(self, image: Image) -> None:
        """Remove this one image; already gone is fine."""
        images.delete(self._calls, self._patience, image)

    def console(self, box: Box) -> str:
        """Say what can be said: the API shows no console."""
        lines = []
        for droplet in self._droplets.called(box.id):
            number = droplet["id"]
            listed = self._calls.all(f"droplets/{number}/actions", "actions")
            done = sorted(listed, key=lambda one: int(one["id"]))[-LAST_ACTIONS:]
            lines += [f"{one.get('type')}: {one.get('status')}" for one in done]
            lines.append(
                f"droplet {number} is {droplet.get('status')}; its console: "
                f"https://cloud.digitalocean.com/droplets/{number}/console"
            )
        return "\n".join(lines)

    def checks(self) -> Sequence[Check]:
        """Look for whatever would keep a box from coming up; never raises."""
        found = doctor.look(
            self._calls, self._catalogue, self._wishes, self._access.networks
        )
        try:
            self._check_deadline()
        except OneboxError as error:
            if self._wishes.destroy_token:
                found.append(Check("destroy token", False, error.message, error.next))
        return found

    def set_host_key(self, box: Box, host_key: str) -> Box:
        """Write the box's new host key into its tags."""
        droplet = self._one(box)
        self._retag(droplet, "hostkey", " ".join(host_key.split()[:2]))
        now = self._droplets.numbered(int(droplet["id"]))
        if now is None:
            raise Gone(f"box {box.id} is not there (any more)")
        return self._box(now)

    def allow_my_ip(self, box: Box) -> bool:
        """Have the box's firewall let this machine's present address in."""
        self._one(box)
        networks = self._access.networks(refresh=True)
        return network.ensure(self._calls, box.tags.owner, box.id, networks)

    def policy(self) -> str:
        """Return the scopes that the token needs."""
        return doctor.policy()

    def now(self) -> float:
        """Return the time by DigitalOcean's clock, once it has answered."""
        return self._calls.time()

    def post_boot_script(self, box: Box) -> bytes:
        """
        Return what is to be run on a new box as root, over the verified connection.

        It is a Python program that may hold a secret, for stdin; b"" if there is
        nothing to do. A builder gets none: setting up wants to be root.
        """
        if not self._wishes.destroy_token or box.tags.kind != "box":
            return b""
        return self_destroy.post_boot_script(self._destroy_token(), self._calls.address)

    def _post(self, request: Request, said: Answer) -> Answer:
        """Send the create call; once more if its ssh key was removed meanwhile."""
        try:
            return creation.post(
                self._calls, self._droplets, self._patience, request, said
            )
        except UnknownKey:
            # By another command of the owner's, with what was the last box.
            ssh_keys.ensure(self._calls, request.tags.owner, request.user_key)
        return creation.post(self._calls, self._droplets, self._patience, request, said)

    def _wall_off(self, request: Request) -> None:
        """Make the firewall; where that fails there is certainly no droplet."""
        box, networks = request.box, self._access.networks()
        try:
            network.ensure(self._calls, request.tags.owner, box, networks)
        except Unclear as error:
            with suppress(ProviderError):
                network.remove(self._calls, box)
            raise ProviderError(
                f"there is no firewall for {box}, so it was not made: {error.message}",
                next="the same command again",
            ) from error

    def _check_deadline(self) -> None:
        """Raise ConfigError unless somebody or something ends what we make."""
        if self._wishes.destroy_token:
            self._destroy_token()
        elif not self._wishes.accept_no_watchdog:
            raise ConfigError(doctor.NO_WATCHDOG, next=doctor.SAY_SO)

    def _destroy_token(self) -> str:
        name = self._wishes.destroy_token
        token = self._environ.get(name, "").strip()
        if not token:
            raise ConfigError(
                f"[digitalocean] destroy_token names {name}, which is not set",
                next=f"set {name} to a token with the scope droplet:delete alone",
            )
        if token == self._calls.secret:
            raise ConfigError(
                f"{name} holds the same token as {TOKEN}, and would put all of its "
                "rights on the box",
                next="make another one, with the scope droplet:delete alone",
            )
        return token

    def _image_for(self, request: Request) -> str | int:
        least, image = 0, None
        if request.image is not None:
            image = self._snapshot(request.image)
            least = int(image.get("min_disk_size") or 0)
        disk = self._catalogue.disk(request.offer.type)
        creation.check_disk(request, disk, least)
        if image is None:
            return creation.base_slug(request.base)
        region = request.offer.place or self._wishes.all_regions[0]
        images.bring(self._calls, self._patience, image, region)
        return int(image["id"])

    def _snapshot(self, image: Image) -> Answer:
        found = images.snapshot_of(self._calls, image.id)
        if found is None:
            raise Gone(
                f"there is no image {image.id} ({image.name}) on DigitalOcean",
                next="inv image builds it again",
            )
        return found

    def _remove_stale(self, owner: str) -> None:
        # What is left by a crash may stay a little longer if this fails.
        with suppress(ProviderError):
            network.remove_stale(
                self._calls, owner, lambda: {box.id for box in self.find(owner)}
            )

    def _one(self, box: Box) -> Answer:
        """Return the box's droplet. Raises `Gone`, or `NotAllowed` if it differs."""
        found = self._droplets.called(box.id)
        if not found:
            raise Gone(f"box {box.id} is not there (any more)", next="inv status")
        check_all(found, box.id, box.tags)
        return found[0]

    def _retag(self, droplet: Answer, key: str, value: str) -> None:
        """Replace what a droplet's tags say of one thing; the new comes first."""
        new = metadata.tag(key, value)
        present = [str(word).lower() for word in droplet.get("tags") or []]
        start = f"onebox-{key}:"
        old = [word for word in present if word.startswith(start) and word != new]
        number = int(droplet["id"])
        if new not in present:
            tag_api.put_on(self._calls, new, "droplet", number)
        for word in old:
            tag_api.take_off(self._calls, word, "droplet", number)
        tag_api.forget(self._calls, old)

    def _box(self, droplet: Answer) -> Box:
        box = self._read(droplet)
        if box is None:
            raise NotAllowed(f"droplet {droplet['id']} has lost the tags of its box")
        return box

    def _read(self, droplet: Answer) -> Box | None:
        return as_box(droplet, self._wishes, self._notes(), self._calls.time())

    def _notes(self) -> tuple[str, ...]:
        if self._wishes.destroy_token:
            notes = [
                "at its deadline the box removes itself, with all that is on its disk",
            ]
        else:
            notes = [
                "at its deadline the box only powers itself off, and is billed on: "
                "nothing but inv teardown or inv sweep ends that (inv sweep "
                "--print-cron)",
            ]
        return (*notes, *self._access.notes)
