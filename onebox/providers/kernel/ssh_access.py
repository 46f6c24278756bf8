"""Decide which networks may reach the ssh port of a box."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import time
from collections.abc import Callable

from onebox.errors import ProviderError

# A network with a shorter prefix than this (by IP version) cannot be one person's own.
# 10.0.0.0/8 can be, and the largest public allocations are as wide.
_WIDEST = {4: 8, 6: 16}
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
# A client that can reach a box's private address has itself an address in one of these
# networks.
PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
# This machine's address is looked up again after this time, because the address may
# change during a run of hours. One creation of a box, with all offers that it tries in
# turn, takes less time.
ADDRESS_SECONDS = 300.0
WORLD_NOTE = "its ssh port is open to the whole world (allow_world_ssh)"


def is_world(cidr: str) -> bool:
    """
    Return whether a network in CIDR notation is too wide to be one person's own.

    >>> is_world("0.0.0.0/1"), is_world("10.0.0.0/8"), is_world("2000::/3")
    (True, False, True)
    """
    network = ipaddress.ip_network(cidr, strict=False)
    if isinstance(network, ipaddress.IPv6Network):
        if network.subnet_of(_MAPPED):
            # These are IPv4 addresses in IPv6 notation, so the IPv4 limit applies.
            return network.prefixlen - _MAPPED.prefixlen < _WIDEST[4]
        if network.subnet_of(_UNIQUE_LOCAL):
            return False
    return network.prefixlen < _WIDEST[network.version]


class SSHAccess:
    """
    The networks that may reach ssh, from the settings of one provider.

    If `ssh_cidr` is set, only that network may reach ssh. Otherwise a box with only a
    private address is open to private networks, and every other box only to this
    machine.

    Args:
        my_ip: Returns this machine's public address.

        clock: Returns a time in seconds.

    Attributes:
        is_private: Whether only private networks may reach ssh.

        is_world: Whether `ssh_cidr` is so wide that everyone may reach ssh.
    """

    def __init__(
        self,
        *,
        ssh_cidr: str,
        private: bool,
        my_ip: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed: tuple[str, ...] = ()
        self._my_ip = my_ip
        self._clock = clock
        self._address = ""
        self._looked_up = 0.0
        self.is_world = bool(ssh_cidr) and is_world(ssh_cidr)
        self.is_private = private and not ssh_cidr
        if ssh_cidr:
            self._fixed = (str(ipaddress.ip_network(ssh_cidr, strict=False)),)
        elif private:
            self._fixed = PRIVATE_NETWORKS

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the note that each box gets if everyone may reach its ssh port."""
        return (WORLD_NOTE,) if self.is_world else ()

    def networks(self, *, refresh: bool = False) -> tuple[str, ...]:
        """
        Return the networks that may reach ssh.

        Args:
            refresh: Whether to look this machine's address up again, because it may
                have changed.

        Raises:
            UsageError: This machine's address cannot be found out with certainty.
        """
        if self._fixed:
            return self._fixed
        old = self._clock() - self._looked_up > ADDRESS_SECONDS
        if not self._address or old or refresh:
            self._address, self._looked_up = self._my_ip(), self._clock()
        return (str(ipaddress.ip_network(self._address)),)


def md5_fingerprint(public: str) -> str:
    """
    Return the MD5 fingerprint by which APIs identify a public key.

    >>> md5_fingerprint("ssh-ed25519 AAAA")
    '69:3e:9a:f8:4d:3d:fc:c7:1e:64:0e:00:5b:dc:5e:2e'
    """
    try:
        blob = base64.b64decode(public.split()[1], validate=True)
    except (IndexError, ValueError):
        raise ProviderError(f"{public[:40]!r} is not an ssh public key") from None
    digits = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
