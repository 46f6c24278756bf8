"""The provider `hetzner`: boxes that are servers of Hetzner Cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from hcloud.images import BoundImage

from onebox.errors import UsageError
from onebox.providers.hetzner import deadline
from onebox.providers.hetzner.api import HetznerAPI
from onebox.providers.hetzner.client import CLOUD, ENDPOINT, TOKEN, Invalid
from onebox.providers.hetzner.images import Snapshots
from onebox.providers.hetzner.machine_types import MachineTypes
from onebox.providers.hetzner.settings import HetznerSettings
from onebox.providers.kernel import doctor, public_ip, ranking
from onebox.providers.kernel.billed_off import BilledOff
from onebox.providers.kernel.servers.provider import ENVIRONMENT, ServerProvider
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.values import Box, Check, Image, Offer, Request, Requirements

_ADDRESS = "https://api.hetzner.cloud/v1"


class Hetzner(ServerProvider):
    """
    A provider of boxes that are servers of Hetzner Cloud.

    Args:
        settings: The table [hetzner] of onebox.toml.

        timeouts: The time limits of requests and waits.

        my_ip: Returns the public address of this machine.

        environ: The environment, which holds the tokens, and the address of the API if
            it is not the usual one.
    """

    name = "hetzner"
    adopts = ("hcloud",)
    billed_off = BilledOff(
        cloud=CLOUD,
        table="hetzner",
        machine="a server",
        main_token=TOKEN,
        rights="Read & Write, which are all rights in its project: use one for boxes",
    )

    def __init__(
        self,
        settings: HetznerSettings,
        root: Path,
        *,
        timeouts: Timeouts | None = None,
        my_ip: Callable[[], str] = public_ip.my_ip,
        environ: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        endpoint = environ.get(ENDPOINT, "").rstrip("/") or _ADDRESS
        token = environ.get(TOKEN, "").strip()
        api = HetznerAPI(token, endpoint, timeouts or Timeouts(), settings.tags)
        super().__init__(settings, api, my_ip, environ)
        self._cloud = api.cloud
        self._machine_types = MachineTypes(self._cloud, settings)
        self.image_store = Snapshots(self._cloud, api)

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """Return the offers that meet the requirements, best first."""
        self.destroy_token()
        return self._machine_types.offers(requirements)

    def also_refused(self, offer: Offer, limit: str, other: Offer) -> bool:
        """Return True: a limit of the account covers all server types."""
        return True

    def egress_rate(self, place: str) -> float | None:
        """Return the highest price (USD) of a GB sent from *place* to the internet."""
        return self._machine_types.egress(place)

    def images(self, owner: str) -> Sequence[Image]:
        """Set *image_rate*, and return this owner's images, newest first."""
        self.image_rate = self._machine_types.image_rate
        return super().images(owner)

    def base(self, name: str = "", arch: str = "") -> str:
        """Return the name and the number of a base image, with a space between them."""
        found = self._base(name, arch)
        return f"{found.name} {found.id}"

    def image_for(self, request: Request) -> BoundImage:
        """Return the base image of a request, or the snapshot of its saved image."""
        if request.image is None:
            return self._base(request.base, request.offer.arch)
        snapshot: BoundImage = self.image_store.usable(request.image, CLOUD)
        return snapshot

    def deadline_at_boot(self, request: Request) -> str:
        """Return shell code that reads the deadline from the disk of the box."""
        return deadline.at_boot(request)

    def post_boot_script(self, box: Box) -> bytes:
        """
        Return the program that sets the deadline, and stores the destroy token if set.
        """
        return deadline.post_boot_script(box) + super().post_boot_script(box)

    def console(self, box: Box) -> str:
        """Return the latest actions of the server; the API has no console output."""
        return "\n".join(
            f"{action.command}: {action.status}"
            for server in self._api.servers("box", box.id)
            for action in server.raw.get_actions(sort=["id:desc"])[:5]
        )

    def checks(self) -> Sequence[Check]:
        """Check the token, the deadline, the machine types and ssh."""
        return doctor.run(
            [("token", self._check_token)],
            [
                ("deadline", self.check_deadline),
                ("machine types", self._check_types),
                ("ssh", partial(doctor.ssh_line, self._access)),
            ],
        )

    def _base(self, name: str, arch: str) -> BoundImage:
        """
        Return Hetzner's base image of a name for an architecture.

        *name* can also be what `base` returned. "" means the default.
        """
        name = name.split(" ")[0] or "ubuntu-24.04"
        kind = "arm" if arch == "aarch64" else "x86"
        found = self._cloud.images.get_by_name_and_architecture(name, kind)
        if found is None:
            raise UsageError(
                f"Hetzner has no {kind} image {name}", next="another [image] base"
            )
        return found

    def _check_token(self) -> Check:
        # An empty request creates nothing. If the token has the permission to write,
        # the API refuses the request as invalid.
        with suppress(Invalid):
            self._cloud.request("POST", "/firewalls", json={})
        return Check("token", True, "accepted, with the permission Read & Write")

    def _check_types(self) -> Check:
        found = self.offers(Requirements("any", 1, 1))
        places = ", ".join(dict.fromkeys(offer.place for offer in found))
        detail = f"from {ranking.show(found[0])} on, in {places}"
        return Check("machine types", True, detail)
