"""The DigitalOcean account as the provider contract sees it."""

from __future__ import annotations

import json
from typing import Any

from onebox.providers.digitalocean import metadata
from onebox.providers.values import Request
from tests.fakes.digitalocean.server import Server
from tests.fakes.world import CloudWorld


class DigitalOceanWorld(CloudWorld):
    """The account's resources, read from the fake."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Search the account's firewalls; a droplet without one is open."""
        return self.server.account.reachable(self._droplet(box), source)

    def boot_data(self, box: str) -> str:
        """Return user data and tags: the box reads its deadline from its tags."""
        droplet = self._droplet(box)
        boot_data = {"user_data": droplet.body["user_data"], "tags": droplet.tags}
        return json.dumps(boot_data)

    def deadline_on(self, box: str) -> float | None:
        """Return the deadline in the tags, if the user data reads them."""
        droplet = self._droplet(box)
        if "metadata/v1/tags" not in droplet.body["user_data"]:
            return None
        found = metadata.read(droplet.tags)
        return found.tags.deadline if found else None

    def image_on_disk(self, box: str) -> str:
        """Return the id in the tags of the snapshot that the create call named."""
        image = self.server.account.images.get(self._droplet(box).body["image"])
        found = metadata.read_image(image["tags"]) if image else None
        return found.id if found else ""

    def objects_of(self, box: str) -> set[str]:
        """Return droplets and firewalls."""
        account, tag = self.server.account, metadata.tag("box", box)
        ids = {str(n) for n, one in account.droplets.items() if tag in one.tags}
        firewalls = account.firewalls.items()
        return ids | {id for id, firewall in firewalls if tag in firewall["tags"]}

    def firewalls_of(self, owner: str) -> set[str]:
        """Return the firewalls whose name contains the owner."""
        firewalls = self.server.account.firewalls.items()
        return {id for id, firewall in firewalls if owner in firewall["name"]}

    def build_with_packer(self) -> str:
        """Add a snapshot without a tag."""
        number = self.server.account._image("packer-1", None, ["nyc3"], 25, [])
        return f"nyc3:{number}"

    def cut_after_next_create(self) -> None:
        """Cut the connection after the next POST of a droplet."""
        self.server.fail("POST", "droplets", "cut after")

    def refuse_creates(self, request: Request) -> Request:
        """Sell the size out."""
        self.server.account.behavior.sold_out = (request.offer.type,)
        return request

    def accept_creates(self) -> None:
        """Offer the size again."""
        self.server.account.behavior.sold_out = ()

    def open_ssh_to_everyone(self, box: str) -> None:
        """Open each rule of the box's firewalls to all addresses."""
        for id in self.objects_of(box) & set(self.server.account.firewalls):
            for rule in self.server.account.firewalls[id]["inbound_rules"]:
                rule["sources"] = {"addresses": ["0.0.0.0/0", "::/0"]}

    def detach_firewalls(self, box: str) -> None:
        """Delete the box's firewalls."""
        for id in self.objects_of(box) & set(self.server.account.firewalls):
            del self.server.account.firewalls[id]

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace user data and tags."""
        droplet = self._droplet(box)
        values = json.loads(boot_data) if boot_data else {"user_data": ""}
        droplet.body["user_data"] = values["user_data"]
        droplet.tags = values.get("tags", droplet.tags)

    def put_base_on_disk(self, box: str) -> None:
        """Replace the droplet's image by Ubuntu."""
        self._droplet(box).body["image"] = "ubuntu-24-04-x64"

    def leave_partial_create(self, owner: str, box: str) -> None:
        """Leave the box's firewall."""
        tag = self.server.account.tag(metadata.tag("box", box))
        name = f"onebox.{owner}.{box}"
        rules: dict[str, Any] = {"inbound_rules": [], "outbound_rules": []}
        self.server.account.put_firewall({"name": name, "tags": [tag], **rules})

    def _droplet(self, box: str) -> Any:
        tag = metadata.tag("box", box)
        droplets = self.server.account.droplets.values()
        (droplet,) = [droplet for droplet in droplets if tag in droplet.tags]
        return droplet
