"""
Declare a setting on the field of a frozen dataclass that holds it.

The field carries everything about the setting: kind, default, example, help text and
checks. Validation, the names of ONEBOX_* variables, onebox.toml.example and the JSON
Schema read it from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onebox.settings.checks import Check
from onebox.settings.kinds import Kind

_KEY = "onebox"


class Table:
    """Base class of onebox.toml's tables; each is a frozen dataclass of settings."""

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict if two settings, each of them valid, exclude each other."""


@dataclass(frozen=True)
class ProviderTable(Table):
    """
    The table of one provider.

    *tags* are the user's tags, the table [tags] of onebox.toml. The provider sets them
    in each call that creates an object which can have tags. *identity_setting* is the
    name of the setting for `identity`, "" if the provider has none.
    """

    identity_setting: ClassVar[str] = ""

    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Return what programs on a new box may act as in the cloud, "" for nothing."""
        return ""

    def check_tags(self) -> None:
        """Raise Conflict, with a tag's key, if the provider would refuse the tag."""


class Conflict(ValueError):
    """The value of *key* is in conflict with another setting of its table."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key
        self.problem = problem


@dataclass(frozen=True)
class Key:
    """
    One setting: its place in onebox.toml, and what its field declares.

    Attributes:
        table: The table that holds the setting. "" means the top of the file, "size.*"
            the table of any size.

        default: The value that the setting has if it is not given.

        example: An example of a value, as TOML writes it.

        help: One sentence for onebox.toml.example.

        blank: Whether "" in onebox.toml means "not set".

        secret: Whether the value may be a secret. Then its variable may hold one, but
            onebox.toml may not, and no message contains the value.

        of_user: Whether the project cannot give the value, but only the user, in the
            user-wide file or a variable: credentials of the user are sent to the place
            that it names, or it names a credential. A cloned project may hold any text.
    """

    table: str
    name: str
    kind: Kind
    default: object
    example: str
    help: str
    checks: tuple[Check, ...]
    blank: bool = False
    secret: bool = False
    of_user: bool = False

    @property
    def path(self) -> str:
        """Return the full name, such as "limits.max_hours"."""
        return f"{self.table}.{self.name}" if self.table else self.name

    @property
    def variable(self) -> str:
        """Return the ONEBOX_* variable of the setting, "" if it has no variable."""
        if not self.kind.scalar or self.table == "size.*":
            return ""
        return "ONEBOX_" + self.path.replace(".", "_").upper()


def setting(
    kind: Kind,
    default: object,
    example: str,
    help: str,
    *checks: Check,
    blank: bool = False,
    secret: bool = False,
    of_user: bool = False,
) -> Any:
    """Return a dataclass field that declares a setting; see `Key`."""
    key = Key("", "", kind, default, example, help, checks, blank, secret, of_user)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata={_KEY: key})
    return dataclasses.field(default=default, metadata={_KEY: key}, repr=not secret)


def subtable(table: type[Table]) -> Any:
    """Return a dataclass field that holds a table inside a table."""
    return dataclasses.field(default_factory=table, metadata={_KEY: table})


def keys_of(table: type, name: str = "") -> Iterator[Key]:
    """Yield the settings of a table, then the settings of the tables inside it."""
    inner = []
    for field in dataclasses.fields(table):
        declared = field.metadata.get(_KEY)
        if isinstance(declared, Key):
            yield dataclasses.replace(declared, table=name, name=field.name)
        elif declared is not None:
            inner.append((declared, f"{name}.{field.name}" if name else field.name))
    for declared, path in inner:
        yield from keys_of(declared, path)


def build(
    table: type, values: Mapping[str, object], name: str = "", **more: Any
) -> Any:
    """
    Return an instance of a table.

    Args:
        values: The values of the settings that are given, by the settings' full names.
            All other settings get their defaults.

        name: The table's own full name.

        more: The values of the table's fields that are not settings.
    """
    found: dict[str, Any] = dict(more)
    for field in dataclasses.fields(table):
        declared = field.metadata.get(_KEY)
        path = f"{name}.{field.name}" if name else field.name
        if isinstance(declared, Key):
            if path in values:
                found[field.name] = values[path]
        elif declared is not None:
            found[field.name] = build(declared, values, path)
    return table(**found)
