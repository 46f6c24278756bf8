"""
Declare the settings: one frozen class for each table of onebox.toml.

Each field declares its setting (see `fields`). The tables of the providers are in
their own packages; `onebox.providers.PROVIDERS` names them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onebox.providers import CLOUDS, PROVIDERS
from onebox.settings.checks import (
    Between,
    Matching,
    OneOf,
    bytes_from,
    distinct,
    environment,
    in_project,
    is_name,
    is_variable,
    is_web_address,
    job_output,
    not_empty,
    one_line,
    outputs_folder,
    packer_variables,
    seconds_between,
)
from onebox.settings.fields import (
    Conflict,
    Key,
    Table,
    keys_of,
    setting,
    subtable,
)
from onebox.settings.kinds import (
    BOOLEAN,
    BYTES,
    DURATION,
    INTEGER,
    NUMBER,
    STRING,
    STRING_OR_STRINGS,
    STRING_TABLE,
    STRINGS,
)
from onebox.settings.units import GB

# These variables are read by other parts of onebox and are not settings.
RESERVED = (
    "ONEBOX_STATE",
    "ONEBOX_IDENTITY",
    "ONEBOX_CONFIG",
    "ONEBOX_LOCAL_ROOT",
    "ONEBOX_BOX",
    "ONEBOX_JOB",
    # The command of [notify] gets these, and may itself run onebox.
    "ONEBOX_CAUSE",
    "ONEBOX_COMMAND",
    "ONEBOX_EXIT",
    "ONEBOX_SECONDS",
    "ONEBOX_TITLE",
)

_USD = Between(0.01, 1_000_000, expected="0.01 or more")
_MINUTES_OF_A_DAY = Between(1, 1440)
_HOURS = Between(
    10 / 60, 14 * 24, expected='0.17 (10 minutes) to 336 (14 days); there is no "off"'
)
# This matches the value of [image] python, which uv receives: a version, a range of
# versions, or another implementation of Python with its version.
_PYTHON = r"(?:[a-z]+@?)?[<>=~!]*[0-9][0-9A-Za-z.,<>=~!*]*"
_BASES = ("ubuntu-22.04", "ubuntu-24.04", "debian-12", "debian-13")


@dataclass(frozen=True)
class Size(Table):
    """
    A size: one [size.NAME] of onebox.toml, or a built-in one.

    *cpus* and *memory* (bytes) are requirements; they are 0 if the size only lists
    machine types. *types* maps a provider to its machine types, of which the first
    available one is used. A provider without an entry offers the cheapest type that
    meets the requirements. *disk* is in bytes and *max_price* in USD an hour; None
    means that the setting is not given.
    """

    name: str
    cpus: int = setting(
        INTEGER, 0, "64", "The minimum number of vCPUs.", Between(1, 2048)
    )
    memory: int = setting(
        BYTES,
        0,
        '"256 GB"',
        "The minimum amount of memory.",
        bytes_from(GB // 8),
    )
    spot: bool | None = setting(
        BOOLEAN, None, "true", "Use spot capacity for this size; false if not set."
    )
    disk: int | None = setting(
        BYTES,
        None,
        '"500 GB"',
        "The disk; that of the provider's table if not set.",
        bytes_from(8 * GB),
    )
    max_price: float | None = setting(
        NUMBER, None, "4.0", "Refuse offers above this price an hour, in USD.", _USD
    )
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


# The sizes that exist without any [size.NAME] table.
SIZES = (
    Size("small", 4, 16 * GB),
    Size("medium", 16, 64 * GB),
    Size("large", 64, 256 * GB),
    Size("xlarge", 64, 512 * GB),
)


@dataclass(frozen=True)
class ImageTable(Table):
    """
    The environment of the job.

    *packer* builds it, or *setup*, *python* and *requirements* build it, or *use* names
    an image that exists already. *size* names the size of the box that builds the
    image; `Settings.builder_size` is that size. *vars* are the variables of the Packer
    template.
    """

    base: str = setting(
        STRING,
        "ubuntu-24.04",
        '"debian-12"',
        "The operating system of the environment.",
        OneOf(_BASES),
    )
    size: str = setting(
        STRING,
        "small",
        '"small"',
        "The size of the box that builds it.",
        not_empty,
        one_line,
    )
    setup: str | None = setting(
        STRING,
        None,
        '"setup.sh"',
        "A script that builds the environment, run once.",
        in_project,
        blank=True,
    )
    python: str | None = setting(
        STRING,
        None,
        '"3.12"',
        "The Python of the job, in ~/.venv; installed after setup.",
        Matching(_PYTHON, "a version of Python such as 3.12"),
        blank=True,
    )
    requirements: str | None = setting(
        STRING,
        None,
        '"requirements.txt"',
        "Its packages: such a list, pyproject.toml or uv.lock.",
        in_project,
        blank=True,
    )
    packer: str | None = setting(
        STRING,
        None,
        '"image.pkr.hcl"',
        "Instead: a Packer template that builds it.",
        in_project,
        blank=True,
    )
    use: str | None = setting(
        STRING,
        None,
        '"ami-0abc1234"',
        "Instead: a finished image, by the provider's own id.",
        one_line,
        blank=True,
    )
    include: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["requirements.txt"]',
        "Files it needs; a change of one builds a new image.",
        in_project,
        distinct,
    )
    env: Mapping[str, str] = setting(
        STRING_TABLE,
        {},
        '{ PIP_NO_CACHE_DIR = "1" }',
        "Variables of the set-up script, and of uv.",
        environment,
    )
    vars: Mapping[str, str] = setting(
        STRING_TABLE,
        {},
        '{ release = "2026.1" }',
        "Variables of the Packer template.",
        packer_variables,
    )

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict for two sources of the image, or *vars* without *packer*."""
        built = [
            key for key in ("setup", "python", "requirements") if getattr(self, key)
        ]
        ways = [*built[:1], *(key for key in ("packer", "use") if getattr(self, key))]
        if len(ways) > 1:
            raise Conflict(ways[1], f"excludes {ways[0]}: an image is built in one way")
        if self.vars and not self.packer:
            raise Conflict("vars", "needs a Packer template; set [image] packer")


@dataclass(frozen=True)
class PushTable(Table):
    """The files that are copied to the box; paths are relative to the project."""

    code: tuple[str, ...] = setting(
        STRINGS,
        (".",),
        '["."]',
        "Copy the files below these that git would track.",
        in_project,
        distinct,
    )
    data: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["data/"]',
        "Copy all files below these, ignored by git or not.",
        in_project,
        distinct,
    )


@dataclass(frozen=True)
class RunTable(Table):
    """The job; *secrets* are names of variables, *cancel_grace* is in seconds."""

    command: str | None = setting(
        STRING, None, '"python train.py"', "The job: a line of shell.", not_empty
    )
    env: Mapping[str, str] = setting(
        STRING_TABLE,
        {},
        '{ OMP_NUM_THREADS = "64" }',
        "Variables of the job.",
        environment,
    )
    secrets: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["HF_TOKEN"]',
        "Variables whose values are for the job, never on disk.",
        is_variable,
        distinct,
    )
    when: str = setting(
        STRING,
        "always",
        '"changed"',
        '"changed": only after a change of command, code, data or image.',
        OneOf(("always", "changed")),
    )
    cancel_grace: float = setting(
        DURATION,
        30.0,
        '"30 s"',
        "The time a cancelled job has to end by itself.",
        seconds_between(0, 3600),
    )

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict for a variable that is both public and secret."""
        for name in self.secrets:
            if name in self.env:
                raise Conflict("secrets", f"{name} is in [run] env too")


@dataclass(frozen=True)
class FetchTable(Table):
    """
    The files that are copied back; *every* is in seconds.

    *outputs_to* is the folder that receives the outputs, in which `{name}` stands for
    the box's name. None means the project itself.
    """

    outputs: tuple[str, ...] = setting(
        STRINGS,
        ("results/",),
        '["results/"]',
        "The outputs, fetched when the job has ended.",
        job_output,
        distinct,
    )
    checkpoints: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["ckpt/"]',
        "The outputs that are fetched during the job too.",
        job_output,
        distinct,
    )
    outputs_to: str | None = setting(
        STRING,
        None,
        '"runs/{name}"',
        "The folder for outputs, if not the project; {name} is the box's.",
        outputs_folder,
    )
    every: float = setting(
        DURATION,
        300.0,
        '"5 min"',
        "The time between two fetches of checkpoints.",
        seconds_between(1, 86400),
    )


@dataclass(frozen=True)
class LimitsTable(Table):
    """The limits at which onebox stops. Money is in USD; None means no limit."""

    max_hours: float = setting(
        NUMBER, 8.0, "8", "The deadline: the box powers itself off.", _HOURS
    )
    max_cost: float | None = setting(
        NUMBER, None, "20.0", "Refuse a box that can cost more by then, in USD.", _USD
    )
    max_price: float | None = setting(
        NUMBER, None, "4.0", "Refuse a box that costs more an hour, in USD.", _USD
    )
    idle_minutes: float = setting(
        NUMBER,
        30.0,
        "30",
        "A box without job and connection ends after this time.",
        _MINUTES_OF_A_DAY,
    )
    setup_minutes: float = setting(
        NUMBER,
        45.0,
        "45",
        "The time for a set-up, and until the first job starts.",
        _MINUTES_OF_A_DAY,
    )
    boot_minutes: float = setting(
        NUMBER, 10.0, "10", "The time until a new box answers.", Between(1, 120)
    )
    retries: int = setting(
        INTEGER, 2, "2", "How often a run restarts after a preemption.", Between(0, 100)
    )
    max_log: int = setting(
        BYTES,
        5 * GB,
        '"5 GB"',
        "The box keeps only start and end of a longer log.",
        bytes_from(1 << 20),
    )
    spot_fallback: bool = setting(
        BOOLEAN, False, "true", "Use on-demand capacity if there is no spot capacity."
    )


@dataclass(frozen=True)
class NotifyTable(Table):
    """How the user learns that a run has ended; *url* may contain a token."""

    bell: bool = setting(
        BOOLEAN, True, "false", "Ring the terminal's bell after a run of 10 s or more."
    )
    command: str | None = setting(
        STRING,
        None,
        '"notify-send onebox"',
        "Run this shell line here; it reads the receipt as JSON.",
        not_empty,
    )
    url: str | None = setting(
        STRING,
        None,
        '"https://example.com/hook"',
        "Post the receipt as JSON; ONEBOX_NOTIFY_URL may hold a token.",
        is_web_address,
        secret=True,
    )


@dataclass(frozen=True)
class Settings(Table):
    """
    The settings of a project: flags, variables and onebox.toml over the defaults.

    *vm* is the text by which the user chose the size, and *size* is that size.
    *builder_size* is the size of the boxes that build images. *providers* holds each
    provider's own table. *sources* maps the full name of each setting that was given to
    the place where it was given.
    """

    root: Path
    size: Size
    builder_size: Size
    sizes: Mapping[str, Size]
    providers: Mapping[str, Table]
    sources: Mapping[str, str] = field(compare=False, repr=False)
    provider: str = setting(
        STRING,
        "local",
        f'"{CLOUDS[0]}"',
        f"Where boxes are created: {', '.join(PROVIDERS)}.",
        OneOf(tuple(PROVIDERS)),
    )
    vm: str = setting(
        STRING,
        "small",
        '"large"',
        "The size: a [size.NAME], a cloud's machine type, or requirements.",
        not_empty,
        one_line,
    )
    project: str = setting(
        STRING,
        "",
        '"census"',
        "The name of the project; that of its folder if not set.",
        is_name,
    )
    name: str = setting(
        STRING,
        "main",
        '"main"',
        "The name of the box: a project has one box of each name.",
        is_name,
    )
    spot: bool | None = setting(
        BOOLEAN, None, "true", "Use spot capacity; if not set, as the size does."
    )
    image: ImageTable = subtable(ImageTable)
    push: PushTable = subtable(PushTable)
    run: RunTable = subtable(RunTable)
    fetch: FetchTable = subtable(FetchTable)
    limits: LimitsTable = subtable(LimitsTable)
    notify: NotifyTable = subtable(NotifyTable)

    @property
    def wants_spot(self) -> bool:
        """Return whether the box uses spot capacity."""
        return bool(self.size.spot if self.spot is None else self.spot)

    def source(self, path: str) -> str:
        """
        Return where a setting comes from.

        Returns "--vm", "ONEBOX_VM", "onebox.toml:3" or "default", for a path such
        as "vm", "limits.max_hours" or "size.large.cpus".
        """
        return self.sources.get(path, "default")

    def overrides_file(self, path: str) -> bool:
        """Return whether a flag or a variable sets a setting."""
        return self.source(path).startswith(("--", "ONEBOX_"))


@functools.lru_cache(maxsize=1)
def keys() -> Mapping[str, Key]:
    """
    Return every setting by its full name, in the order of onebox.toml.example.

    The settings of a size have names such as "size.*.cpus". This function imports the
    settings (not the SDKs) of all providers.
    """
    top = list(keys_of(Settings))
    declared = [key for key in top if not key.table]
    declared += size_keys().values()
    declared += [key for key in top if key.table]
    for row in PROVIDERS.values():
        declared += keys_of(row.settings_class(), row.name)
    return {key.path: key for key in declared}


@functools.lru_cache(maxsize=1)
def size_keys() -> Mapping[str, Key]:
    """Return the settings of a [size.NAME] table by their names."""
    declared = list(keys_of(Size, "size.*"))
    for row in PROVIDERS.values():
        if row.machine_type:
            is_type = Matching(row.machine_type, f"a machine type of {row.name}")
            help = f"Machine types of {row.title}; the first available one is used."
            checks = (not_empty, distinct, is_type)
            declared.append(
                Key(
                    "size.*", row.name, STRING_OR_STRINGS, (), row.example, help, checks
                )
            )
    return {key.name: key for key in declared}


def tables() -> set[str]:
    """Return the names of all tables of onebox.toml except [size.NAME]."""
    return {key.table for key in keys().values()} - {"", "size.*"}
