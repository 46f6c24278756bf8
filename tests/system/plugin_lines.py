"""Lines of stages that run in this process."""

from __future__ import annotations

from collections.abc import Callable

from invoke.context import Context

from onebox.plugin import Stage, context_of, stage
from onebox.tasks import ns

OURS = [task for task in ns.tasks.values() if isinstance(task, Stage)]


Inv = Callable[..., int]


class Chain:
    """Three user stages, each of which needs the one before; *ran* lists the runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.settings: list[tuple[str, str, bool | None]] = []

        @stage
        def first(c: Context) -> str:
            """Do the first thing."""
            return self._note(c, "first")

        @stage(first)
        def second(c: Context, often: int = 1) -> str:
            """Do the second thing."""
            return self._note(c, f"second{often}")

        @stage(second)
        def third(c: Context) -> str:
            """Do the third thing."""
            return self._note(c, "third")

        self.first, self.second, self.third = first, second, third
        self.all = [first, second, third]

    def _note(self, c: Context, name: str) -> str:
        self.ran.append(name)
        settings = context_of(c).settings
        self.settings.append((settings.vm, settings.name, settings.spot))
        return f"result of {name}"
