"""Which networks may reach ssh, by the settings of a provider."""

from __future__ import annotations

import pytest

from onebox.providers.kernel.ssh_access import (
    ADDRESS_SECONDS,
    PRIVATE_NETWORKS,
    WORLD_NOTE,
    SSHAccess,
    is_world,
)


class Surroundings:
    """A machine whose address and clock the test sets."""

    def __init__(self) -> None:
        self.address = "203.0.113.7"
        self.time = 0.0
        self.lookups = 0

    def my_ip(self) -> str:
        """Return the address, and count the call."""
        self.lookups += 1
        return self.address

    def access(self, ssh_cidr: str = "", private: bool = False) -> SSHAccess:
        """Return the access for these settings."""
        return SSHAccess(
            ssh_cidr=ssh_cidr,
            private=private,
            my_ip=self.my_ip,
            clock=lambda: self.time,
        )


@pytest.mark.parametrize(
    ("cidr", "private", "networks"),
    [
        ("10.1.2.3/8", False, ("10.0.0.0/8",)),
        ("198.51.100.1", True, ("198.51.100.1/32",)),
        ("", True, PRIVATE_NETWORKS),
        ("", False, ("203.0.113.7/32",)),
    ],
)
def test_ssh_cidr_comes_before_private_networks_before_this_machine(
    cidr: str, private: bool, networks: tuple[str, ...]
) -> None:
    """The first of these three that the settings name decides."""
    around = Surroundings()
    assert around.access(cidr, private).networks() == networks
    assert around.lookups == (networks == ("203.0.113.7/32",))


def test_an_ipv6_address_is_one_machine() -> None:
    """The prefix is that of a single address in both families."""
    around = Surroundings()
    around.address = "2001:db8::7"
    assert around.access().networks() == ("2001:db8::7/128",)


def test_the_address_is_looked_up_again_on_request_and_when_it_is_old() -> None:
    """All candidates of one create share a lookup; a later create makes its own."""
    around = Surroundings()
    access = around.access()
    access.networks()
    around.address = "192.0.2.9"
    around.time = ADDRESS_SECONDS
    assert access.networks() == ("203.0.113.7/32",)
    assert access.networks(refresh=True) == ("192.0.2.9/32",)
    around.address = "192.0.2.10"
    around.time += ADDRESS_SECONDS + 1
    assert access.networks() == ("192.0.2.10/32",)


@pytest.mark.parametrize(
    ("cidr", "world"),
    [
        ("0.0.0.0/0", True),
        ("0.0.0.0/1", True),
        ("8.0.0.0/7", True),
        ("10.0.0.0/8", False),
        ("::/0", True),
        ("2000::/3", True),
        ("2001:db8::/16", False),
        ("fc00::/7", False),
        ("::ffff:0:0/96", True),
        ("::ffff:10.0.0.0/104", False),
    ],
)
def test_a_network_wider_than_any_allocation_is_the_world(
    cidr: str, world: bool
) -> None:
    """Each box of such a network gets a note."""
    assert is_world(cidr) == world
    notes = Surroundings().access(cidr).notes
    assert notes == ((WORLD_NOTE,) if world else ())
