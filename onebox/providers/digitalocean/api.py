"""Make the calls for droplets, firewalls, ssh keys and volumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from onebox.errors import Gone, NotAllowed, Unclear
from onebox.providers.digitalocean import (
    create_body,
    images,
    metadata,
    network,
    prices,
    tag_api,
)
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.errors import UnknownKey
from onebox.providers.digitalocean.instances import Droplets, read_server
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.kernel.clock import CLOSE_SECONDS
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.metadata import BoxMetadata, without_comment
from onebox.providers.kernel.servers.api import (
    FIREWALL,
    SSH_KEY,
    PairKey,
    Resource,
    Server,
    ServerAPI,
    Switch,
)
from onebox.providers.kernel.ssh_access import md5_fingerprint
from onebox.providers.values import Box, Request, Tags

_PATHS = {
    "droplet": "droplets",
    FIREWALL: "firewalls",
    "snapshot": "images",
    SSH_KEY: "account/keys",
    "volume": "volumes",
}
_ACTIONS: dict[Switch, str] = {
    "on": "power_on",
    "shutdown": "shutdown",
    "off": "power_off",
}
_KEY = "onebox-"


class DropletAPI(ServerAPI):
    """
    The calls for boxes that are droplets.

    One ssh key is registered for each owner, with the owner in its name. It only
    prevents the mail with a root password, because a box gets its key from its user
    data. If the user has registered the same key under another name, that registration
    is used and stays.
    """

    title = "DigitalOcean"
    number_path = "metadata/v1/id"
    largest_user_data = 64 << 10
    belonging_kinds = (FIREWALL, "volume", "snapshot")
    deleted_first = ("snapshot",)

    def __init__(self, cloud: Cloud, settings: DigitalOceanSettings) -> None:
        self._cloud, self._settings = cloud, settings
        self._droplets = Droplets(cloud)
        self.token, self.servers_address = cloud.secret, f"{cloud.address}droplets/"
        self.timeouts, self.clock = cloud.timeouts, cloud.clock
        self.poller = cloud.poller

    def servers(self, key: PairKey, value: str) -> list[Server]:
        """Return the droplets of a box or an owner, oldest first."""
        list_droplets = {"box": self._droplets.of_box, "owner": self._droplets.of_owner}
        return [self._server(droplet) for droplet in list_droplets[key](value)]

    def server(self, server: Server) -> Server | None:
        """
        Return a droplet in its present state, None if it does not exist any more.

        Unlike the lists, this answer of the API never lags behind.
        """
        found = self._droplets.by_number(int(server.id))
        return None if found is None else self._server(found)

    def create_server(
        self, request: Request, image: Any, ssh_key: Any, user_data: str
    ) -> Server:
        """Create a droplet; if the ssh key is missing, register it and try again."""
        body = create_body.body(request, self._settings, image, ssh_key, user_data)
        try:
            answer = self._cloud.post("droplets", body)
        except UnknownKey:
            # Another command of the owner has deleted the ssh key together with the
            # last box.
            self.ensure_ssh_key(request.tags.owner, request.user_key)
            answer = self._cloud.post("droplets", body)
        if "droplet" not in answer:
            raise Unclear(f"the response to the creation of {request.box} is empty")
        self._droplets.remember(request.box, answer["droplet"])
        return self._server(answer["droplet"])

    def set_metadata(self, server: Server, stored: BoxMetadata) -> None:
        """Replace the tags for the deadline and the host key, if they have changed."""
        pairs = stored.to_pairs()
        for key in ("expires", "hostkey"):
            if key in pairs:
                self._retag(server, key, pairs[key])

    def switch(self, server: Server, how: Switch) -> None:
        """Begin to power a droplet on, shut it down, or cut its power."""
        path = f"droplets/{server.id}/actions"
        self._cloud.post(path, {"type": _ACTIONS[how]})

    def resources(self, kind: str, key: PairKey, value: str) -> list[Resource]:
        """
        Return the resources of a kind whose tags or name say that *key* is *value*.
        """
        return [one for one in self._all(kind) if one.pairs.get(key) == value]

    def resource(self, kind: str, id: str) -> Resource | None:
        """Return a firewall or an ssh key by its id, None if it is gone."""
        try:
            answer = self._cloud.get(f"{_PATHS[kind]}/{id}")
        except Gone:
            return None
        if kind == FIREWALL:
            return network.read_firewall(answer["firewall"])
        return _read_key(answer["ssh_key"])

    def delete(self, resource: Resource) -> None:
        """
        Delete a resource.

        If it is a firewall, the tag of its box is deleted too, unless another object
        has that tag.
        """
        self._cloud.delete(f"{_PATHS[resource.kind]}/{resource.id}")
        if resource.kind == FIREWALL and "box" in resource.pairs:
            tag = metadata.tag("box", resource.pairs["box"])
            tag_api.delete_unused(self._cloud, [tag])

    def create_firewall(self, tags: Tags, box: str, networks: Sequence[str]) -> None:
        """Create the firewall of a box, and the tag by which it applies to the box."""
        tag_api.ensure(self._cloud, metadata.tag("box", box))
        self._cloud.post("firewalls", network.rules(tags.owner, box, networks))

    def networks(self, firewall: Resource) -> Sequence[str]:
        """
        Return the networks to which a firewall opens ssh.

        Return () if the firewall opens anything other than ssh.
        """
        return network.open_networks(firewall.raw)

    def set_networks(self, firewall: Resource, networks: Sequence[str]) -> None:
        """Replace the rules of a firewall."""
        owner, box = firewall.pairs["owner"], firewall.pairs["box"]
        body = network.rules(owner, box, networks)
        self._cloud.put(f"firewalls/{firewall.id}", body)

    def ensure_ssh_key(self, owner: str, public: str) -> str:
        """Register an ssh key unless it is registered; return its fingerprint."""
        fingerprint = md5_fingerprint(public)
        try:
            self._cloud.get(f"account/keys/{fingerprint}")
        except Gone:
            # If the API reports that the key exists, it has just been registered by
            # another command, or by an earlier call whose response was lost.
            with suppress(Exists):
                key = without_comment(public)
                body = {"name": f"{_KEY}{owner}", "public_key": key}
                self._cloud.post("account/keys", body)
        return fingerprint

    def servers_to_delete(self, box: Box) -> list[Server]:
        """
        Return the droplets of a box.

        If the box is new and the lists show no droplet of it, wait for as long as they
        may lag behind.
        """
        found = self.servers("box", box.id)
        # The extra seconds allow for times in whole seconds, and for small errors of
        # the clock.
        limit = self.timeouts.consistency_lag + CLOSE_SECONDS + 1
        is_new = self.clock() - box.created < limit
        if found or not is_new or self._droplets.has_seen(box.id):
            return found
        shown = self.poller.until(
            lambda: self.servers("box", box.id), self.timeouts.consistency_lag
        )
        return shown or []

    def before_delete(self, server: Server) -> None:
        """
        Wait until no snapshot of the droplet is being created.

        A command that was killed may have begun one. If it completed after the
        deletion, it would stay and be billed.
        """

        def is_idle() -> bool:
            actions = self._cloud.all(f"droplets/{server.id}/actions", "actions")
            saving = [one for one in actions if one.get("type") == "snapshot"]
            return all(one.get("status") != "in-progress" for one in saving)

        with suppress(Gone):
            self.poller.until(is_idle, self.timeouts.deletion)

    def after_delete(self, servers: Sequence[Server]) -> None:
        """Delete the tags that only the deleted droplets of a box had."""
        keys = ("box", "expires", "bootstrap-key", "hostkey", "image")
        prefixes = tuple(f"{metadata.PREFIX}{key}:" for key in keys)
        words = {str(word).lower() for server in servers for word in server.raw["tags"]}
        own = sorted(word for word in words if word.startswith(prefixes))
        tag_api.delete_unused(self._cloud, own)

    def _server(self, droplet: Answer) -> Server:
        return read_server(droplet, private=self._settings.private)

    def _retag(self, server: Server, key: str, value: str) -> None:
        """
        Replace the droplet's tag for this key.

        The new tag is added before the old one is removed, so that the droplet always
        has one.
        """
        new = metadata.tag(key, value)
        present = [str(word).lower() for word in server.raw.get("tags") or []]
        prefix = f"{metadata.PREFIX}{key}:"
        old = [word for word in present if word.startswith(prefix) and word != new]
        if new not in present:
            tag_api.add(self._cloud, new, "droplet", server.id)
        for word in old:
            tag_api.remove(self._cloud, word, "droplet", server.id)
        tag_api.delete_unused(self._cloud, old)

    def _all(self, kind: str) -> Iterable[Resource]:
        """
        Return all resources of a kind; a resource that is not onebox's has no pairs.
        """
        if kind == FIREWALL:
            return map(network.read_firewall, self._cloud.all("firewalls", "firewalls"))
        if kind == SSH_KEY:
            return map(_read_key, self._cloud.all("account/keys", "ssh_keys"))
        if kind == "snapshot":
            return images.half_made(self._cloud)
        try:
            return map(_read_volume, self._cloud.all("volumes", "volumes"))
        except NotAllowed:
            # The token lacks the scope to list volumes. onebox itself creates no
            # volumes, so none are missed.
            return []


def _read_volume(found: Answer) -> Resource:
    pairs = metadata.pairs_of(found.get("tags") or [])
    return Resource("volume", str(found["id"]), pairs, prices.volume(found))


def _read_key(found: Answer) -> Resource:
    name = str(found.get("name"))
    pairs = {"owner": name[len(_KEY) :]} if name.startswith(_KEY) else {}
    return Resource(SSH_KEY, str(found["id"]), pairs)
