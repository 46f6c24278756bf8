"""Make the calls for servers, firewalls, ssh keys, addresses and volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hcloud.firewalls import FirewallRule
from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer, ServerCreatePublicNetwork
from hcloud.ssh_keys import BoundSSHKey

from onebox.errors import Gone, ProviderError
from onebox.providers.hetzner.client import CLOUD, Cloud
from onebox.providers.hetzner.metadata import PREFIX, from_labels, selector, to_labels
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.metadata import BoxMetadata, identity
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
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.values import BoxState, Request, Tags

_STATES: dict[str, BoxState] = {
    "running": "running",
    "stopping": "stopping",
    "deleting": "stopping",
    "off": "stopped",
}


class HetznerAPI(ServerAPI):
    """
    The calls for boxes that are servers.

    The name of a server is the id of its box, and Hetzner refuses a second server of
    the same name. *tags* are the user's, which become labels of all new objects.
    """

    title = CLOUD
    number_path = "hetzner/v1/metadata/instance-id"
    largest_user_data = 32 << 10
    belonging_kinds = (FIREWALL, "primary IP", "volume")

    def __init__(
        self, token: str, endpoint: str, timeouts: Timeouts, tags: Mapping[str, str]
    ) -> None:
        self._tags = tags
        self.cloud = Cloud(token, endpoint, timeouts)
        self.token, self.servers_address = token, f"{endpoint}/servers/"
        self.timeouts, self.clock = timeouts, self.cloud.clock
        self.poller = timeouts.poller()
        self._clients: dict[str, Any] = {
            FIREWALL: self.cloud.firewalls,
            SSH_KEY: self.cloud.ssh_keys,
            "primary IP": self.cloud.primary_ips,
            "volume": self.cloud.volumes,
        }

    def servers(self, key: PairKey, value: str) -> list[Server]:
        """Return the servers whose labels say that *key* is *value*, oldest first."""
        found = self.cloud.servers.get_all(label_selector=selector(**{key: value}))
        return [_server(one) for one in sorted(found, key=lambda one: one.id or 0)]

    def server(self, server: Server) -> Server | None:
        """Return a server in its present state, None if it does not exist any more."""
        with suppress(Gone):
            return _server(self.cloud.servers.get_by_id(int(server.id)))
        return None

    def create_server(
        self, request: Request, image: Any, ssh_key: Any, user_data: str
    ) -> Server:
        """Create a server with an IPv4 address, behind the firewall of its box."""
        pairs = BoxMetadata.of_request(request).to_pairs()
        # The user's ssh key gets no label, because a restart finds it on the disk.
        pairs.pop("userkey", None)
        firewalls = self.resources(FIREWALL, "box", request.box)
        created = self.cloud.servers.create(
            request.box,
            ServerType(name=request.offer.type),
            image,
            ssh_keys=[ssh_key],
            firewalls=[one.raw for one in firewalls],
            user_data=user_data,
            labels=self.labels(pairs),
            location=Location(name=request.offer.place),
            public_net=ServerCreatePublicNetwork(enable_ipv6=False),
        )
        return _server(created.server)

    def set_metadata(self, server: Server, stored: BoxMetadata) -> None:
        """Replace onebox's labels on a server with those of *stored*."""
        present = (server.raw.labels or {}).items()
        others = {key: text for key, text in present if not key.startswith(PREFIX)}
        server.raw.update(labels={**others, **to_labels(stored.to_pairs())})

    def switch(self, server: Server, how: Switch) -> None:
        """Power a server on, shut it down or cut its power; wait for the action."""
        on_off = {"on": server.raw.power_on, "off": server.raw.power_off}
        self.cloud.finish(on_off.get(how, server.raw.shutdown)())

    def resources(self, kind: str, key: PairKey, value: str) -> list[Resource]:
        """Return the resources of a kind whose labels say that *key* is *value*."""
        wanted = selector(**{key: value})
        found = self._clients[kind].get_all(label_selector=wanted)
        return [_resource(kind, one) for one in found]

    def resource(self, kind: str, id: str) -> Resource | None:
        """Return a firewall or an ssh key by its id, None if it is gone."""
        with suppress(Gone):
            return _resource(kind, self._clients[kind].get_by_id(int(id)))
        return None

    def delete(self, resource: Resource) -> None:
        """Delete a server or any other resource."""
        resource.raw.delete()

    def create_firewall(self, tags: Tags, box: str, networks: Sequence[str]) -> None:
        """Create the firewall of a box, which opens ssh to these networks only."""
        labels = self.labels(identity(tags, box))
        self.cloud.firewalls.create(box, [_rule(networks)], labels)  # type: ignore[arg-type] # hcloud accepts a dict

    def networks(self, firewall: Resource) -> Sequence[str]:
        """
        Return the networks to which a firewall opens ssh.

        Return () if the firewall opens anything other than ssh.
        """
        rules = firewall.raw.rules or []
        only_ssh = [(rule.direction, rule.port) for rule in rules] == [("in", "22")]
        return rules[0].source_ips if only_ssh else ()

    def set_networks(self, firewall: Resource, networks: Sequence[str]) -> None:
        """Replace the rules of a firewall, and wait until the new ones apply."""
        self.cloud.finish(*firewall.raw.set_rules([_rule(networks)]))

    def ensure_ssh_key(self, owner: str, public: str) -> BoundSSHKey:
        """
        Register the owner's ssh key; return the registered key.

        A key that is registered already, even under another name, is returned as it is.
        """
        labels = self.labels({"managed": "1", "owner": owner})
        with suppress(Exists):
            return self.cloud.ssh_keys.create(f"onebox-{owner}", public, labels)
        found = self.cloud.ssh_keys.get_by_fingerprint(md5_fingerprint(public))
        if found is None:
            raise ProviderError(
                f"another ssh key has the name onebox-{owner}, or is being deleted",
                next="the same command again",
            )
        return found

    def after_create(self, server: Server) -> None:
        """
        Label the address of a new server.

        Hetzner deletes the address with the server, unless the user has changed that.
        The label is needed only after such a change, so a failure is ignored.
        """
        address = server.raw.public_net and server.raw.public_net.primary_ipv4
        if address is not None:
            with suppress(ProviderError):
                address.update(labels=self.labels(server.pairs))

    def labels(self, pairs: Mapping[str, str]) -> dict[str, str]:
        """Return the labels of a new object: the user's, and those for *pairs*."""
        return {**self._tags, **to_labels(pairs)}


def _server(found: BoundServer) -> Server:
    stored = BoxMetadata.from_pairs(from_labels(found.labels))
    pairs, hourly = {}, None
    if stored is not None:
        place = str(found.location.name) if found.location else ""
        stored = replace(stored, offer=replace(stored.offer, place=place))
        pairs, hourly = identity(stored.tags, stored.box), stored.offer.machine_price
    ipv4 = found.public_net and found.public_net.ipv4
    return Server(
        kind="server",
        id=str(found.id),
        pairs=pairs,
        hourly=hourly,
        created=found.created.timestamp() if found.created else 0.0,
        raw=found,
        stored=stored,
        state=_STATES.get(str(found.status), "starting"),
        host=str(ipv4.ip) if ipv4 else "",
    )


def _resource(kind: str, found: Any) -> Resource:
    return Resource(
        kind,
        str(found.id),
        from_labels(found.labels),
        0.0 if kind in (FIREWALL, SSH_KEY) else None,
        found.created.timestamp() if found.created else 0.0,
        found,
    )


def _rule(networks: Sequence[str]) -> FirewallRule:
    return FirewallRule("in", "tcp", list(networks), port="22")
