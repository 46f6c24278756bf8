"""The state of a DigitalOcean account: droplets, firewalls, tags, keys and images."""

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

REGIONS = ("nyc3", "fra1", "sfo3", "ams2")


class RefusedError(Exception):
    """An error response: HTTP status, the API's error id, and its message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def _size(
    slug: str, cpus: int, gigabytes: int, disk: int, price: float, *regions: str
) -> Json:
    return {
        "slug": slug,
        "vcpus": cpus,
        "memory": gigabytes * 1024,
        "disk": disk,
        "price_hourly": price,
        "price_monthly": round(price * 672, 2),
        "regions": list(regions),
        "available": True,
        "transfer": 4.0,
        "description": "General Purpose",
    }


def _sizes() -> list[Json]:
    everywhere = ("nyc3", "fra1", "sfo3")
    sizes = [
        _size("s-1vcpu-1gb", 1, 1, 25, 0.00893, *everywhere),
        _size("s-8vcpu-16gb", 8, 16, 320, 0.14286, *everywhere),
        _size("c-4", 4, 8, 50, 0.125, *everywhere),
        _size("g-2vcpu-8gb", 2, 8, 25, 0.09375, *everywhere),
        _size("g-4vcpu-16gb", 4, 16, 50, 0.1875, *everywhere),
        _size("gd-4vcpu-16gb", 4, 16, 150, 0.20238, "nyc3"),
        _size("g-8vcpu-32gb", 8, 32, 100, 0.375, *everywhere),
        _size("g-16vcpu-64gb", 16, 64, 200, 0.75, "fra1"),
        _size("m-32vcpu-256gb", 32, 256, 800, 2.0, *everywhere),
        _size("g-40vcpu-160gb", 40, 160, 500, 1.875, "nyc3"),
        _size("gpu-h100x1-80gb", 20, 240, 720, 3.39, "nyc3"),
        _size("c-60", 60, 120, 800, 1.97, "sfo3"),
    ]
    sizes[-1]["available"] = False
    sizes[-2]["gpu_info"] = {"count": 1, "model": "nvidia_h100"}
    return sizes


@dataclass
class Behavior:
    """
    The delays, limits and special cases of the cloud; times in seconds.

    Attributes:
        lag: The time for which a list omits a new droplet and shows a deleted one.

        address_after: The time until a droplet has an address.

        action: The duration of an action.

        ignores_shutdown: Whether droplets ignore a shutdown action.

        reserved: The names that no droplet may have.

        restricted: The sizes for which the account needs a permission.

        clock: The difference of DigitalOcean's clock from this machine's.

        required_tag: The tag without which no droplet can be created.
    """

    lag: float = 0.0
    boot: float = 0.0
    address_after: float = 0.0
    action: float = 0.0
    ignores_shutdown: bool = False
    droplet_limit: int = 25
    reserved: tuple[str, ...] = ("localhost",)
    restricted: tuple[str, ...] = ()
    sold_out: tuple[str, ...] = ()
    status: str = "active"
    clock: float = 0.0
    required_tag: str = ""


@dataclass
class Droplet:
    """One droplet, with the times at which it changes."""

    id: int
    body: Json
    tags: list[str]
    created_at: float
    active: float
    status: str = "new"
    busy: float = 0.0
    deleted_at: float | None = None
    protected: bool = False
    host: str = ""
    actions: list[int] = field(default_factory=list)


@dataclass
class Action:
    """An action that takes time; *then* is called when it ends."""

    id: int
    type: str
    resource: int
    end: float
    then: Callable[[], None] | None = None
    errored: bool = False


class Hardware:
    """No machines behind the droplets; `real_machines` has real ones."""

    def address(self, droplet: Droplet) -> str:
        """Return a droplet's public address."""
        return f"203.0.113.{droplet.id % 250 + 1}"

    def on(self, droplet: Droplet) -> None:
        """Boot a droplet's machine."""

    def shut(self, droplet: Droplet) -> bool:
        """Start a shutdown; return whether the machine itself reports its end."""
        return False

    def off(self, droplet: Droplet) -> None:
        """Cut the power of a droplet's machine."""

    def save(self, droplet: Droplet, image: int) -> None:
        """Copy a droplet's disk to an image."""

    def remove(self, droplet: Droplet) -> None:
        """Delete a droplet's machine and disk."""


class Account:
    """
    An account.

    Attributes:
        all_droplets: All droplets, also deleted ones.

        mailed: The droplets whose root password was mailed.

        keys: The account's ssh keys, by their numbers.
    """

    def __init__(self, behavior: Behavior | None = None) -> None:
        self.behavior = behavior or Behavior()
        self.lock = threading.RLock()
        self.droplets: dict[int, Droplet] = {}
        self.all_droplets: list[Droplet] = []
        self.mailed: list[Droplet] = []
        self.keys: dict[int, Json] = {}
        self.firewalls: dict[str, Json] = {}
        self.tags: dict[str, str] = {}
        self.images: dict[int, Json] = {}
        self.volumes: dict[str, Json] = {}
        self.actions: dict[int, Action] = {}
        self.sizes = _sizes()
        self.hardware = Hardware()
        self._numbers = itertools.count(1000)
        for slug in ("ubuntu-24-04-x64", "ubuntu-22-04-x64", "debian-12-x64"):
            self._image(slug, slug, list(REGIONS[:3]), 7, [], public=True)

    # -- time -------------------------------------------------------------------

    def tick(self) -> None:
        """Boot droplets and end actions that are due."""
        now = time.monotonic()
        for droplet in self.droplets.values():
            if droplet.status == "new" and now >= droplet.active:
                droplet.status = "active"
                self.hardware.on(droplet)
        for action in self.actions.values():
            if action.then is not None and now >= action.end:
                then, action.then = action.then, None
                then()

    # -- droplets ----------------------------------------------------------------

    def create(self, body: Json) -> Json:
        """Create a droplet, and the tags that do not exist yet."""
        behavior, size = self.behavior, self._size_of(body["size"])
        region = body.get("region", "nyc3")
        if behavior.required_tag and behavior.required_tag not in body["tags"]:
            raise _unprocessable(f"no tag {behavior.required_tag}")
        if body["name"] in behavior.reserved:
            raise _unprocessable(f"Name {body['name']} is reserved.")
        if region not in REGIONS or region == "ams2":
            raise _unprocessable("Region is not available.")
        if size["slug"] in behavior.restricted:
            raise _unprocessable(
                "This size is currently restricted, please open a ticket to unlock."
            )
        sold_out = not size["available"] or size["slug"] in behavior.sold_out
        if sold_out or region not in size["regions"]:
            raise _unprocessable("Size is not available in this region.")
        image = self._image_of(body["image"])
        if region not in image["regions"]:
            raise _unprocessable(
                "The image you specified is not available in the selected region, you "
                "can transfer it to this region from the images pages."
            )
        if image["min_disk_size"] > size["disk"]:
            raise _unprocessable(
                "Cannot create a droplet with a smaller disk than the image."
            )
        if len(self.droplets) >= behavior.droplet_limit:
            raise _unprocessable(
                "creating this/these droplet(s) will exceed your droplet limit"
            )
        known = {key[by] for key in self.keys.values() for by in ("id", "fingerprint")}
        for key in body.get("ssh_keys") or []:
            if key not in known:
                raise _unprocessable(
                    f"{key} are invalid key identifiers for Droplet creation."
                )
        now = time.monotonic()
        droplet = Droplet(
            id=next(self._numbers),
            body=body,
            tags=[self.tag(word) for word in body.get("tags") or []],
            created_at=now,
            active=now + behavior.boot,
            busy=now + behavior.boot,
        )
        droplet.host = self.hardware.address(droplet)
        droplet.protected = not self.reachable(droplet, "198.51.100.66")
        self.droplets[droplet.id] = droplet
        self.all_droplets.append(droplet)
        if not body.get("ssh_keys"):
            self.mailed.append(droplet)
        action = self._start_droplet_action(droplet, "create", behavior.boot, None)
        links = [{"id": action["id"], "rel": "create", "href": "https://x/"}]
        return {"droplet": self.show(droplet), "links": {"actions": links}}

    def listed(self, tag: str | None) -> list[Json]:
        """Return a list of droplets that lags by `behavior.lag`."""
        now, lag = time.monotonic(), self.behavior.lag
        return [
            self.show(droplet)
            for droplet in self.all_droplets
            if now >= droplet.created_at + lag
            and (droplet.deleted_at is None or now < droplet.deleted_at + lag)
            if tag is None or tag.lower() in {word.lower() for word in droplet.tags}
        ]

    def droplet(self, number: int) -> Droplet:
        """Return a droplet; raise RefusedError if it does not exist."""
        if number not in self.droplets:
            raise RefusedError(404, "not_found", "The resource you requested could not")
        return self.droplets[number]

    def destroy(self, number: int) -> None:
        """Delete a droplet; its snapshots and firewalls stay."""
        droplet = self.droplet(number)
        if droplet.status == "new":
            raise _unprocessable("Droplet already has a pending event.")
        self.hardware.remove(droplet)
        droplet.deleted_at = time.monotonic()
        del self.droplets[number]

    def start_action(self, number: int, body: Json) -> Json:
        """Start an action of a droplet: a snapshot, a shutdown, a power change."""
        droplet, kind = self.droplet(number), body["type"]
        now = time.monotonic()
        if now < droplet.busy or droplet.status == "new":
            raise _unprocessable("Droplet already has a pending event.")
        seconds = self.behavior.action
        droplet.busy = now + seconds
        if kind == "snapshot":
            name, region = body["name"], droplet.body["region"]
            disk = self._size_of(droplet.body["size"])["disk"]

            def saved() -> None:
                self.hardware.save(droplet, self._image(name, None, [region], disk, []))

            return {"action": self._start_droplet_action(droplet, kind, seconds, saved)}
        if kind == "shutdown" and self.behavior.ignores_shutdown:
            return {"action": self._start_droplet_action(droplet, kind, seconds, None)}
        if kind in ("shutdown", "power_off") and droplet.status == "off":
            raise _unprocessable("Droplet is already powered off.")
        status = "active" if kind == "power_on" else "off"

        def switched() -> None:
            if droplet.id not in self.droplets:
                return
            if kind == "power_on":
                self.hardware.on(droplet)
            elif kind == "power_off":
                self.hardware.off(droplet)
            elif self.hardware.shut(droplet):
                return
            droplet.status = status

        if kind == "reboot":
            raise _unprocessable("Droplets here do not reboot.")

        return {"action": self._start_droplet_action(droplet, kind, seconds, switched)}

    def show(self, droplet: Droplet) -> Json:
        """Return a droplet as the API shows it."""
        size, now = self._size_of(droplet.body["size"]), time.monotonic()
        networks = []
        if (
            droplet.status != "new"
            and now >= droplet.created_at + self.behavior.address_after
        ):
            networks.append({"ip_address": "10.10.0.5", "type": "private"})
            if droplet.body.get("public_networking", True):
                networks.append({"ip_address": droplet.host, "type": "public"})
        return {
            "id": droplet.id,
            "name": droplet.body["name"],
            "memory": size["memory"],
            "vcpus": size["vcpus"],
            "disk": size["disk"],
            "locked": now < droplet.busy,
            "status": droplet.status,
            "created_at": self._timestamp(droplet.created_at),
            "features": ["private_networking"],
            "backup_ids": [],
            "next_backup_window": None,
            "snapshot_ids": [],
            "image": {"id": 1},
            "volume_ids": [],
            "size": size,
            "size_slug": size["slug"],
            "networks": {"v4": networks, "v6": []},
            "region": {"slug": droplet.body["region"], "available": True},
            "tags": list(droplet.tags),
        }

    def reachable(self, droplet: Droplet, source: str) -> bool:
        """Return whether an address can reach ssh on a droplet."""
        own = {word.lower() for word in droplet.tags}
        attached = [
            firewall
            for firewall in self.firewalls.values()
            if own & {word.lower() for word in firewall.get("tags") or []}
            or droplet.id in (firewall.get("droplet_ids") or [])
        ]
        if not attached:
            return True
        return any(
            ipaddress.ip_address(source) in ipaddress.ip_network(network)
            for firewall in attached
            for rule in firewall["inbound_rules"]
            if rule["protocol"] == "tcp" and rule["ports"] in ("22", "all")
            for network in rule["sources"].get("addresses", [])
        )

    # -- firewalls, tags, images ---------------------------------------------------

    def put_firewall(self, body: Json, id: str | None = None) -> Json:
        """Create a firewall, or replace the one with this id."""
        for other in self.firewalls.values():
            if other["name"] == body["name"] and other["id"] != id:
                raise RefusedError(409, "conflict", "duplicate name")
        for word in body.get("tags") or []:
            if word.lower() not in self.tags:
                raise _unprocessable(f"tag {word} does not exist")
        if id is not None and id not in self.firewalls:
            raise RefusedError(404, "not_found", "firewall not found")
        id = id or f"fw-{next(self._numbers)}"
        made = self.firewalls.get(id, {}).get(
            "created_at", self._timestamp(time.monotonic())
        )
        # The API shows a range of all ports as "0".
        for rule in body["outbound_rules"]:
            if rule["ports"] in ("all", "1-65535"):
                rule["ports"] = "0"
        self.firewalls[id] = {
            **body,
            "id": id,
            "status": "succeeded",
            "created_at": made,
            "pending_changes": [],
        }
        return {"firewall": self.firewalls[id]}

    def add_key(self, body: Json) -> Json:
        """Add an ssh key to the account; each key only once."""
        blob = base64.b64decode(body["public_key"].split()[1])
        digits = hashlib.md5(blob, usedforsecurity=False).hexdigest()
        known = ":".join(re.findall("..", digits))
        if any(key["fingerprint"] == known for key in self.keys.values()):
            raise _unprocessable("SSH Key is already in use on your account")
        number = next(self._numbers)
        self.keys[number] = {**body, "id": number, "fingerprint": known}
        return {"ssh_key": self.keys[number]}

    def key(self, name: str) -> Json:
        """Return an ssh key by its number or its fingerprint."""
        for number, key in self.keys.items():
            if name in (str(number), key["fingerprint"]):
                return key
        raise RefusedError(404, "not_found", "The resource you requested could not")

    def delete_key(self, name: str) -> None:
        """Delete an ssh key of the account; droplets keep it."""
        del self.keys[self.key(name)["id"]]

    def tag(self, word: str) -> str:
        """Return a tag in its first spelling; create it if it does not exist."""
        return self.tags.setdefault(word.lower(), word)

    def count_tagged(self, word: str) -> int:
        """Return the number of droplets and images with a tag."""
        words = [droplet.tags for droplet in self.droplets.values()]
        words += [image["tags"] for image in self.images.values()]
        return sum(word.lower() in {w.lower() for w in some} for some in words)

    def set_tag(self, word: str, resources: list[Json], on: bool) -> None:
        """Add a tag to resources, or remove it from them."""
        if word.lower() not in self.tags:
            raise RefusedError(404, "not_found", "tag not found")
        for resource in resources:
            number = int(resource["resource_id"])
            kind = resource["resource_type"]
            if kind == "droplet":
                carried = self.droplet(number).tags
            elif kind == "image" and number in self.images:
                carried = self.images[number]["tags"]
            else:
                raise RefusedError(404, "not_found", f"{kind} not found")
            present = [w for w in carried if w.lower() == word.lower()]
            if on and not present:
                carried.append(self.tags[word.lower()])
            for tag in present if not on else []:
                carried.remove(tag)

    def delete_tag(self, word: str) -> None:
        """Delete a tag, and remove it from all resources."""
        if self.tags.pop(word.lower(), None) is None:
            raise RefusedError(404, "not_found", "tag not found")
        for droplet in [*self.droplets.values()]:
            droplet.tags = [w for w in droplet.tags if w.lower() != word.lower()]
        for image in self.images.values():
            image["tags"] = [w for w in image["tags"] if w.lower() != word.lower()]

    def transfer(self, number: int, region: str) -> Json:
        """Start to copy an image to a region."""
        image = self._image_of(number)
        if region in image["regions"]:
            raise _unprocessable("Image is already available in that region.")

        def moved() -> None:
            image["regions"].append(region)

        return {
            "action": self._start_action(
                "transfer", number, self.behavior.action, moved
            )
        }

    def action(self, number: int) -> Json:
        """Return an action as the API shows it now."""
        if number not in self.actions:
            raise RefusedError(404, "not_found", "action not found")
        action = self.actions[number]
        done = time.monotonic() >= action.end
        status = "errored" if action.errored else "completed"
        return {
            "id": action.id,
            "type": action.type,
            "status": status if done else "in-progress",
            "resource_id": action.resource,
            "resource_type": "droplet",
        }

    def snapshots(self) -> list[Json]:
        """Return the account's own images."""
        return [image for image in self.images.values() if not image["public"]]

    def _start_droplet_action(
        self, droplet: Droplet, kind: str, seconds: float, then: Any
    ) -> Json:
        shown = self._start_action(kind, droplet.id, seconds, then)
        droplet.actions.append(int(shown["id"]))
        return shown

    def _start_action(
        self, kind: str, resource: int, seconds: float, then: Any
    ) -> Json:
        number = next(self._numbers)
        self.actions[number] = Action(
            number, kind, resource, time.monotonic() + seconds, then
        )
        return self.action(number)

    def _image(
        self,
        name: str,
        slug: str | None,
        regions: list[str],
        disk: int,
        tags: list[str],
        public: bool = False,
    ) -> int:
        number = next(self._numbers)
        self.images[number] = {
            "id": number,
            "name": name,
            "slug": slug,
            "type": "base" if public else "snapshot",
            "public": public,
            "regions": regions,
            "created_at": self._timestamp(time.monotonic()),
            "min_disk_size": disk,
            "size_gigabytes": 2.36,
            "status": "available",
            "tags": tags,
            "distribution": "Ubuntu",
        }
        return number

    def _timestamp(self, moment: float) -> str:
        epoch = time.time() - time.monotonic() + moment + self.behavior.clock
        whole = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
        return whole.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _size_of(self, slug: str) -> Json:
        for size in self.sizes:
            if size["slug"] == slug:
                return size
        raise _unprocessable("You specified an invalid size for Droplet creation.")

    def _image_of(self, name: str | int) -> Json:
        for image in self.images.values():
            if name in (image["slug"], image["id"]):
                return image
        raise _unprocessable("You specified an invalid image for Droplet creation.")


def _unprocessable(message: str) -> RefusedError:
    return RefusedError(422, "unprocessable_entity", message)
