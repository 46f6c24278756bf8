"""
The units of a job: checked when they are requested, stored, and read one at a time.

`units.json` in the job's directory is one JSON object, written with a line for each
unit. A reader keeps only the offsets of the lines in memory, so that 100,000 units
cost less than 1 MB.
"""

from __future__ import annotations

import json
import os
import shlex
from array import array
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple, Union

from ..file_names import Hostile, check_path, raw
from ..jobs.exec import VARIABLE
from ..protocol import Refused
from .share import Share

NAME = "units.json"
MOST = 100_000
MOST_CPUS = 1 << 16
MOST_RETRIES = 1000
# The parameters and the command of a unit have at most this many bytes in unit.json,
# of which a client reads 256 KiB.
LONGEST = 48 << 10


class Unit(NamedTuple):
    """
    A unit: its number in the plan, its command, and the values of its parameters.

    *command* is a line for a shell, or a list of words. *outputs* is the unit's folder,
    relative to the work directory; it ends in "/".
    """

    number: int
    command: Union[str, List[str]]
    outputs: str
    values: List[str]

    @property
    def text(self) -> str:
        """The command as one text."""
        if isinstance(self.command, str):
            return self.command
        return " ".join(map(shlex.quote, self.command))

    @property
    def commands(self) -> List[List[bytes]]:
        """The commands of which the first that exists is run."""
        if isinstance(self.command, str):
            line = raw(self.command)
            return [[b"bash", b"-c", line], [b"sh", b"-c", line]]
        return [[raw(word) for word in self.command]]


class Head(NamedTuple):
    """
    What all units of a job have in common.

    The plan of *run* has *total* units. A unit needs *cpus* CPUs and *memory* bytes
    (0: not known), and is run again up to *retries* times. *names* are the parameters.
    """

    run: str
    total: int
    cpus: int
    memory: int
    retries: int
    names: List[str]

    def parameters(self, unit: Unit) -> Dict[str, str]:
        """Return the parameters of a unit."""
        return dict(zip(self.names, unit.values))


class UnitPlan:
    """
    The units of a job, or a pool's share of them, read from the job's directory.

    Raises OSError or ValueError if the file is missing or damaged.
    """

    def __init__(self, share: Share) -> None:
        directory = share.directory
        # The file stays open, because units are read from it for as long as they run.
        self._file = open(os.path.join(directory, NAME), "rb")  # noqa: SIM115
        first = self._file.readline()
        self.head = _head(first)
        self._starts = array("Q", [len(first)])
        for line in self._file:
            if line.startswith(b"["):
                self._starts.append(self._starts[-1] + len(line))
        self._lines = range(share.first, len(self._starts) - 1, share.step)

    def __len__(self) -> int:
        return len(self._lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def unit(self, index: int) -> Unit:
        """Return the unit at *index*, which counts from 0."""
        line = self._lines[index]
        start, end = self._starts[line], self._starts[line + 1]
        return _unit(os.pread(self._file.fileno(), end - start, start))


def find(directory: str, number: int) -> Optional[Tuple[Head, Unit]]:
    """Return the unit *number* of the job in *directory*, None if it has no such."""
    try:
        with open(os.path.join(directory, NAME), "rb") as file:
            head = _head(file.readline())
            begin = b"[%d," % number
            for line in file:
                if line.startswith(begin):
                    return head, _unit(line)
    except (OSError, ValueError):
        return None
    return None


def encode(value: Any) -> bytes:
    """
    Check the units of a request, and return the contents of their file.

    Raises `Refused` if they are invalid.
    """
    if not isinstance(value, dict):
        raise Refused("argument", "units is not a table")
    head = _checked_head(value)
    units = value.get("units")
    if not isinstance(units, list) or not 0 < len(units) <= MOST:
        raise Refused("argument", "a job has 1 to %d units" % MOST)
    lines = [_checked_line(head, one) for one in units]
    if len({one[0] for one in units}) < len(units):
        raise Refused("argument", "two units have the same number")
    _check_folders([one[2] for one in units])
    first = json.dumps(head._asdict())[:-1] + ', "units": [\n'
    return (first + ",\n".join(lines) + "\n]}\n").encode("ascii")


def _head(line: bytes) -> Head:
    """Parse the first line of the file. Raises ValueError."""
    try:
        value = json.loads(line + b"]}")
        return Head(**{name: value[name] for name in Head._fields})
    except (KeyError, TypeError) as error:
        raise ValueError("%s is damaged" % NAME) from error


def _unit(line: bytes) -> Unit:
    """Parse the line of a unit. Raises ValueError."""
    try:
        return Unit(*json.loads(line.rstrip(b",\n")))
    except TypeError as error:
        raise ValueError("%s is damaged" % NAME) from error


def _checked_head(value: Dict[str, Any]) -> Head:
    run, names = value.get("run"), value.get("names")
    if not isinstance(run, str) or not 0 < len(run) <= 200 or not run.isprintable():
        raise Refused("argument", "the units belong to no run")
    _check_text("the run", run)
    if not isinstance(names, list) or not all(map(_is_parameter, names)):
        raise Refused("argument", "names has a name that no parameter can have")
    if len(set(names)) < len(names):
        raise Refused("argument", "two parameters have the same name")
    return Head(
        run=run,
        total=_number(value, "total", 1, MOST),
        cpus=_number(value, "cpus", 1, MOST_CPUS),
        memory=_number(value, "memory", 0, 1 << 62),
        retries=_number(value, "retries", 0, MOST_RETRIES),
        names=names,
    )


def _is_parameter(name: Any) -> bool:
    return (
        isinstance(name, str)
        and VARIABLE.fullmatch(name) is not None
        and not name.upper().startswith("ONEBOX_")
    )


def _number(value: Dict[str, Any], name: str, least: int, most: int) -> int:
    number = value.get(name)
    if type(number) is not int or not least <= number <= most:
        raise Refused("argument", "%s of the units cannot be %r" % (name, number))
    return number


def _checked_line(head: Head, one: Any) -> str:
    """Return the line of a unit. Raises `Refused` if the unit is invalid."""
    if not isinstance(one, list) or len(one) != 4:
        raise Refused("argument", "a unit is no list of four")
    unit = Unit(*one)
    number, command, outputs, values = unit
    if type(number) is not int or not 1 <= number <= head.total:
        raise Refused("argument", "%r is no number of a unit" % (number,))
    where = "unit %d" % number
    words = command if isinstance(command, list) else [command]
    if not words or not words[0]:
        raise Refused("argument", "%s has no command" % where)
    if not isinstance(values, list) or len(values) != len(head.names):
        raise Refused("argument", "%s has no value for each parameter" % where)
    for text in [outputs, *words, *values]:
        _check_text(where, text)
    if not outputs.endswith("/"):
        raise Refused("argument", "the folder of %s does not end in /" % where)
    try:
        check_path(raw(outputs[:-1]))
    except Hostile as error:
        raise Refused("argument", "%s: %s" % (where, error)) from error
    shown = {"parameters": head.parameters(unit), "command": unit.text}
    if len(json.dumps(shown)) > LONGEST:
        raise Refused("argument", "the command of %s is too long" % where)
    return json.dumps(unit)


def _check_text(where: str, text: Any) -> None:
    if not isinstance(text, str):
        raise Refused("argument", "%s has a value that is no text" % where)
    try:
        raw(text)
    except UnicodeEncodeError as error:
        raise Refused("argument", "%s has a value that is no text" % where) from error
    if "\0" in text:
        raise Refused("argument", "%s has a value with a NUL byte" % where)


def _check_folders(folders: List[str]) -> None:
    """Raise `Refused` if two units have the same folder, or one inside another's."""
    taken: Set[str] = set()
    for folder in folders:
        if folder in taken:
            raise Refused("argument", "two units have the folder %s" % folder)
        taken.add(folder)
    for folder in folders:
        end = folder.find("/")
        while end < len(folder) - 1:
            if folder[: end + 1] in taken:
                raise Refused("argument", "%s is inside another unit's" % folder)
            end = folder.find("/", end + 1)
