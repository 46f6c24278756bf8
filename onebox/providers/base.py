"""
What a provider promises: to make, find and remove boxes and images.

A provider keeps no state of its own outside its cloud, prints nothing, and
knows nothing of stages, ssh or Invoke. Every call that creates something is
idempotent on the id it is given; every call that removes something succeeds
when the thing is already gone. Errors come as the `ProviderError` family.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

BoxState = Literal["starting", "running", "stopping", "stopped", "gone"]


@dataclass(frozen=True)
class Tags:
    """
    Whose a cloud object is; written by the very call that creates it.

    *owner* is a random id per user and machine, *project* and *name* say which
    box of that owner's it is, *kind* what it is for. *expires* is in seconds
    since the epoch.
    """

    owner: str
    project: str
    name: str
    expires: float
    version: str
    kind: Literal["box", "builder", "image"] = "box"


@dataclass(frozen=True)
class Need:
    """
    What a size asks for.

    *cpus* and *memory* (bytes) are what it takes at least. Where *types* are
    named (this provider's own names, best first) nothing else will do.
    """

    name: str
    cpus: int
    memory: int
    spot: bool = False
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """
    A machine type as it can be had: *memory* in bytes, prices in USD an hour.

    A price that is not known is None, never 0 (0 is what the local box costs).
    """

    name: str
    type: str
    cpus: int
    memory: int
    price: float | None
    on_demand: float | None
    spot: bool = False


@dataclass(frozen=True)
class Image:
    """A saved environment. *recipe* is the recipe's hash, "" if made by hand."""

    id: str
    name: str
    recipe: str
    created: float
    size: int
    arch: str
    tags: Tags


@dataclass(frozen=True)
class HostKey:
    """An ed25519 host key in OpenSSH's own formats."""

    private: str
    public: str


@dataclass(frozen=True)
class Arming:
    """
    What a box must know from its first moment on, without any connection.

    Times in seconds. *deadline* is the moment (epoch) at which the box powers
    itself off; *setup_grace* how long it waits for a first job, *idle_grace*
    how long it stays without a job and without anybody attached.
    """

    deadline: float
    setup_grace: float
    idle_grace: float
    agent: bytes = field(repr=False)


@dataclass(frozen=True)
class Request:
    """Everything one create call needs; *box* is the idempotency token too."""

    box: str
    tags: Tags
    size: Size
    image: Image | None
    user_key: str
    host_key: HostKey = field(repr=False)
    arming: Arming


@dataclass(frozen=True)
class Box:
    """
    A machine of ours, as the provider sees it now.

    *agent* is the absolute path of the agent on the box and *work* the
    directory, relative to the home directory, where code and data go.
    *host_key* is the public key that must answer. *why* a box has stopped is
    said if it is known: "preempted", "deadline", "poweroff" or other words.
    *notes* are sentences that the user should know about this box.
    """

    id: str
    tags: Tags
    state: BoxState
    size: Size
    image: str
    place: str
    host: str
    port: int
    user: str
    host_key: str
    created: float
    deadline: float
    agent: str
    work: str = "work"
    why: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leftover:
    """Something billable that a teardown has not yet seen gone."""

    kind: str
    id: str
    price: float | None


@dataclass(frozen=True)
class Check:
    """One line of `doctor`: *ok* None means worth knowing, but not wrong."""

    name: str
    ok: bool | None
    detail: str
    next: str = ""


class Provider(abc.ABC):
    """One cloud, or this machine."""

    name: str

    @abc.abstractmethod
    def sizes(self, need: Need) -> Sequence[Size]:
        """
        Return the types that can be had for a need, best first; at least one.

        Raises:
            UsageError: No type of this provider fits; the nearest are named.
        """

    @abc.abstractmethod
    def base(self) -> str:
        """
        Name the environment that a box without an image starts from.

        It is a part of every recipe's hash: a new base is a new image.
        """

    @abc.abstractmethod
    def create(self, request: Request) -> Box:
        """
        Make the box, or return the one that this request has already made.

        Raises:
            ProviderError: It was not made; nothing of it is left.

            Unclear: It may have been made: `find` will tell.
        """

    @abc.abstractmethod
    def find(self, owner: str) -> Sequence[Box]:
        """Return every box and builder of this owner, also stopped ones."""

    @abc.abstractmethod
    def get(self, box: str) -> Box | None:
        """Return this box as it is now, None once it is certainly gone."""

    @abc.abstractmethod
    def start(self, box: Box, deadline: float) -> Box:
        """Start a stopped box again, with a new deadline (epoch seconds)."""

    @abc.abstractmethod
    def stop(self, box: Box) -> None:
        """Stop the box and wait until it has; its disk stays."""

    @abc.abstractmethod
    def delete(self, box: Box) -> None:
        """
        Remove this one box and all that was made with it.

        Raises:
            NotAllowed: What stands there now carries other tags; nothing was
                touched.
        """

    @abc.abstractmethod
    def leftovers(self, box: str) -> Sequence[Leftover]:
        """Ask again for everything that belonged to this box id."""

    @abc.abstractmethod
    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""

    @abc.abstractmethod
    def save(self, box: Box, image: Image) -> Image:
        """Save a stopped box's disk as *image* (its id, recipe and tags)."""

    @abc.abstractmethod
    def delete_image(self, image: Image) -> None:
        """Remove this one image; already gone is fine."""

    @abc.abstractmethod
    def console(self, box: Box) -> str:
        """Return the last lines that the box said while booting."""

    @abc.abstractmethod
    def checks(self) -> Sequence[Check]:
        """Look for whatever would keep a box from coming up here."""
