"""These data classes are the arguments and results of the calls of a provider."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onebox.providers import costs
from onebox.providers.costs import Cost

BoxState = Literal["starting", "running", "stopping", "stopped", "gone"]
# A callback with two numbers: the fraction of a disk that is saved (0 to 1), and how
# many bytes are saved in total, 0 if that is unknown.
SaveProgress = Callable[[float, int], None]

# Fields that have other names now. Boxes and images of the local provider, and open
# journals, may still have the old names.
_NEW_NAMES = {
    "expires": "deadline",
    "price": "machine_price",
    "on_demand": "machine_on_demand",
}


def ignore_progress(fraction: float, total: int) -> None:
    """Accept the progress of a save, and do nothing."""


def _with_new_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {_NEW_NAMES.get(name, name): value for name, value in fields.items()}


@dataclass(frozen=True)
class Tags:
    """
    The tags that record who owns a cloud object.

    The call that creates the object sets them, so the object never exists without
    them. *owner* is a random id for each user and machine. *project* and *name*
    identify the box among those of the owner. *kind* is the purpose of the object.
    *deadline* (epoch seconds) is that of the box. An image has the deadline of the box
    that it was saved from, or 0 if Packer built it in the cloud.
    """

    owner: str
    project: str
    name: str
    deadline: float
    version: str
    kind: Literal["box", "builder", "image"] = "box"

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Tags:
        """Return the tags whose *fields*, made by `asdict`, are in a file."""
        return cls(**_with_new_names(fields))


@dataclass(frozen=True)
class Requirements:
    """
    The requirements of a size in onebox.toml, which an offer must meet.

    *cpus* and *memory* (bytes) are minimums. *types* are machine types of the provider,
    best first; if there are any, only these are offered. If both *spot* and *fallback*
    are true, on-demand offers follow the spot offers. Only types that can boot *image*
    are offered, and only in places that hold the image or can receive it. *disk* is the
    size of the disk in bytes; None means the size in the provider's settings. Without
    an image, only types of the architecture *arch* are offered; "" means the provider's
    default architecture.
    """

    name: str
    cpus: int
    memory: int
    spot: bool = False
    types: tuple[str, ...] = ()
    fallback: bool = False
    image: Image | None = None
    disk: int | None = None
    arch: str = ""


@dataclass(frozen=True)
class Offer:
    """
    A machine type in one place, with its price in USD an hour.

    An unknown price is None, never 0 (0 is the price of the local box). *memory* is
    in bytes. *place* is the provider's name of a zone or a region. *cores* is the
    number of physical cores, None if it is unknown. *arch* is what `uname -m` prints.
    *machine_price* and *machine_on_demand* are for the machine alone; *extras* are
    billed in addition while it runs, and `hourly` is the total. *priced* is 0 if the
    price was read now. Otherwise the price is an older one, and *priced* is the time
    (epoch seconds) at which it was current.
    """

    name: str
    type: str
    cpus: int
    memory: int
    machine_price: float | None
    machine_on_demand: float | None
    spot: bool = False
    place: str = ""
    cores: int | None = None
    arch: str = ""
    extras: tuple[Cost, ...] = ()
    priced: float = field(default=0.0, compare=False)

    @property
    def parts(self) -> tuple[Cost, ...]:
        """Return all parts of the hourly cost, the machine first."""
        return (Cost(costs.MACHINE, self.machine_price), *self.extras)

    @property
    def hourly(self) -> float | None:
        """Return the total hourly cost, None if a part is unknown."""
        return costs.total(part.hourly for part in self.parts)

    @property
    def cost_order(self) -> tuple[float, float]:
        """
        Return the key that sorts offers by hourly cost; unknown costs come last.

        The machine's price orders offers whose total is unknown or equal.
        """
        unknown = math.inf
        return (
            unknown if self.hourly is None else self.hourly,
            unknown if self.machine_price is None else self.machine_price,
        )

    @property
    def hourly_on_demand(self) -> float | None:
        """Return the total hourly cost on demand, None if a part is unknown."""
        return costs.total(
            [self.machine_on_demand, *(cost.hourly for cost in self.extras)]
        )

    @property
    def hourly_stopped(self) -> float | None:
        """Return the hourly cost of a stopped box, which is the cost of its disk."""
        return costs.total(cost.hourly for cost in self.extras if costs.is_disk(cost))

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Offer:
        """
        Return the offer that `dataclasses.asdict` has converted to *record*.

        Raises:
            TypeError: Another version of onebox, with other fields, made *record*.
        """
        values = _with_new_names(record)
        return cls(**{**values, "extras": costs.from_json(record.get("extras"))})


@dataclass(frozen=True)
class Image:
    """
    A saved environment.

    *recipe* is the hash of its recipe, "" for an image saved by hand. *stored* is the
    number of bytes that are billed, or an upper bound of that number if *at_most* is
    true. *disk* is the size in bytes of the smallest disk that can hold the image, 0 if
    that is unknown. *places* are the regions that hold the image; an empty tuple means
    all regions. *base* is the base image that the image was built on, "" if that was
    not recorded.
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
    """An ed25519 host key: both halves are texts in OpenSSH's own formats."""

    private: str
    public: str


@dataclass(frozen=True)
class BootConfig:
    """
    The configuration that a box needs at its first boot, before any client connects.

    Times are in seconds. At *deadline* (epoch) the box powers itself off.
    *setup_grace* is how long the box waits for its first job. *idle_grace* is how long
    it stays up without a job or a connected client.

    *agent* is the complete agent. *seed* is a small part of the agent, which fits into
    the user data of every cloud: it enforces the deadline, and can receive the
    complete agent.
    """

    deadline: float
    setup_grace: float
    idle_grace: float
    agent: bytes = field(repr=False)
    seed: bytes = field(repr=False, default=b"")


@dataclass(frozen=True)
class Request:
    """
    The arguments of a create call.

    *box* is the id of the box, and also the token that makes the call idempotent.
    *base* is the base image, used only if *image* is None. *disk* is the size of the
    disk in bytes; None means the size in the provider's settings.
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
class Proxy:
    """
    A command whose stdin and stdout are a connection to the ssh port of a box.

    *words* are the program and its arguments. *variables* are the beginnings of the
    names of the environment variables that may hold the credentials of the program.
    *refusals* is a regular expression: if it matches a message of the program, it does
    not help to wait. *install* says how to install the program.
    """

    words: tuple[str, ...]
    variables: tuple[str, ...] = ()
    refusals: str = ""
    install: str = ""

    @property
    def program(self) -> str:
        """Return the name of the program."""
        return self.words[0]


@dataclass(frozen=True)
class Box:
    """
    A box as the provider reports it now.

    *host* is empty until a starting box has an address. *jump* is the name, in the
    user's ssh configuration, of the ssh host to connect through. If *proxy* is set, ssh
    connects through that command, and *host* only names the box. *host_key* is the
    public key that the box must present. If *bootstrap_key* is true, the private half
    of that key was sent in user data, so the first connection replaces the key.

    *agent* is the absolute path of the agent on the box, and *python* the program that
    runs it. *work* is the directory of code and data, relative to the home directory.

    A box on a cluster is a folder of the user's. Its *home* is an absolute path, and ""
    means the home of the login. *user_ssh* are the options of the user's own ssh that
    lead to *host*, the login node; they are empty for a box that has a *host_key*. If
    *is_folder* is true, the box is a folder of this machine, its agent is a process of
    this machine, and *host* only names the cluster that runs its jobs.

    *why* is the reason of a stop, "" if it is unknown: "preempted", "deadline",
    "poweroff" or another. If *disk_only* is true, only the disk of a stopped box is
    left. Another machine can be started with this disk, and is then billed. If *rescue*
    is true, the machine is smaller than requested and serves only to read such a disk:
    no job runs on it. *notes* are sentences for the user. *identity* is what programs
    on the box may act as in the cloud, as `Provider.identity` writes it.
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
    proxy: Proxy | None = None
    bootstrap_key: bool = False
    disk_only: bool = False
    rescue: bool = False
    home: str = ""
    python: str = "python3"
    user_ssh: tuple[str, ...] = ()
    is_folder: bool = False
    identity: str = ""

    @property
    def has_address(self) -> bool:
        """Return whether it is known how to reach the box, and how to recognize it."""
        return self.is_folder or bool(self.host and (self.host_key or self.user_ssh))


@dataclass(frozen=True)
class Leftover:
    """
    A billed object of a box that still existed after a teardown.

    *hourly* is its price in USD an hour, None if that is unknown.
    """

    kind: str
    id: str
    hourly: float | None


@dataclass(frozen=True)
class FreeObject:
    """
    An object that costs nothing and belongs to an owner, but not to a single box.

    *why* is the reason why the object must stay, "" if it can be removed.
    """

    kind: str
    id: str
    place: str = ""
    why: str = ""


@dataclass(frozen=True)
class Check:
    """One line of `inv doctor`; *ok* is None if the line only informs the user."""

    name: str
    ok: bool | None
    detail: str
    next: str = ""
