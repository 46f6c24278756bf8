"""The provider `digitalocean`: boxes that are droplets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onebox.providers.digitalocean import (
    base_images,
    create_body,
    deadline,
    doctor,
    images,
    metadata,
    policy,
    prices,
    tag_api,
)
from onebox.providers.digitalocean.api import DropletAPI
from onebox.providers.digitalocean.client import Cloud
from onebox.providers.digitalocean.errors import ACCOUNT, TOKEN
from onebox.providers.digitalocean.machine_types import GIGABYTE, MachineTypes
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.kernel import public_ip
from onebox.providers.kernel.billed_off import BilledOff
from onebox.providers.kernel.servers.provider import ENVIRONMENT, ServerProvider
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.values import (
    Box,
    Check,
    FreeObject,
    Offer,
    Request,
    Requirements,
)

LAST_ACTIONS = 5
_ACCOUNT = "this account of DigitalOcean"


class DigitalOcean(ServerProvider):
    """
    A provider of boxes that are droplets.

    Args:
        settings: The table [digitalocean] of onebox.toml.

        timeouts: The time limits of requests and waits.

        my_ip: Returns the public address of this machine.

        environ: The environment variables; the setting `destroy_token` names one of
            them.

    Raises:
        ConfigError: Two settings contradict each other.
    """

    _settings: DigitalOceanSettings
    image_store: images.Snapshots
    name = "digitalocean"
    adopts = ("digitalocean",)
    image_rate = prices.SNAPSHOT
    egress_rates = prices.EGRESS
    billed_off = BilledOff(
        cloud="DigitalOcean",
        table="digitalocean",
        machine="a droplet",
        main_token=TOKEN,
        rights="only the scope droplet:delete",
    )

    def __init__(
        self,
        settings: DigitalOceanSettings,
        root: Path,
        *,
        timeouts: Timeouts | None = None,
        my_ip: Callable[[], str] = public_ip.my_ip,
        environ: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        self._cloud = Cloud(timeouts or Timeouts())
        api = DropletAPI(self._cloud, settings)
        super().__init__(settings, api, my_ip, environ)
        user_tags = metadata.of_user(settings.tags)
        self.image_store = images.Snapshots(self._cloud, api, user_tags)
        self._machine_types = MachineTypes(self._cloud, api.timeouts.price_cache)

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """Return the offers that meet the requirements, best first."""
        # The token is checked here, before any work is done, and again in `create`.
        self.destroy_token()
        image = requirements.image
        if image is not None:
            snapshot = self.image_store.usable(image, _ACCOUNT)
            disk = int(snapshot.get("min_disk_size") or 0) * GIGABYTE
            requirements = replace(requirements, image=replace(image, disk=disk))
        return self._machine_types.offers(requirements, self._settings.all_regions)

    def also_refused(self, offer: Offer, limit: str, other: Offer) -> bool:
        """
        Return whether *other* would be refused too.

        The limit of the account covers all machine types. Any other limit covers one
        type, in all regions.
        """
        return limit == ACCOUNT or other.type == offer.type

    def base(self, name: str = "", arch: str = "") -> str:
        """
        Return DigitalOcean's name for a base image, a space, and the image's number.
        """
        return base_images.exactly(self._cloud, name)

    def image_for(self, request: Request) -> str | int:
        """
        Return the name of the base image, or the number of the saved image's snapshot.

        A snapshot that is not in the box's region is copied there first.
        """
        image = request.image
        snapshot = self.image_store.usable(image, _ACCOUNT) if image else {}
        disk = self._machine_types.disk(request.offer.type)
        create_body.check_disk(request, disk, int(snapshot.get("min_disk_size") or 0))
        if not snapshot:
            return base_images.slug(request.base)
        region = request.offer.place or self._settings.all_regions[0]
        self.image_store.bring(snapshot, region)
        return int(snapshot["id"])

    def deadline_at_boot(self, request: Request) -> str:
        """Return shell code that reads the deadline from the droplet's tags."""
        return deadline.at_boot(request)

    def free_objects(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeObject]:
        """
        Return the owner's firewalls and ssh keys; if *everywhere*, the owner's tag too.
        """
        found = list(super().free_objects(owner, gone))
        tag = metadata.tag("owner", owner)
        if everywhere and tag_api.exists(self._cloud, tag):
            why = "removing it could take it off a box that is being created"
            found.append(FreeObject("tag", tag, why=why))
        return found

    def console(self, box: Box) -> str:
        """
        Return the latest actions of the droplet, and the URL of its web console.

        The API does not give access to the console itself.
        """
        lines = []
        for server in self._api.servers("box", box.id):
            number = server.id
            listed = self._cloud.all(f"droplets/{number}/actions", "actions")
            done = sorted(listed, key=lambda one: int(one["id"]))[-LAST_ACTIONS:]
            lines += [f"{one.get('type')}: {one.get('status')}" for one in done]
            lines.append(
                f"droplet {number} is {server.raw.get('status')}; its console: "
                f"https://cloud.digitalocean.com/droplets/{number}/console"
            )
        return "\n".join(lines)

    def checks(self) -> Sequence[Check]:
        """Check the token, limits, region, sizes and deadline."""
        return doctor.checks(
            self._cloud,
            self._machine_types,
            self._settings,
            self._access,
            self.check_deadline,
        )

    def policy(self) -> str:
        """Return the scopes that the token needs."""
        return policy.document()
