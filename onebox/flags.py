"""
The options of a command line as a whole: each flag speaks for every stage on it.

Invoke parses them with the task that they stand behind, and copies tasks and
arguments freely; so what was said is kept here until the line begins.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from invoke.exceptions import Exit
from invoke.parser.argument import Argument

from onebox.providers import PROVIDERS

OPTIONS = {
    "vm": "Size of the box: a name from onebox.toml, or the provider's own type.",
    "provider": f"Where boxes are created: {', '.join(PROVIDERS)}.",
    "name": "Which box of this project, when there are several.",
    "spot": "Take spot capacity, which is cheaper and may be taken back.",
}


class FlagStore:
    """
    What the command line under way has said so far.

    It is a module's global because Invoke copies tasks and arguments freely
    between parsing and execution; only function bodies keep their identity.
    """

    options: ClassVar[dict[str, Any]] = {}
    # onebox's own stages on it; a user's task may be called `provision` too.
    named: ClassVar[list[str]] = []

    @classmethod
    def begin(cls) -> None:
        """Forget what was said: another line begins."""
        cls.options = {}
        cls.named = []


class SharedArgument(Argument):
    """A flag that speaks for every stage on the command line."""

    def __deepcopy__(self, memo: object) -> SharedArgument:
        # Invoke copies every argument of every task twice at each start; there
        # is nothing inside this one that could be shared by mistake.
        return copy.copy(self)

    def set_value(self, value: Any, cast: bool = True) -> None:
        """Keep the value for the line. Raises Exit when it is contradicted."""
        name = str(self.names[0])
        if isinstance(value, str) and (not value or value.startswith("-")):
            # Invoke would take `--vm --dry` as the size "--dry", and run.
            raise contradiction(f"--{name} needs a value, not {value!r}")
        super().set_value(value, cast)
        seen = FlagStore.options.setdefault(name, self.value)
        if seen != self.value:
            raise contradiction(
                f"--{_flag(name, seen)} and --{_flag(name, self.value)}"
            )


class NoSpot(SharedArgument):
    """`--no-spot`: the same option, said no to."""

    def __init__(self) -> None:
        super().__init__(
            name="no-spot",
            kind=bool,
            attr_name="no_spot",
            help="Take on-demand capacity.",
        )

    def set_value(self, value: Any, cast: bool = True) -> None:
        """Keep False as the line's value of `spot`."""
        Argument.set_value(self, value, cast)
        if FlagStore.options.setdefault("spot", not value) == bool(value):
            raise contradiction("--spot and --no-spot")


def contradiction(message: str) -> Exit:
    """Return what ends a line that contradicts itself."""
    FlagStore.begin()
    return Exit(f"onebox: the line contradicts itself: {message}", code=64)


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    return f"{name}={value}"
