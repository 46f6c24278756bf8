"""The state of a project: servers, snapshots, firewalls, ssh keys, addresses."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import itertools
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

LOCATIONS = ("fsn1", "nbg1", "hel1", "ash")
_KEY = re.compile(r"(?:[a-z0-9.-]{1,253}/)?([a-z0-9A-Z]([-_.a-z0-9A-Z]*[a-z0-9A-Z])?)")
_VALUE = re.compile(r"([a-z0-9A-Z]([-_.a-z0-9A-Z]*[a-z0-9A-Z])?)?")
_NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_PUBLIC = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]+={0,2}( .*)?")
USER_DATA = 32 << 10


class RefusedError(Exception):
    """An error response: its status, the API's code and its sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Behavior:
    """
    The delays (seconds), limits and faults of the cloud.

    If *ignores_shutdown* is true, a server does not react to a shutdown. *limit* is the
    account's limit of servers. *sold_out* are server types without capacity. *clock* is
    how far the cloud's clock is ahead. *required_label* is the key of a label without
    which nothing that a user labels can be created.
    """

    boot: float = 0.0
    action: float = 0.0
    ignores_shutdown: bool = False
    limit: int = 10
    sold_out: tuple[str, ...] = ()
    clock: float = 0.0
    required_label: str = ""


@dataclass
class Resource:
    """
    A resource of any kind, with a number and labels.

    *shown* are its other fields in the API. It is locked until *busy* (monotonic).
    """

    id: int
    kind: str
    labels: dict[str, str]
    created: float
    shown: Json
    busy: float = 0.0


@dataclass
class Action:
    """An action in progress; *then* is called when it ends."""

    id: int
    command: str
    resource: int
    end: float
    then: Callable[[], None] | None = None
    error: str = ""


@dataclass
class CloudServer(Resource):
    """A server; *body* is the body of its create call."""

    body: Json = field(default_factory=dict)
    status: str = "initializing"
    host: str = ""
    address: int = 0
    firewall_ids: list[int] = field(default_factory=list)


class Hardware:
    """Servers without machines; `real_machines` has real ones."""

    def address(self, server: CloudServer) -> str:
        """Return a server's public address."""
        return f"203.0.113.{server.id % 250 + 1}"

    def on(self, server: CloudServer) -> None:
        """Switch a server on."""

    def shut(self, server: CloudServer) -> bool:
        """Begin a shutdown; return whether the machine reports its end."""
        return False

    def off(self, server: CloudServer) -> None:
        """Cut a server's power."""

    def save(self, server: CloudServer, image: int) -> None:
        """Copy a server's disk to an image."""

    def remove(self, server: CloudServer) -> None:
        """Delete a server and its disk."""


def _type(
    name: str, cores: int, memory: int, disk: int, euros: float, *at: str
) -> Json:
    return {
        "name": name,
        "description": name.upper(),
        "cores": cores,
        "memory": float(memory),
        "disk": disk,
        "cpu_type": "dedicated" if name.startswith("ccx") else "shared",
        "architecture": "arm" if name.startswith("cax") else "x86",
        "storage_type": "local",
        "category": "General Purpose",
        "deprecation": None,
        "locations": [
            {
                "id": LOCATIONS.index(place) + 1,
                "name": place,
                "deprecation": None,
                "available": True,
                "recommended": True,
            }
            for place in at
        ],
        "prices": [
            {
                "location": place,
                "price_hourly": _price(euros),
                "price_monthly": _price(euros * 600),
                "included_traffic": 20 << 40,
                "price_per_tb_traffic": _price(1.0),
            }
            for place in at
        ],
    }


def _price(net: float) -> Json:
    return {"net": f"{net:.10f}", "gross": f"{net * 1.19:.10f}"}


def _types() -> list[Json]:
    everywhere = ("fsn1", "nbg1", "hel1")
    return [
        _type("cx22", 2, 4, 40, 0.006, *everywhere),
        _type("cax41", 16, 32, 320, 0.04, *everywhere),
        _type("cpx51", 16, 32, 360, 0.09, *everywhere, "ash"),
        _type("ccx13", 2, 8, 80, 0.02, *everywhere),
        _type("ccx23", 4, 16, 160, 0.04, *everywhere),
        _type("ccx33", 8, 32, 240, 0.08, *everywhere),
        _type("ccx43", 16, 64, 360, 0.16, *everywhere),
        _type("ccx53", 32, 128, 600, 0.32, "fsn1", "hel1"),
        _type("ccx63", 48, 192, 960, 0.48, "fsn1", "ash"),
    ]


class Project:
    """
    The resources of one project.

    Attributes:
        all_servers: Every server that was ever created.

        mailed: The servers whose root password was mailed to the user.
    """

    def __init__(self, behavior: Behavior | None = None) -> None:
        self.behavior = behavior or Behavior()
        self.lock = threading.RLock()
        self.resources: dict[int, Resource] = {}
        self.actions: dict[int, Action] = {}
        self.all_servers: list[CloudServer] = []
        self.mailed: list[CloudServer] = []
        self.types = [{**one, "id": 20 + n} for n, one in enumerate(_types())]
        self.hardware = Hardware()
        self._numbers = itertools.count(1000)
        for name in ("ubuntu-24.04", "debian-12"):
            for arch in ("x86", "arm"):
                shown = _image(name, "system", 5, arch)
                self._add(Resource, "images", {}, {**shown, "status": "available"})

    def tick(self) -> None:
        """Finish the actions whose time is over."""
        for action in list(self.actions.values()):
            if action.then is not None and time.monotonic() >= action.end:
                then, action.then = action.then, None
                then()

    def all(self, kind: str) -> list[Resource]:
        """Return the resources of a kind."""
        return [one for one in self.resources.values() if one.kind == kind]

    @property
    def servers(self) -> list[CloudServer]:
        """Return the servers that exist."""
        return [one for one in self.resources.values() if isinstance(one, CloudServer)]

    def snapshots(self) -> list[Resource]:
        """Return the images of the user."""
        return [o for o in self.all("images") if o.shown["type"] == "snapshot"]

    def one(self, kind: str, number: str | int) -> Any:
        """Return the resource of a kind with a number, or refuse with 404."""
        found = self.resources.get(int(number)) if str(number).isdigit() else None
        if found is None or found.kind != kind:
            raise RefusedError(404, "not_found", f"{kind} with ID '{number}' not found")
        return found

    def show(self, one: Resource) -> Json:
        """Return a resource as the API shows it."""
        created = datetime.datetime.fromtimestamp(
            int(one.created + self.behavior.clock), datetime.timezone.utc
        )
        shown = {
            "id": one.id,
            "labels": dict(one.labels),
            "created": created.isoformat(),
            **one.shown,
        }
        if isinstance(one, CloudServer):
            shown.update(self._server(one))
        if one.kind == "firewalls":
            uses = [server for server in self.servers if one.id in server.firewall_ids]
            shown["applied_to"] = [
                {"type": "server", "server": {"id": server.id}} for server in uses
            ]
        return shown

    def show_action(self, number: str | int) -> Json:
        """Return the present state of an action."""
        action = self.actions.get(int(number))
        if action is None:
            raise RefusedError(404, "not_found", "action not found")
        done = time.monotonic() >= action.end
        status = ("error" if action.error else "success") if done else "running"
        error = {"code": "action_failed", "message": action.error}
        return {
            "id": action.id,
            "command": action.command,
            "status": status,
            "progress": 100 if done else 50,
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:00:01+00:00" if done else None,
            "resources": [{"id": action.resource, "type": "server"}],
            "error": error if status == "error" else None,
        }

    def create_server(self, body: Json) -> Json:
        """Create a server, and switch it on."""
        behavior = self.behavior
        kind = next((t for t in self.types if t["name"] == body["server_type"]), None)
        if kind is None:
            raise _wrong("invalid input in field 'server_type'")
        if body.get("location") not in LOCATIONS:
            raise _wrong("invalid input in field 'location'")
        image = self.resources.get(body["image"])
        if image is None or image.kind != "images":
            raise _wrong("invalid input in field 'image'")
        if image.shown["status"] != "available":
            raise RefusedError(409, "conflict", "image is not available yet")
        if image.shown["architecture"] != kind["architecture"]:
            raise _wrong("image and server type must have the same architecture")
        if image.shown["disk_size"] > kind["disk"]:
            raise _wrong("image disk is bigger than server type disk")
        if not _NAME.fullmatch(body["name"]):
            raise _wrong("invalid input in field 'name'")
        self.unique("servers", body["name"])
        if len(body.get("user_data", "").encode()) > USER_DATA:
            raise _wrong("invalid input in field 'user_data'")
        if len(self.servers) >= behavior.limit:
            raise RefusedError(403, "resource_limit_exceeded", "server limit exceeded")
        here = {at["name"] for at in kind["locations"] if at["available"]}
        if body["location"] not in here or kind["name"] in behavior.sold_out:
            raise RefusedError(412, "resource_unavailable", "error during placement")
        for number in body.get("ssh_keys", ()):
            self.one("ssh_keys", number)
        firewall_ids = [
            self.one("firewalls", one["firewall"]).id for one in body["firewalls"]
        ]
        server = self._add(
            CloudServer, "servers", body.get("labels", {}), {"type": kind}
        )
        server.body, server.firewall_ids = body, firewall_ids
        server.host = self.hardware.address(server)
        address = {
            "name": f"primary_ip-{server.id}",
            "ip": server.host,
            "type": "ipv4",
            "assignee_id": server.id,
            "assignee_type": "server",
            "auto_delete": True,
            "blocked": False,
            "dns_ptr": [],
            "location": _location(body["location"]),
        }
        server.address = self._add(Resource, "primary_ips", {}, address).id
        self.all_servers.append(server)
        if not body.get("ssh_keys"):
            self.mailed.append(server)

        def on() -> None:
            server.status = "running"
            self.hardware.on(server)

        created = self.act(server, "create_server", behavior.boot, None)
        started = self.act(server, "start_server", behavior.boot, on)
        return {
            "server": self.show(server),
            "action": created,
            "next_actions": [started],
            "root_password": None if body.get("ssh_keys") else "YItygq1v3GYjjMomLaKc",
        }

    def free(self, server: CloudServer) -> None:
        """Refuse the call if the server is locked."""
        if time.monotonic() < server.busy or server.status == "initializing":
            raise RefusedError(423, "locked", "server is locked")

    def switch(self, server: CloudServer, command: str) -> Json:
        """Switch a server on or off."""
        self.free(server)

        def switched() -> None:
            if server.id not in self.resources:
                return
            if command == "poweron":
                if server.status != "running":
                    server.status = "running"
                    self.hardware.on(server)
            elif command == "poweroff":
                server.status = "off"
                self.hardware.off(server)
            elif not self.behavior.ignores_shutdown and not self.hardware.shut(server):
                server.status = "off"

        names = {"poweron": "start_server", "poweroff": "stop_server"}
        name = names.get(command, "shutdown_server")
        return {"action": self.act(server, name, self.behavior.action, switched)}

    def snapshot(self, server: CloudServer, body: Json) -> Json:
        """Begin a snapshot of a server."""
        self.free(server)
        kind = server.shown["type"]
        shown = _image(None, "snapshot", kind["disk"], kind["architecture"])
        shown["description"] = body.get("description") or "snapshot"
        shown["created_from"] = {"id": server.id, "name": server.body["name"]}
        image = self._add(Resource, "images", body.get("labels", {}), shown)

        def saved() -> None:
            image.shown["status"], image.shown["image_size"] = "available", 2.3
            self.hardware.save(server, image.id)

        action = self.act(server, "create_image", self.behavior.action, saved)
        return {"action": action, "image": self.show(image)}

    def delete_server(self, server: CloudServer) -> Json:
        """Delete a server, and its address unless the user keeps it."""
        self.free(server)
        server.status = "deleting"

        def gone() -> None:
            self.hardware.remove(server)
            del self.resources[server.id]
            address = self.resources[server.address]
            address.shown["assignee_id"] = None
            if address.shown["auto_delete"]:
                del self.resources[server.address]

        return {"action": self.act(server, "delete_server", self.behavior.action, gone)}

    def reachable(self, server: CloudServer, source: str) -> bool:
        """Return whether an address reaches a server's ssh port."""
        address = ipaddress.ip_address(source)
        rules = [
            rule
            for number in server.firewall_ids
            if number in self.resources
            for rule in self.resources[number].shown["rules"]
        ]
        return not server.firewall_ids or any(
            rule["port"] == "22" and address in ipaddress.ip_network(network)
            for rule in rules
            for network in rule["source_ips"]
        )

    def _server(self, server: CloudServer) -> Json:
        address = self.resources.get(server.address)
        ipv4 = {
            "id": server.address,
            "ip": server.host,
            "blocked": False,
            "dns_ptr": "",
        }
        shown_image = self.resources.get(server.body["image"])
        return {
            "name": server.body["name"],
            "status": server.status,
            "locked": time.monotonic() < server.busy,
            "server_type": server.shown["type"],
            "location": _location(server.body["location"]),
            "image": self.show(shown_image) if shown_image else None,
            "public_net": {
                "ipv4": ipv4 if address else None,
                "ipv6": None,
                "floating_ips": [],
                "firewalls": [
                    {"id": w, "status": "applied"} for w in server.firewall_ids
                ],
            },
            "private_net": [],
            "volumes": [],
            "primary_disk_size": server.shown["type"]["disk"],
        }

    def create_firewall(self, body: Json) -> Json:
        """Create a firewall that is not applied to anything."""
        self.unique("firewalls", body["name"])
        shown = {"name": body["name"], "rules": checked_rules(body.get("rules", []))}
        firewall = self._add(Resource, "firewalls", body.get("labels", {}), shown)
        return {"firewall": self.show(firewall), "actions": []}

    def set_rules(self, firewall: Resource, body: Json) -> Json:
        """Replace the rules of a firewall."""
        firewall.shown["rules"] = checked_rules(body["rules"])
        return {"actions": [self.act(firewall, "set_firewall_rules", 0, None)]}

    def create_key(self, body: Json) -> Json:
        """Register an ssh key; its name and its fingerprint must be new."""
        self.unique("ssh_keys", body["name"])
        if not _PUBLIC.fullmatch(body["public_key"]):
            raise _wrong("invalid input in field 'public_key'")
        blob = base64.b64decode(body["public_key"].split()[1])
        digits = hashlib.md5(blob, usedforsecurity=False).hexdigest()
        known = ":".join(re.findall("..", digits))
        if any(one.shown["fingerprint"] == known for one in self.all("ssh_keys")):
            raise _exists("SSH key with the same fingerprint already exists")
        shown = {k: body[k] for k in ("name", "public_key")}
        shown["fingerprint"] = known
        key = self._add(Resource, "ssh_keys", body.get("labels", {}), shown)
        return {"ssh_key": self.show(key)}

    def create_volume(self, name: str, labels: dict[str, str]) -> Resource:
        """Create a volume, which onebox never does."""
        shown = {"name": name, "size": 10, "status": "available", "server": None}
        volume: Resource = self._add(Resource, "volumes", labels, shown)
        return volume

    def delete(self, one: Resource) -> None:
        """Delete a resource that is not in use."""
        if any(one.id in server.firewall_ids for server in self.servers):
            message = f"firewall with ID {one.id} is still in use"
            raise RefusedError(422, "resource_in_use", message)
        if one.shown.get("assignee_id"):
            raise RefusedError(409, "resource_in_use", "primary IP is assigned")
        if one.shown.get("type") == "system":
            raise RefusedError(403, "forbidden", "this is not your image")
        del self.resources[one.id]

    def update(self, one: Resource, body: Json) -> Json:
        """Replace the labels of a resource."""
        one.labels = check_labels(body.get("labels", one.labels))
        return self.show(one)

    def build_with_packer(self) -> Resource:
        """Add a snapshot without labels, as Packer does; return it."""
        shown = {**_image(None, "snapshot", 20, "x86"), "image_size": 1.5}
        image: Resource = self._add(
            Resource, "images", {}, {**shown, "status": "available"}
        )
        return image

    def pricing(self) -> Json:
        """Return the price list."""
        hourly = [{"location": at, "price_hourly": _price(0.0008)} for at in LOCATIONS]
        return {
            "currency": "EUR",
            "vat_rate": "19.00",
            "image": {"price_per_gb_month": _price(0.011)},
            "volume": {"price_per_gb_month": _price(0.044)},
            "primary_ips": [{"type": "ipv4", "prices": hourly}],
        }

    def unique(self, kind: str, name: str) -> None:
        """Refuse a name that another resource has."""
        for one in self.all(kind):
            if self.show(one)["name"] == name:
                raise _exists(f"{kind} name is already used")

    def act(self, one: Resource, command: str, seconds: float, then: Any) -> Json:
        """Begin an action."""
        number = next(self._numbers)
        end = time.monotonic() + seconds
        one.busy = max(one.busy, end)
        self.actions[number] = Action(number, command, one.id, end, then)
        shown = self.show_action(number)
        # The response to the call shows even a finished action as running.
        return {**shown, "status": "running", "progress": 0, "finished": None}

    def _add(
        self, resource_class: type[Any], kind: str, labels: Any, shown: Json
    ) -> Any:
        required = self.behavior.required_label
        if required and kind != "primary_ips" and required not in labels:
            raise _wrong(f"no label {required} on {kind}")
        number = next(self._numbers)
        added = resource_class(
            number, kind, dict(check_labels(labels)), time.time(), shown
        )
        self.resources[number] = added
        return added


def check_labels(labels: Any) -> dict[str, str]:
    """Refuse labels that break the rules of Kubernetes' labels."""
    if not isinstance(labels, dict):
        raise _wrong("invalid input in field 'labels'")
    for key, value in labels.items():
        name = _KEY.fullmatch(key)
        good = isinstance(value, str) and len(value) <= 63 and _VALUE.fullmatch(value)
        if not name or len(name[1]) > 63 or not good:
            raise _wrong(f"invalid input in field 'labels': {key}={value}")
    return labels


def matches(labels: dict[str, str], selector: str) -> bool:
    """Return whether labels match a selector such as "a=b,c=d"."""
    for part in selector.split(","):
        key, equals, value = part.partition("=")
        if not equals or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise _wrong("invalid input in field 'label_selector'")
        if labels.get(key) != value:
            return False
    return True


def checked_rules(rules: list[Json]) -> list[Json]:
    for rule in rules:
        networks = rule.get("source_ips")
        if rule.get("direction") != "in" or not networks or "port" not in rule:
            raise _wrong("invalid input in field 'rules'")
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise _wrong(f"invalid input in field 'rules': {network}") from error
    return [{"description": None, "destination_ips": [], **rule} for rule in rules]


def _image(name: str | None, kind: str, disk: int, arch: str) -> Json:
    return {
        "name": name,
        "description": name,
        "type": kind,
        "status": "creating",
        "architecture": arch,
        "disk_size": disk,
        "image_size": None,
        "os_flavor": "ubuntu",
        "os_version": "24.04",
        "created_from": None,
        "bound_to": None,
        "rapid_deploy": False,
        "protection": {"delete": False},
        "deprecated": None,
    }


def _location(name: str) -> Json:
    return {"id": LOCATIONS.index(name) + 1, "name": name, "country": "DE"}


def _wrong(message: str) -> RefusedError:
    return RefusedError(422, "invalid_input", message)


def _exists(message: str) -> RefusedError:
    return RefusedError(409, "uniqueness_error", message)
