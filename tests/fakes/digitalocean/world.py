"""The DigitalOcean account as the contract tests see it, without its API."""

from __future__ import annotations

import json
from typing import Any

from onebox.providers.base import Request
from onebox.providers.digitalocean import metadata
from tests.fakes.digitalocean.server import Server


class DigitalOceanWorld:
    """The account, for one test; see `World`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.here = "203.0.113.7"
        self.lost = 0

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Ask the account's firewalls; a droplet without one is open."""
        return self.server.account.reachable(self._one(box), source)

    def boot_data(self, box: str) -> str:
        """Return user data and tags: the box reads its deadline there."""
        droplet = self._one(box)
        boot_data = {"user_data": droplet.body["user_data"], "tags": droplet.tags}
        return json.dumps(boot_data)

    def deadline_on(self, box: str) -> float | None:
        """Read the deadline as the box does at its boot."""
        droplet = self._one(box)
        if "metadata/v1/tags" not in droplet.body["user_data"]:
            return None
        found = metadata.read(droplet.tags)
        return found.tags.expires if found else None

    def mark(self, box: str, word: str) -> None:
        """There are no real disks."""

    def booted_from(self, box: str) -> str:
        """Look at the tags of the snapshot that the create call named."""
        image = self.server.account.images.get(self._one(box).body["image"])
        found = metadata.read_image(image["tags"]) if image else None
        return found.id if found else ""

    def belongings(self, box: str) -> set[str]:
        """Return droplets and firewalls."""
        account, word = self.server.account, metadata.tag("box", box)
        found = {str(n) for n, one in account.droplets.items() if word in one.tags}
        walls = account.firewalls.items()
        return found | {id for id, wall in walls if word in wall["tags"]}

    def walls(self, owner: str) -> set[str]:
        """Return the firewalls that bear the owner's name."""
        walls = self.server.account.firewalls.items()
        return {id for id, wall in walls if owner in wall["name"]}

    def packed(self) -> str:
        """Keep a snapshot without a tag."""
        number = self.server.account._image("packer-1", None, ["nyc3"], 25, [])
        return f"nyc3:{number}"

    def lose_next_answer(self) -> None:
        """Cut the connection once the droplet is made."""
        self.lost += 1
        self.server.fail("POST", "droplets", "cut after")

    def refuse(self, request: Request) -> Request:
        """Have the size sold out."""
        self.server.account.behavior.sold_out = (request.offer.type,)
        return request

    def accept(self) -> None:
        """Have the size again."""
        self.server.account.behavior.sold_out = ()

    def move(self) -> str:
        """Be somewhere else from now on."""
        self.here = "192.0.2.9"
        return self.here

    def open_to_all(self, box: str) -> None:
        """Let the world in, in each of the box's firewalls."""
        for id in self.belongings(box) & set(self.server.account.firewalls):
            for rule in self.server.account.firewalls[id]["inbound_rules"]:
                rule["sources"] = {"addresses": ["0.0.0.0/0", "::/0"]}

    def take_off_walls(self, box: str) -> None:
        """Remove the box's firewalls."""
        for id in self.belongings(box) & set(self.server.account.firewalls):
            del self.server.account.firewalls[id]

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace user data and tags."""
        droplet = self._one(box)
        new = json.loads(boot_data) if boot_data else {"user_data": ""}
        droplet.body["user_data"] = new["user_data"]
        droplet.tags = new.get("tags", droplet.tags)

    def boot_plain(self, box: str) -> None:
        """Have the droplet be made of a common image."""
        self._one(box).body["image"] = "ubuntu-24-04-x64"

    def leave_behind(self, owner: str, box: str) -> None:
        """Leave the box's firewall."""
        word = self.server.account.tag(metadata.tag("box", box))
        name = f"onebox.{owner}.{box}"
        rules: dict[str, Any] = {"inbound_rules": [], "outbound_rules": []}
        self.server.account.wall({"name": name, "tags": [word], **rules})

    def _one(self, box: str) -> Any:
        word = metadata.tag("box", box)
        droplets = self.server.account.droplets.values()
        (one,) = [one for one in droplets if word in one.tags]
        return one
