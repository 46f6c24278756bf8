"""Google's side of `gcloud`: Identity-Aware Proxy, and the firewall."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.gcp.account import Account
from tests.fakes.tunnels.gateway import Query, Refused

# An address from which Identity-Aware Proxy connects, and one of the internet.
PROXY, INTERNET = "35.235.240.17", "198.51.100.7"
_COMMAND = "ERROR: (gcloud.compute.start-iap-tunnel)"
_NO_BACKEND = (
    f"{_COMMAND} Error while connecting [4003: 'failed to connect to backend']. "
    "(Failed to connect to port 22)"
)


class IdentityAwareProxy:
    """
    Leads a connection to an instance.

    Args:
        connect: Returns a connection to port 22 of an instance.

    Attributes:
        allowed: Whether the account may use the proxy.
    """

    def __init__(
        self, account: Account, connect: Callable[[str], socket.socket]
    ) -> None:
        self.allowed = True
        self._account = account
        self._connect = connect

    def lead(self, query: Query) -> socket.socket:
        """Return a connection to the instance. Raises Refused."""
        name, zone = query["instance"], query["zone"]
        found = self._account.instances.all.get((zone, name))
        if query["project"] != "test-project" or found is None:
            place = f"projects/{query['project']}/zones/{zone}/instances/{name}"
            raise Refused(
                f"{_COMMAND} Could not fetch resource:\n"
                f" - The resource '{place}' was not found\n",
                1,
            )
        if not self.allowed:
            raise Refused(
                f"{_COMMAND} Error while connecting [4033: 'not authorized'].", 1
            )
        if query["port"] != 22 or not admits(self._account, found, PROXY):
            raise Refused(_NO_BACKEND, 1)
        try:
            return self._connect(name)
        except (OSError, KeyError):
            raise Refused(_NO_BACKEND, 1) from None


def admits(account: Account, instance: Mapping[str, Any], address: str) -> bool:
    """
    Return whether the firewall admits ssh to an instance from an address.

    The default network has a rule of the lowest priority that admits everyone.
    """
    everyone = {"priority": 65534, "allowed": [{}], "sourceRanges": ["0.0.0.0/0"]}
    tags = set(instance.get("tags", {}).get("items", ()))
    rules = [
        rule
        for rule in (*account.firewalls.values(), everyone)
        if not rule.get("disabled")
        and (not rule.get("targetTags") or tags & set(rule["targetTags"]))
        and any(
            ipaddress.ip_address(address) in ipaddress.ip_network(one)
            for one in rule["sourceRanges"]
        )
    ]
    # At the same priority, a rule that denies counts first.
    return "allowed" in min(rules, key=lambda r: (r["priority"], "allowed" in r))
