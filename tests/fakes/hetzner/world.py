"""The Hetzner project as the provider contract sees it."""

from __future__ import annotations

import json
import re
from typing import Any

from onebox.providers.hetzner.metadata import from_labels, to_labels
from onebox.providers.values import Request
from tests.fakes.hetzner.account import checked_rules
from tests.fakes.hetzner.server import Server
from tests.fakes.world import CloudWorld


class HetznerWorld(CloudWorld):
    """
    The project's resources, read from the fake.

    Attributes:
        delivered: The latest post-boot script of each box.
    """

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.delivered: dict[str, str] = {}

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Search the server's firewalls; a server without one is open."""
        return self.server.project.reachable(self._server(box), source)

    def boot_data(self, box: str) -> str:
        """Return the user data and the latest post-boot script, as a JSON list."""
        user_data = self._server(box).body["user_data"]
        return json.dumps([user_data, self.delivered.get(box, "")])

    def deadline_on(self, box: str) -> float | None:
        """Return the deadline in the latest script, else that in the user data."""
        for text in reversed(json.loads(self.boot_data(box))):
            found = re.search(r"deadline ?= ?(\d+)", text)
            if found:
                return float(found[1])
        return None

    def image_on_disk(self, box: str) -> str:
        """Return the id in the labels of the snapshot that the create call named."""
        image = self.server.project.resources.get(self._server(box).body["image"])
        return from_labels(image.labels).get("image", "") if image else ""

    def objects_of(self, box: str) -> set[str]:
        """Return server, address and firewall."""
        found = self.server.project.resources.values()
        return {str(o.id) for o in found if from_labels(o.labels).get("box") == box}

    def firewalls_of(self, owner: str) -> set[str]:
        """Return the firewalls with the owner's label."""
        firewalls = self.server.project.all("firewalls")
        return {str(f.id) for f in firewalls if from_labels(f.labels)["owner"] == owner}

    def build_with_packer(self) -> str:
        """Add a snapshot without a label."""
        return str(self.server.project.build_with_packer().id)

    def cut_after_next_create(self) -> None:
        """Cut the connection after the next POST of a server."""
        self.server.fail("POST", "servers", "cut after")

    def refuse_creates(self, request: Request) -> Request:
        """Sell the type out."""
        self.server.project.behavior.sold_out = (request.offer.type,)
        return request

    def accept_creates(self) -> None:
        """Offer the type again."""
        self.server.project.behavior.sold_out = ()

    def open_ssh_to_everyone(self, box: str) -> None:
        """Open each of the box's firewalls to all addresses."""
        for number in self._server(box).firewall_ids:
            rule = {"direction": "in", "protocol": "tcp", "port": "22"}
            world = [{**rule, "source_ips": ["0.0.0.0/0", "::/0"]}]
            firewall = self.server.project.resources[number]
            firewall.shown["rules"] = checked_rules(world)

    def detach_firewalls(self, box: str) -> None:
        """Detach the box's firewalls."""
        self._server(box).firewall_ids = []

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace the user data and the latest post-boot script."""
        user_data, delivered = json.loads(boot_data) if boot_data else ("", "")
        self._server(box).body["user_data"] = user_data
        self.delivered[box] = delivered

    def put_base_on_disk(self, box: str) -> None:
        """Replace the server's image by one of Hetzner's."""
        images = self.server.project.all("images")
        plain = next(image for image in images if image.shown["type"] == "system")
        self._server(box).body["image"] = plain.id

    def leave_partial_create(self, owner: str, box: str) -> None:
        """Leave the box's firewall."""
        labels = to_labels({"managed": "1", "owner": owner, "box": box})
        self.server.project.create_firewall({"name": box, "labels": labels})

    def _server(self, box: str) -> Any:
        servers = self.server.project.servers
        (server,) = [server for server in servers if server.body["name"] == box]
        return server
