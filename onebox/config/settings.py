"""The settings as the rest of onebox gets them: complete, checked, unchanging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Size:
    """
    A size. *cpus* and *memory* (bytes) are needs, 0 where only types are named.

    *types* are the machine types to take, by provider, first available wins;
    where a provider has none here, the cheapest that fits the needs is meant.
    None in *spot*, *disk* (bytes) and *max_price* (USD an hour): not said.
    """

    name: str
    cpus: int
    memory: int
    spot: bool | None = None
    disk: int | None = None
    max_price: float | None = None
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """
    How the environment is made: by *packer*, by *use*, or by the rest of it.

    *size* is that of the box it is built on; what it means is `Settings.builder`.
    *vars* are variables of the Packer template.
    """

    base: str
    size: str
    setup: str | None
    python: str | None
    requirements: str | None
    packer: str | None
    use: str | None
    include: tuple[str, ...]
    env: Mapping[str, str]
    vars: Mapping[str, str]


@dataclass(frozen=True)
class Push:
    """What goes to the box; paths relative to the project."""

    code: tuple[str, ...]
    data: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """The job. *secrets* are names of variables, *cancel_grace* is in seconds."""

    command: str | None
    env: Mapping[str, str]
    secrets: tuple[str, ...]
    when: str
    cancel_grace: float


@dataclass(frozen=True)
class Fetch:
    """
    What comes back; *every* is in seconds.

    *outputs_to* is the folder it is put in, with `{name}` for the box's name; None:
    the project.
    """

    outputs: tuple[str, ...]
    checkpoints: tuple[str, ...]
    outputs_to: str | None
    every: float


@dataclass(frozen=True)
class Limits:
    """Where onebox stops by itself; money in USD, None for no limit."""

    max_hours: float
    max_cost: float | None
    max_price: float | None
    idle_minutes: float
    setup_minutes: float
    boot_minutes: float
    retries: int
    max_log: int
    spot_fallback: bool


@dataclass(frozen=True)
class Rehearse:
    """
    Faults that the local box plays, in seconds; None: does not happen.

    *disk*, in bytes, is all that its home directory holds.
    """

    boot_delay: float | None = None
    notice_after: float | None = None
    notice_seconds: float = 30.0
    drop_after: float | None = None
    drop_every: float | None = None
    stall_after: float | None = None
    stall_seconds: float = 20.0
    die_after: float | None = None
    host_key_after: float | None = None
    disk: int | None = None


@dataclass(frozen=True)
class Local:
    """The box on this machine."""

    read: tuple[str, ...]
    rehearse: Rehearse


@dataclass(frozen=True)
class AWS:
    """Amazon EC2; *disk* in bytes, *region* None: what AWS's own settings say."""

    region: str | None
    regions: tuple[str, ...]
    zones: tuple[str, ...]
    ssh_cidr: str | None
    allow_world_ssh: bool
    private: bool
    jump: str | None
    subnet: str | None
    security_group: str | None
    disk: int
    disk_type: str


@dataclass(frozen=True)
class GCP:
    """Google Compute Engine; *disk* in bytes."""

    project: str | None
    region: str
    regions: tuple[str, ...]
    zones: tuple[str, ...]
    ssh_cidr: str | None
    allow_world_ssh: bool
    private: bool
    jump: str | None
    network: str
    subnet: str | None
    disk: int
    disk_type: str
    endpoint: str | None
    billing_endpoint: str | None


@dataclass(frozen=True)
class DigitalOcean:
    """
    DigitalOcean, where nothing but a call of its API ends a box for good.

    *destroy_token* is the name of the variable that holds a token for that.
    """

    region: str
    regions: tuple[str, ...]
    ssh_cidr: str | None
    allow_world_ssh: bool
    private: bool
    jump: str | None
    vpc: str | None
    accept_no_watchdog: bool
    destroy_token: str | None


@dataclass(frozen=True)
class Settings:
    """
    Everything the user has said, completed by the defaults.

    *vm* is the size as it was written, *size* what it means; *spot* what was
    said for the whole line, `wants_spot` what follows from it and the size.
    *builder* is the size that images are built on.
    """

    root: Path
    provider: str
    vm: str
    project: str
    name: str
    spot: bool | None
    size: Size
    builder: Size
    sizes: Mapping[str, Size]
    image: Image
    push: Push
    run: Run
    fetch: Fetch
    limits: Limits
    local: Local
    aws: AWS
    gcp: GCP
    digitalocean: DigitalOcean
    sources: Mapping[str, str] = field(compare=False, repr=False)

    @property
    def wants_spot(self) -> bool:
        """Whether the box is to be spot capacity."""
        return bool(self.size.spot if self.spot is None else self.spot)

    def source(self, path: str) -> str:
        """
        Tell where a setting comes from.

        Returns "--vm", "ONEBOX_VM", "onebox.toml:3" or "default", for a path such
        as "vm", "limits.max_hours" or "vm.large.cpus".
        """
        return self.sources.get(path, "default")
