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
from typing import Any

from onebox.providers import CLOUDS, PROVIDERS
from onebox.settings.checks import (
    Between,
    Matching,
    OneOf,
    bytes_from,
    cloud_tags,
    distinct,
    is_name,
    is_web_address,
    not_empty,
    one_line,
)
from onebox.settings.fields import (
    Key,
    ProviderTable,
    Table,
    keys_of,
    setting,
    subtable,
)
from onebox.settings.job_tables import FetchTable, ImageTable, PushTable, RunTable
from onebox.settings.kinds import (
    BOOLEAN,
    BYTES,
    INTEGER,
    NUMBER,
    STRING,
    STRING_OR_STRINGS,
    STRING_TABLE,
)
from onebox.settings.map_table import MapTable
from onebox.settings.units import GB

# The user-wide file cannot hold these settings and tables, because each of them belongs
# to one project.
OF_ONE_PROJECT = frozenset({"project", "name", "image", "push", "run", "map", "fetch"})

# These variables are read by other parts of onebox and are not settings.
RESERVED = (
    "ONEBOX_STATE",
    "ONEBOX_IDENTITY",
    "ONEBOX_CONFIG",
    "ONEBOX_PROFILE",
    "ONEBOX_LOCAL_ROOT",
    "ONEBOX_BOX",
    "ONEBOX_JOB",
    "ONEBOX_UNIT",
    "ONEBOX_UNITS",
    "ONEBOX_UNIT_OUTPUTS",
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
    The settings of a project: all layers of `onebox.settings.load` over the defaults.

    *vm* is the text by which the user chose the size, and *size* is that size.
    *builder_size* is the size of the boxes that build images. *providers* holds each
    provider's own table. *sources* maps the full name of each setting that was given to
    the place where it was given, *given* to its merged `layers.Value`.
    """

    root: Path
    size: Size
    builder_size: Size
    sizes: Mapping[str, Size]
    providers: Mapping[str, ProviderTable]
    sources: Mapping[str, str] = field(compare=False, repr=False)
    # The values may be secrets, so they are never printed.
    given: Mapping[str, Any] = field(compare=False, repr=False)
    config_file: str = field(compare=False)
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
    tags: Mapping[str, str] = setting(
        STRING_TABLE,
        {},
        '{ cost-center = "42" }',
        "Tags of all cloud objects.",
        cloud_tags,
    )
    image: ImageTable = subtable(ImageTable)
    push: PushTable = subtable(PushTable)
    run: RunTable = subtable(RunTable)
    map: MapTable = subtable(MapTable)
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

        Returns "--vm", "ONEBOX_VM", "profile gpu (onebox.toml:9)", "onebox.toml:3" or
        "default", for a path such as "vm", "limits.max_hours" or "size.large.cpus".
        """
        return self.sources.get(path, "default")

    def overrides_file(self, path: str) -> bool:
        """Return whether a flag, a variable or a profile sets a setting."""
        return self.source(path).startswith(("--", "ONEBOX_", "profile "))


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
