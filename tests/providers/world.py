"""The questions and changes of a contract test to the world behind a provider."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from onebox.providers.values import Request

# An address that nobody is to be let in from.
STRANGER = "198.51.100.66"


class World(Protocol):
    """
    The real state of a provider's world, past its API and its own code.

    The first half looks; *lose_next_answer*, *refuse* and *move* have something
    happen that is nobody's fault; the last five do what a provider with a fault in
    it would have done.

    Attributes:
        here: The address that this machine is reached from at the moment.

        lost: How many answers to a create call have been lost.
    """

    here: str
    lost: int

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Tell whether an address can reach the ssh port of a box."""

    def boot_data(self, box: str) -> str:
        """Return everything that a box receives at its next boot."""

    def deadline_on(self, box: str) -> float | None:
        """Return the deadline in that, None if there is none."""

    def mark(self, box: str, word: str) -> None:
        """Leave a word on a box's disk, where its world has real disks."""

    def booted_from(self, box: str) -> str:
        """Return the id of the image that is on a box's disk, "" for a plain base."""

    def belongings(self, box: str) -> Collection[str]:
        """Return the ids of all objects of this one box, each once."""

    def walls(self, owner: str) -> set[str]:
        """Return the ids of the firewalls that there are for an owner's boxes."""

    def packed(self) -> str:
        """Make an image as Packer does; return the artifact as it names it."""

    def lose_next_answer(self) -> None:
        """Have the next create call take effect, and its answer get lost."""

    def refuse(self, request: Request) -> Request:
        """Have a request refused; return it as it is refused."""

    def accept(self) -> None:
        """Have nothing refused any more."""

    def move(self) -> str:
        """Give this machine another address; return it."""

    def open_to_all(self, box: str) -> None:
        """Open the ssh port of a box to everybody."""

    def take_off_walls(self, box: str) -> None:
        """Leave a box without any firewall of ours."""

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Set what a box receives at its next boot."""

    def boot_plain(self, box: str) -> None:
        """Put a plain base on the disk of a box."""

    def leave_behind(self, owner: str, box: str) -> None:
        """Leave what a create call has made before it was refused."""
