"""How much of the world a network in CIDR notation is."""

from __future__ import annotations

import ipaddress

# The widest that may be meant as somebody's own: 10.0.0.0/8 is, and the largest
# allocations of public addresses are.
_WIDEST = {4: 8, 6: 16}
_PRIVATE = ipaddress.IPv6Network("fc00::/7")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def is_world(cidr: str) -> bool:
    """
    Return whether a network is so wide that it stands for everybody.

    >>> is_world("0.0.0.0/1"), is_world("10.0.0.0/8"), is_world("2000::/3")
    (True, False, True)
    """
    network = ipaddress.ip_network(cidr, strict=False)
    if isinstance(network, ipaddress.IPv6Network):
        if network.subnet_of(_MAPPED):
            # IPv4 addresses, written as IPv6 ones.
            return network.prefixlen - _MAPPED.prefixlen < _WIDEST[4]
        if network.subnet_of(_PRIVATE):
            return False
    return network.prefixlen < _WIDEST[network.version]
