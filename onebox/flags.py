"""
Define the flags that every stage takes, such as `--vm`.

Each has one value for the whole command line.

Invoke parses a flag together with the task that it follows, and copies tasks and
arguments between parsing and execution. The values are therefore kept in `FlagStore`
until the first stage runs.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple

from invoke.exceptions import Exit
from invoke.parser.argument import Argument

from onebox.providers import CLOUDS, PROVIDERS

SHARED_FLAGS = {
    "vm": "Size of the box: a name from onebox.toml, or the provider's own type.",
    "provider": f"Where to create the box: {', '.join(PROVIDERS)}.",
    "name": "Name of the box, for a project with several boxes.",
    "profile": "Profile of onebox.toml: [profile.gpu] is --profile=gpu.",
    "spot": "Use spot capacity: cheaper, but the provider may take the box back.",
}

# Values of flags, for the message about a flag without one.
EXAMPLES = {
    "--as": "with-pytorch",
    "--boxes": "4",
    "--command": "'python job.py'",
    "--file": "job.sbatch",
    "--forward": "8888",
    "--into": "results-2",
    "--job": "20261112-120000-abcd",
    "--limit": "50",
    "--over": "seed=1..50",
    "--unit": "17",
    "--name": "second",
    "--profile": "gpu",
    "--provider": CLOUDS[0],
    "--since": "10m",
    "--tail": "100",
    "--to": "slurm",
    "--vm": "large",
}


class Mode(NamedTuple):
    """
    What may stand beside a flag that changes what its task does.

    Attributes:
        beside: The task's own flags that may; None means all.

        command: Whether a command of the user may follow.

        without: The flags that may not.
    """

    beside: tuple[str, ...] | None = ()
    command: bool = False
    without: tuple[str, ...] = ()


# For each of onebox's own stages, the flags that change what it does. "" is the stage
# without such a flag. `contradictions` refuses a line with anything else.
MODES: dict[str, dict[str, Mode]] = {
    "image": {
        "": Mode(("rebuild", "keep", "yes")),
        "from-box": Mode(("as", "yes")),
        "list": Mode(("json",)),
        "prune": Mode(("as", "all", "yes")),
    },
    "run": {"command": Mode(None)},
    "map": {
        "command": Mode(None),
        "again": Mode(None, command=True, without=("failed",)),
        "boxes": Mode(
            (
                *("over", "failed", "again", "limit", "command"),
                *("keep", "yes", "into"),
            ),
            command=True,
        ),
    },
    "logs": {"unit": Mode(("tail", "follow", "job"))},
    "exec": {"command": Mode(None)},
    "plan": {"command": Mode(None), "graph": Mode(("json",))},
    "teardown": {"all": Mode(("discard-outputs", "yes"), without=("name",))},
    "ssh": {"install": Mode(), "uninstall": Mode()},
    "cleanup": {"print-cron": Mode()},
    "doctor": {"policy": Mode(), "settings": Mode(("json",))},
    "init": {"example": Mode()},
}


class FlagStore:
    """
    The shared flags of the command line that Invoke is parsing.

    The values live on the class because no object survives from parsing to
    execution: Invoke copies tasks and arguments.
    """

    values: ClassVar[dict[str, Any]] = {}

    @classmethod
    def clear(cls) -> None:
        """Forget all values, before another command line is parsed."""
        cls.values = {}

    @classmethod
    def take(cls) -> dict[str, Any]:
        """
        Return the flag values collected so far and clear them.

        The next command line then starts without flags.
        """
        values = cls.values
        cls.clear()
        return values


class SharedArgument(Argument):
    """
    A flag whose value holds for every stage on the command line.

    Args:
        stage: The stage that the flag follows.
    """

    def __init__(self, *, stage: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.stage = stage

    def __deepcopy__(self, memo: object) -> SharedArgument:
        # Invoke deep-copies every argument of every task twice at each start.
        # The attributes of this class are immutable, so a shallow copy is enough.
        return copy.copy(self)

    def set_value(self, value: Any, cast: bool = True) -> None:
        """
        Store the value for the command line.

        Raises:
            Exit: The flag has no value, or the command line has two values for it.
        """
        name = str(self.names[0])
        if isinstance(value, str) and (not value or value.startswith("-")):
            # Invoke would parse `--vm --dry` as the size "--dry", and run the job.
            example = f"--{name}={EXAMPLES.get(f'--{name}', '…')}"
            raise usage_exit(f"--{name} needs a value, for example {example}")
        super().set_value(value, cast)
        first = FlagStore.values.setdefault(name, self.value)
        if first != self.value:
            raise usage_exit(
                f"conflicting flags: --{_spelled(name, first)} and "
                f"--{_spelled(name, self.value)}"
            )


class NoSpot(SharedArgument):
    """The flag `--no-spot`, which sets `spot` to False."""

    def __init__(self, stage: Any = None) -> None:
        super().__init__(
            stage=stage,
            name="no-spot",
            kind=bool,
            attr_name="no_spot",
            help="Use on-demand capacity.",
        )

    def set_value(self, value: Any, cast: bool = True) -> None:
        """
        Store False as the value of `spot` for the command line.

        Raises:
            Exit: The command line also has the flag `--spot`.
        """
        Argument.set_value(self, value, cast)
        if FlagStore.values.setdefault("spot", not value) == bool(value):
            raise usage_exit("conflicting flags: --spot and --no-spot")


def usage_exit(message: str) -> Exit:
    """Return the exception that ends a wrong command line with exit code 64."""
    FlagStore.clear()
    return Exit(f"onebox[64]: {message}", code=64)


def _spelled(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    return f"{name}={value}"
