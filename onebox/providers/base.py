"""
What a provider promises: to make, find and remove boxes and images.

A provider keeps no state of its own outside its cloud, prints nothing, and
knows nothing of stages, ssh or Invoke. Every call that creates something is
idempotent on the id it is given; every call that removes something succeeds
when the thing is already gone. Errors come as the `ProviderError` family.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from onebox.errors import (
    ConfigError,
    NotAllowed,
    OneboxError,
    QuotaExceeded,
    UsageError,
)
from onebox.providers import costs
from onebox.providers.costs import Cost

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
class Requirements:
    """
    What a size asks for.

    *cpus* and *memory* (bytes) are what it takes at least. Where *types* are
    named (this provider's own names, best first) nothing else will do. With
    *fallback*, on-demand candidates follow those for *spot*. *image* is what the
    box will be made from: only types that can boot it will do, and only where it
    is or can be brought. *disk* is the size of the disk in bytes (None: what the
    provider's settings say).
    """

    name: str
    cpus: int
    memory: int
    spot: bool = False
    types: tuple[str, ...] = ()
    fallback: bool = False
    image: Image | None = None
    disk: int | None = None


@dataclass(frozen=True)
class Offer:
    """
    A machine type as it can be had: *memory* in bytes, prices in USD an hour.

    A price that is not known is None, never 0 (0 is what the local box costs).
    *place* is where it can be had, in the provider's own words (a zone, or a
    region), *cores* how many physical cores its *cpus* are, if that is known,
    *arch* what `uname -m` says there. *price* and *on_demand* are the machine's
    alone; *extras* are what else is billed for as long as it runs. *priced* is the
    moment (epoch seconds) of a price that could not be asked for now, else 0.
    """

    name: str
    type: str
    cpus: int
    memory: int
    price: float | None
    on_demand: float | None
    spot: bool = False
    place: str = ""
    cores: int | None = None
    arch: str = ""
    extras: tuple[Cost, ...] = ()
    priced: float = field(default=0.0, compare=False)

    @property
    def parts(self) -> tuple[Cost, ...]:
        """Return all that an hour of it costs, the machine first."""
        return (Cost(costs.MACHINE, self.price), *self.extras)

    @property
    def hourly(self) -> float | None:
        """Return what an hour costs in all, None if a part of that is not known."""
        return costs.total(part.hourly for part in self.parts)

    @property
    def hourly_on_demand(self) -> float | None:
        """Return what an hour would cost in all on demand."""
        return costs.total([self.on_demand, *(one.hourly for one in self.extras)])

    @property
    def hourly_stopped(self) -> float | None:
        """Return what an hour costs once it is off, for its disk."""
        return costs.total(one.hourly for one in self.extras if costs.is_disk(one))

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Offer:
        """
        Return the size that `dataclasses.asdict` has written.

        Raises:
            TypeError: It is another version's.
        """
        return cls(**{**told, "extras": costs.from_json(told.get("extras"))})


@dataclass(frozen=True)
class Image:
    """
    A saved environment.

    *recipe* is the recipe's hash, "" if made by hand; *stored* is how many bytes are
    stored and billed, an upper bound of that with *at_most*; *disk* is the size in
    bytes of the disk that it needs, 0 if that is not known; *places*
    are the regions that hold it (empty: it is everywhere). *base* is what it was
    built on, "" where that was not written down.
    """

    id: str
    name: str
    recipe: str
    created: float
    stored: int
    arch: str
    tags: Tags
    places: tuple[str, ...] = ()
    base: str = ""
    at_most: bool = False
    disk: int = 0


@dataclass(frozen=True)
class HostKey:
    """An ed25519 host key in OpenSSH's own formats."""

    private: str
    public: str


@dataclass(frozen=True)
class BootConfig:
    """
    What a box must know from its first moment on, without any connection.

    Times in seconds. *deadline* is the moment (epoch) at which the box powers
    itself off; *setup_grace* how long it waits for a first job, *idle_grace*
    how long it stays without a job and without anybody attached.

    *agent* is all of the agent. *seed* is as much of it as watches over the box
    and can take the rest over a connection: that fits into any cloud's user data.
    """

    deadline: float
    setup_grace: float
    idle_grace: float
    agent: bytes = field(repr=False)
    seed: bytes = field(repr=False, default=b"")


@dataclass(frozen=True)
class Request:
    """
    Everything one create call needs; *box* is the idempotency token too.

    *base* is the environment to start from where there is no *image*, *disk* the
    size of the box's disk in bytes (None: what the provider's settings say).
    """

    box: str
    tags: Tags
    offer: Offer
    image: Image | None
    user_key: str
    host_key: HostKey = field(repr=False)
    arming: BootConfig
    base: str = ""
    disk: int | None = None


@dataclass(frozen=True)
class Box:
    """
    A machine of ours, as the provider sees it now.

    *agent* is the absolute path of the agent on the box and *work* the
    directory, relative to the home directory, where code and data go.
    *host* is empty for as long as a starting box has no address; *jump* is the
    ssh host to go through, as the user's own ssh knows it.
    *host_key* is the public key that must answer; where it is *bootstrap_key* (its
    private half went through user data) the first connection replaces it.
    *why* a box has stopped is said if it is known: "preempted", "deadline",
    "poweroff" or other words. A stopped box of which only the disk is left
    (*disk_only*) can be started too, as another machine, which then costs again; one
    that is smaller than what was asked for is a *rescue*: it reads that disk, and no
    job belongs on it.
    *notes* are sentences that the user should know about this box.
    """

    id: str
    tags: Tags
    state: BoxState
    offer: Offer
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
    jump: str = ""
    bootstrap_key: bool = False
    disk_only: bool = False
    rescue: bool = False


@dataclass(frozen=True)
class Leftover:
    """Something billable that a teardown has not yet seen gone."""

    kind: str
    id: str
    price: float | None


@dataclass(frozen=True)
class FreeThing:
    """
    Something of an owner's that costs nothing and belongs to no single box.

    *why* says why it has to stay; "" where nothing needs it any more.
    """

    kind: str
    id: str
    place: str = ""
    why: str = ""


@dataclass(frozen=True)
class Check:
    """One line of `doctor`: *ok* None means worth knowing, but not wrong."""

    name: str
    ok: bool | None
    detail: str
    next: str = ""


def unknown(name: str, error: OneboxError) -> Check:
    """
    Return the line of a question that failed: False only if the answer was no.

    A question that had no answer, or may not be asked, says nothing about a box.
    """
    refused = isinstance(error, (NotAllowed, QuotaExceeded, UsageError, ConfigError))
    ok = False if refused else None
    detail = error.message if refused else f"not known: {error.message}"
    return Check(name, ok, detail, error.next or "inv doctor once more")


class Provider(abc.ABC):
    """
    One cloud, or this machine.

    Attributes:
        settle: For how many seconds after a create its box may be missing from
            what `get` and `find` return, without being gone.

        pace: How many seconds lie at least between two looks at one box.

        own_system: Whether a box has an operating system to itself, which is
            cleaned before it is saved; else only the home directory is its own.

        adopts: The builders of Packer's whose images can become ours.

        image_rate: What a GB of a saved image costs a month at most, in USD;
            None if that is not known.

        off_is_free: Whether a box that has powered itself off costs no more than its
            disk does.

        unseen: The regions that the last `find` could not look into, and why.

        unpriced: Why the last `offers` knows not all prices, "" if it does.
    """

    name: str
    settle: float = 0.0
    poll_interval: float = 0.0
    own_system: bool = True
    adopts: tuple[str, ...] = ()
    image_rate: float | None = None
    stopped_is_free: bool = True
    unreachable_regions: tuple[str, ...] = ()
    unpriced: str = ""

    @abc.abstractmethod
    def offers(self, need: Requirements) -> Sequence[Offer]:
        """
        Return the candidates for a need, best first; at least one.

        A candidate is a type in one place, so that one type may come up several
        times.

        Raises:
            UsageError: No type of this provider fits; the nearest are named.
        """

    def also_refused(self, size: Offer, limit: str, other: Offer) -> bool:
        """
        Tell whether a limit of the account that has refused a size refuses another.

        Args:
            limit: The limit's name, as in `QuotaExceeded`.
        """
        return False

    def egress_rate(self, place: str) -> float | None:
        """Return what a GB from a place to the internet costs at most, in USD."""
        return None

    @abc.abstractmethod
    def base(self, name: str = "", arch: str = "") -> str:
        """
        Say what exactly a box without an image starts from.

        It is a part of every recipe's hash: a new base is a new image.

        Args:
            name: The environment's name, such as "ubuntu-24.04".

            arch: The architecture, as in `Offer.arch`.

        Raises:
            UsageError: There is no such environment.
        """

    @abc.abstractmethod
    def create(self, request: Request) -> Box:
        """
        Make the box, or return the one that this request has already made.

        It need not run yet, nor have an address: `get` tells when it has.

        Raises:
            ProviderError: It was not made; nothing of it is left.

            Unclear: It may have been made: `get` will tell, within `settle`.
        """

    @abc.abstractmethod
    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """
        Return every box and builder of this owner, also stopped ones.

        Args:
            also: Places to look in, beside those of the settings.

            everywhere: Look in every region that the account can use.
        """

    @abc.abstractmethod
    def get(self, box: str, place: str = "") -> Box | None:
        """
        Return this box as it is now, None if it is not there.

        Args:
            place: Where it was made, if that is known.
        """

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
    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Ask again for everything that belonged to this box id."""

    def free_things(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeThing]:
        """
        Return what bears this owner's name and costs nothing, other than boxes.

        Args:
            gone: Boxes that are known to be gone, or never to have been made: what
                was made for one that is only missing may still be needed.

            everywhere: Look in every region that the account can use.
        """
        return ()

    def remove_free(self, owner: str, thing: FreeThing) -> None:
        """
        Remove one of the owner's free things; already gone is fine.

        Raises:
            ProviderError: A box of the owner's needs it after all.

            NotAllowed: It is not this owner's; it was not touched.
        """
        raise NotAllowed(f"{thing.kind} {thing.id} is not a thing of {self.name}'s")

    @abc.abstractmethod
    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""

    @abc.abstractmethod
    def save(self, box: Box, image: Image) -> Image:
        """Save a stopped box's disk as *image* (its id, recipe and tags)."""

    @abc.abstractmethod
    def delete_image(self, image: Image) -> None:
        """Remove this one image; already gone is fine."""

    def adopt_image(self, id: str, image: Image) -> Image:
        """
        Make an image of ours of one that stands there; doing it twice is fine.

        Args:
            id: The artifact as Packer names it.

            image: What it is to be: its id, name, recipe and tags.

        Raises:
            UsageError: This provider cannot.
        """
        raise UsageError(f"provider {self.name} cannot take over the image {id}")

    @abc.abstractmethod
    def console(self, box: Box) -> str:
        """Return the last lines that the box said while booting."""

    @abc.abstractmethod
    def checks(self) -> Sequence[Check]:
        """Look for whatever would keep a box from coming up here."""

    def set_host_key(self, box: Box, host_key: str) -> Box:
        """
        Write down, with the box, that it answers with another host key now.

        Only a provider whose boxes are `bootstrap_key` has anything to do here.
        """
        raise UsageError(f"boxes of {self.name} keep the host key they were made with")

    def post_boot_script(self, box: Box) -> bytes:
        """
        Return a Python program for root to run, once, on a box that has come up.

        It goes over the verified connection, so it may hold a secret. b"": there is
        nothing to do.
        """
        return b""

    def allow_my_ip(self, box: Box) -> bool:
        """
        Let this machine's present address in, and no longer its former one.

        Returns whether anything had to change.
        """
        return False

    def now(self) -> float:
        """Return the time (epoch seconds) by the clock that boxes here go by."""
        return time.time()

    def credentials_expire(self) -> float | None:
        """Return when (epoch seconds) the credentials end, None if they do not."""
        return None

    def policy(self) -> str:
        """Return the least permissions that a user needs, as the cloud takes them."""
        raise UsageError(f"provider {self.name} has no policy to print")
