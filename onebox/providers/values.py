"""The values that a provider takes and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onebox.providers import costs
from onebox.providers.costs import Cost

BoxState = Literal["starting", "running", "stopping", "stopped", "gone"]


@dataclass(frozen=True)
class Tags:
    """
    Who owns a cloud object; set atomically by the create call.

    *owner* is a random id for each user and machine. *project* and *name* identify
    the box among those of the owner, *kind* is its purpose. *expires* is in seconds
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
    What a size requires.

    *cpus* and *memory* (bytes) are minimums. If *types* are named (this provider's
    own names, best first), only these are offered. With *spot* and *fallback*,
    on-demand offers follow those for spot. Only types that can boot *image* are
    offered, and only in places that hold it or can receive it. *disk* is the size of
    the disk in bytes; None means the one in the provider's settings.
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
    A machine type in one place, with its price in USD an hour.

    An unknown price is None, never 0 (0 is the price of the local box). *memory* is
    in bytes. *place* is the provider's name of a zone or a region, *cores* the number
    of physical cores if it is known, *arch* what `uname -m` prints. *price* and
    *on_demand* are for the machine alone; *extras* are billed beside it while it
    runs. *priced* is when (epoch seconds) the price was current, if it could not be
    read now, else 0.
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
        """Return all hourly costs, the machine first."""
        return (Cost(costs.MACHINE, self.price), *self.extras)

    @property
    def hourly(self) -> float | None:
        """Return the total hourly cost, None if a part is unknown."""
        return costs.total(part.hourly for part in self.parts)

    @property
    def hourly_on_demand(self) -> float | None:
        """Return the total hourly cost on demand, None if a part is unknown."""
        return costs.total([self.on_demand, *(cost.hourly for cost in self.extras)])

    @property
    def hourly_stopped(self) -> float | None:
        """Return the hourly cost of a stopped box: that of its disk."""
        return costs.total(cost.hourly for cost in self.extras if costs.is_disk(cost))

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Offer:
        """
        Return the offer that `dataclasses.asdict` wrote.

        Raises:
            TypeError: Another version of onebox wrote it.
        """
        return cls(**{**record, "extras": costs.from_json(record.get("extras"))})


@dataclass(frozen=True)
class Image:
    """
    A saved environment.

    *recipe* is the hash of its recipe, "" for an image saved by hand. *stored* is the
    number of bytes that are billed; with *at_most* it is an upper bound. *disk* is
    the size in bytes of the smallest disk for it, 0 if that is unknown. *places* are
    the regions that hold it, empty if all do. *base* is the base image it was built
    on, "" if that was not recorded.
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
    What a box needs at its first boot, before any client connects.

    Times are in seconds. At *deadline* (epoch) the box powers itself off.
    *setup_grace* is how long it waits for its first job, *idle_grace* how long it
    stays up without a job or a connected client.

    *agent* is the complete agent. *seed* is the part of it that enforces the deadline
    and can receive the rest; it fits into the user data of every cloud.
    """

    deadline: float
    setup_grace: float
    idle_grace: float
    agent: bytes = field(repr=False)
    seed: bytes = field(repr=False, default=b"")


@dataclass(frozen=True)
class Request:
    """
    The arguments of a create call; *box* is also the idempotency token.

    *base* is the base image if there is no *image*. *disk* is the size of the disk in
    bytes; None means the one in the provider's settings.
    """

    box: str
    tags: Tags
    offer: Offer
    image: Image | None
    user_key: str
    host_key: HostKey = field(repr=False)
    boot_config: BootConfig
    base: str = ""
    disk: int | None = None


@dataclass(frozen=True)
class Box:
    """
    A box as the provider reports it now.

    *host* is empty until a starting box has an address. *jump* is the ssh host to
    connect through, by the name in the user's ssh configuration. *host_key* is the
    public key that the box must present. With *bootstrap_key* its private half went
    through user data, so the first connection replaces it.

    *agent* is the absolute path of the agent on the box, *work* the directory of code
    and data, relative to the home directory.

    *why* is the reason of a stop, if it is known: "preempted", "deadline",
    "poweroff" or another. With *disk_only* only the disk of a stopped box is left: it
    can be started in another machine, which then costs again. A *rescue* is smaller
    than requested, and only reads that disk: no job runs on it. *notes* are sentences
    for the user.
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
    """A billed object that still existed after a teardown."""

    kind: str
    id: str
    price: float | None


@dataclass(frozen=True)
class FreeObject:
    """
    A free object that belongs to an owner, but not to a single box.

    *why* is the reason why it must stay, "" if it can be removed.
    """

    kind: str
    id: str
    place: str = ""
    why: str = ""


@dataclass(frozen=True)
class Check:
    """One line of `inv doctor`; *ok* is None for information that is no problem."""

    name: str
    ok: bool | None
    detail: str
    next: str = ""
