"""The interface through which the provider contract reads and changes a fake."""

from __future__ import annotations

import abc
import ipaddress
import re
from collections.abc import Collection, Iterable

from onebox.providers.values import Request

# The address from which the tests reach ssh, and the one that it changes to.
MY_IP, MY_NEXT_IP = "198.51.100.7", "203.0.113.9"
# An address that must never reach ssh.
FOREIGN_IP = "198.51.100.66"

_DEADLINE = re.compile(r'\\?"deadline\\?": ([0-9.]+)')


class World(abc.ABC):
    """
    The state behind one provider, without its API and without its code.

    The contract compares what the provider returns with what this class finds. The
    methods at the end do what a faulty provider would do; `planted` uses them to
    prove that the contract finds the fault.
    """

    @abc.abstractmethod
    def boot_data(self, box: str) -> str:
        """Return everything that a box receives at its next boot, as text."""

    @abc.abstractmethod
    def deadline_on(self, box: str) -> float | None:
        """Return the deadline that the box reads at its next boot, None without one."""

    @abc.abstractmethod
    def objects_of(self, box: str) -> Collection[str]:
        """Return the ids of all objects that exist for this box alone."""

    @abc.abstractmethod
    def image_on_disk(self, box: str) -> str:
        """Return the id of the image that the box's disk was made from, "" if none."""

    def mark_disk(self, box: str, word: str) -> None:  # noqa: B027 (optional)
        """Write a word to the box's disk; do nothing if the fake has no real disks."""

    def build_with_packer(self) -> str:
        """Add an image as Packer builds it; return its artifact id."""
        raise NotImplementedError("only for a provider with `adopts`")

    @abc.abstractmethod
    def refuse_creates(self, request: Request) -> Request:
        """Prepare the refusal of a create; return the request that is refused."""

    @abc.abstractmethod
    def accept_creates(self) -> None:
        """Undo `refuse_creates`."""

    def firewalls_of(self, owner: str) -> set[str]:
        """Return the ids of the firewalls for the boxes of an owner."""
        return set()

    # -- what a faulty provider would do ---------------------------------------

    @abc.abstractmethod
    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace what the box receives at its next boot."""

    @abc.abstractmethod
    def put_base_on_disk(self, box: str) -> None:
        """Replace the image on the box's disk by a plain base."""

    @abc.abstractmethod
    def leave_partial_create(self, owner: str, box: str) -> None:
        """Leave an object of a create that failed half-way."""


class CloudWorld(World):
    """
    The account behind a cloud provider: it also has firewalls and lost responses.

    Attributes:
        my_ip: The address that this machine has at the moment.

        lost_responses: The number of create calls whose response was lost.
    """

    def __init__(self) -> None:
        self.my_ip = MY_IP
        self.lost_responses = 0

    def identity_of(self, box: str) -> str:
        """Return what programs on a box may act as, "" for nothing."""
        raise NotImplementedError("only for a provider with `identity_setting`")

    def set_identity(self, box: str, identity: str) -> None:
        """Replace what programs on a box may act as; "" takes it away."""
        raise NotImplementedError("only for a provider with `identity_setting`")

    def change_my_ip(self) -> str:
        """Give this machine another address; return it."""
        self.my_ip = MY_NEXT_IP
        return self.my_ip

    def lose_next_create_response(self) -> None:
        """Let the next create call take effect, and drop its response."""
        self.lost_responses += 1
        self.cut_after_next_create()

    @abc.abstractmethod
    def cut_after_next_create(self) -> None:
        """Tell the fake to cut the connection after the next create call."""

    @abc.abstractmethod
    def ssh_open_to(self, box: str, source: str) -> bool:
        """Return whether the firewalls let an address reach the box's ssh port."""

    # -- what a faulty provider would do ---------------------------------------

    @abc.abstractmethod
    def open_ssh_to_everyone(self, box: str) -> None:
        """Open the ssh port of the box to every address."""

    @abc.abstractmethod
    def detach_firewalls(self, box: str) -> None:
        """Leave the box without a firewall of its owner's."""


def deadline_in(boot_data: str) -> float | None:
    """Return the deadline in the boot program's JSON, None without one."""
    match = _DEADLINE.search(boot_data.replace("\\", ""))
    return float(match[1]) if match else None


def is_within(address: str, networks: Iterable[str]) -> bool:
    """Return whether an address belongs to one of these networks."""
    ip = ipaddress.ip_address(address)
    return any(ip in ipaddress.ip_network(network) for network in networks)
