"""Read how the units of `map` ended, from the files that were fetched with them."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent import protocol
from onebox.agent.file_names import Hostile, check_path, printable, raw
from onebox.errors import ProtocolError
from onebox.remote.job_answers import CAUSE, MOST_UNITS, UnitProgress
from onebox.remote.json_fields import Fields

if TYPE_CHECKING:
    from onebox.units.plan import Unit, UnitPlan

# The file in the folder of a unit that tells how the unit ended.
NAME = "unit.json"
# The file beside it that holds the unit's output.
LOG = "unit.log"
# A larger file counts as damaged.
MOST_BYTES = 256 << 10
# No box has more memory, in bytes.
MOST_MEMORY = 1 << 48
# Among the outputs there may be a link to another folder, or a pipe, which never ends.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = _FLAGS | os.O_DIRECTORY


@dataclass(frozen=True)
class UnitResult:
    """
    How a unit ended.

    *code* is the exit code as a shell reports it, *cause* the reason ("exit", "signal",
    "oom", …). *started* is in epoch seconds, *memory_peak* in bytes; None means
    unknown. *last* is the last line of the unit's log, *survivors* are the commands
    that it left running, and *parameters* are pairs of a name and a value. All texts
    are escaped for a terminal.
    """

    unit: int
    run: str
    job: str
    code: int
    cause: str
    signal: int | None = None
    attempts: int = 1
    started: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float | None = None
    memory_peak: int | None = None
    last: str = ""
    survivors: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether the unit is done."""
        return self.code == 0

    def describe(self) -> str:
        """Return how the unit ended, in a few words."""
        text = self._ending()
        if self.survivors:
            names = formatting.first_names([*self.survivors])
            text += f"; ended what it left running: {names}"
        return text

    def _ending(self) -> str:
        if self.cause == "outputs-lost":
            return "its outputs were removed"
        if self.cause == "not-started":
            return "could not be started"
        text = f"exit {self.code}"
        if self.signal is not None:
            text = f"killed by {_signal_name(self.signal)}"
        elif 128 < self.code < 128 + signal.NSIG:
            # A shell exits with 128 plus the number of the signal that killed its last
            # command.
            text += f" ({_signal_name(self.code - 128)})"
        if self.cause == "oom":
            text += ": out of memory"
        elif self.cause == "disk-full":
            text += ": the box's disk is full"
        return text

    @classmethod
    def parse(cls, value: object) -> UnitResult:
        """
        Return the result that the JSON object *value* describes.

        Raises:
            ProtocolError: The object is invalid.
        """
        fields = Fields(value, NAME)
        return cls(
            unit=fields.integer("unit", least=1, most=MOST_UNITS),
            run=fields.job("run"),
            job=fields.job("job"),
            code=fields.integer("code", most=255),
            cause=fields.matching("cause", CAUSE),
            signal=fields.integer_or_none("signal", most=128),
            attempts=fields.integer("attempts"),
            started=fields.number("started"),
            seconds=fields.number("seconds"),
            cpu_seconds=fields.number_or_none("cpu_seconds"),
            memory_peak=fields.integer_or_none("memory_peak", most=MOST_MEMORY),
            last=fields.text("last"),
            survivors=fields.texts("survivors"),
            parameters=_parameters(fields),
        )


@dataclass(frozen=True)
class UnitCounts:
    """
    How far a sweep is: the number of units in *total*, and in each state.

    *done* units have exited with 0, *failed* ones have ended otherwise, and those that
    are *left* have not ended.
    """

    total: int
    done: int
    failed: int
    left: int

    @classmethod
    def of(cls, progress: UnitProgress) -> UnitCounts:
        """Return the numbers that a box has reported."""
        return cls(progress.total, progress.done, progress.failed, progress.left)

    @property
    def as_progress(self) -> UnitProgress:
        """Return the progress of a job that has ended so."""
        return UnitProgress(
            *(self.total, self.done, self.failed, 0, self.left), skipped=0, at_once=0
        )


def read(folder: Path, unit_folders: Mapping[int, str]) -> dict[int, UnitResult]:
    """
    Return the results of the units whose folders are below *folder*, by number.

    A unit is missing if its file is missing or damaged, or is that of another unit. No
    link below *folder* is followed.

    Args:
        unit_folders: The folders of the units, relative to *folder*, by number.
    """
    found: dict[int, UnitResult] = {}
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return found
    folders = _OpenFolders(top)
    try:
        for number, name in unit_folders.items():
            result = _read_unit(folders, name)
            if result is not None and result.unit == number:
                found[number] = result
    finally:
        folders.close()
    return found


def failed(results: Mapping[int, UnitResult], numbers: Iterable[int]) -> list[int]:
    """Return those of *numbers* whose units are not done, in the same order."""
    return [n for n in numbers if n not in results or not results[n].ok]


def not_done(plan: UnitPlan, results: Mapping[int, UnitResult]) -> list[int]:
    """Return the numbers of the units of a plan that are not done, ascending."""
    own = of_units(plan.names, plan.units, results)
    return failed(own, [unit.number for unit in plan.units])


def count(plan: UnitPlan, results: Mapping[int, UnitResult]) -> UnitCounts:
    """Count the units of a plan that are done, failed and left."""
    own = of_units(plan.names, plan.units, results)
    done = sum(result.ok for result in own.values())
    total = len(plan.units)
    return UnitCounts(total, done, len(own) - done, total - len(own))


def of_units(
    names: Sequence[str], units: Iterable[Unit], results: Mapping[int, UnitResult]
) -> dict[int, UnitResult]:
    """
    Return the results that belong to *units*, by number.

    A result with other parameters is left out: since that unit ran, onebox.toml may
    have given the number to another one.

    Args:
        names: The names of the parameters.
    """
    own = {}
    for unit in units:
        result = results.get(unit.number)
        if result is not None and dict(result.parameters) == {
            printable(name): printable(value) for name, value in zip(names, unit.values)
        }:
            own[unit.number] = result
    return own


class _OpenFolders:
    """
    The open folders on the way to the latest unit's folder.

    The folders of most units are in the same folder, which is opened once. *top* is the
    descriptor of the folder that holds all of them; `close` closes it too.
    """

    def __init__(self, top: int) -> None:
        self._names: list[bytes] = []
        self._fds = [top]

    def open(self, names: list[bytes]) -> int:
        """
        Return the descriptor of a folder, valid until the next call.

        Raises:
            OSError: A component of the path is missing, a link or no folder.
        """
        same = 0
        for old, new in zip(self._names, names):
            if old != new:
                break
            same += 1
        self._close_below(same)
        for name in names[same:]:
            self._fds.append(os.open(name, _FOLDER, dir_fd=self._fds[-1]))
            self._names.append(name)
        return self._fds[-1]

    def close(self) -> None:
        """Close all folders."""
        self._close_below(0)
        os.close(self._fds.pop())

    def _close_below(self, depth: int) -> None:
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._fds.pop())


def _read_unit(folders: _OpenFolders, name: str) -> UnitResult | None:
    """Return the result in the folder *name*, None if it is missing or damaged."""
    with suppress(
        OSError, UnicodeEncodeError, Hostile, protocol.Garbled, ProtocolError
    ):
        path = raw(name).rstrip(b"/")
        check_path(path)
        fd = os.open(NAME, _FLAGS, dir_fd=folders.open(path.split(b"/")))
        with os.fdopen(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            data = file.read(MOST_BYTES + 1)
        if data is not None and len(data) <= MOST_BYTES:
            return UnitResult.parse(protocol.loads(data))
    return None


def _parameters(fields: Fields) -> tuple[tuple[str, str], ...]:
    value = fields["parameters"]
    if not isinstance(value, dict):
        raise fields.invalid("parameters is no object")
    if not all(isinstance(text, str) for text in value.values()):
        raise fields.invalid("a parameter is no text")
    return tuple((printable(name), printable(text)) for name, text in value.items())


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
