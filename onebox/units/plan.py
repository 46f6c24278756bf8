"""The plan of `inv map`: which units there are, and what each of them runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebox.agent.file_names import printable
from onebox.agent.units.plan import LONGEST
from onebox.errors import ConfigError, InputError, OneboxError, StateError, UsageError
from onebox.settings.checks import InvalidValue
from onebox.settings.map_table import MapTable
from onebox.settings.parameters import MOST_UNITS, check_name
from onebox.settings.quoting import show
from onebox.settings.toml_file import FILE, error
from onebox.store.atomic_files import disk_errors, read_regular, write_atomically
from onebox.units.commands import Commands
from onebox.units.folders import Folders, unsafe_folder
from onebox.units.values import MOST_BYTES, Row, parse_over, read_csv

Source = Callable[[str], str]

# Linux starts no program with a longer argument or variable; one byte is the NUL.
MOST_UNIT_BYTES = LONGEST
# A stored plan is JSON, in which a quote or a line break has two characters.
_MOST_FILE_BYTES = 3 * MOST_BYTES
_MOST_SHOWN = 40
_FLAGS = "inv map --over=seed=1..3 -- python fit.py --seed {seed}"


@dataclass(frozen=True)
class Unit:
    """
    One unit.

    Attributes:
        number: Its number in the plan, from 1.

        command: A line for a shell, or words.

        outputs: Its folder, relative to the project, with a "/" at the end.

        values: The values of its parameters, in the order of the plan's names.
    """

    number: int
    command: str | tuple[str, ...]
    outputs: str
    values: tuple[str, ...]

    def parameters(self, names: Sequence[str]) -> dict[str, str]:
        """Return the values by the names of the parameters."""
        return dict(zip(names, self.values))

    def describe(self, names: Sequence[str]) -> str:
        """Return the values as a text for the screen, such as "seed=1 alpha=0.1"."""
        parts = []
        for name, value in zip(names, self.values):
            text = printable(value)
            if len(text) > _MOST_SHOWN:
                text = text[: _MOST_SHOWN - 1] + "…"
            parts.append(f"{name}={text}")
        return " ".join(parts)


@dataclass(frozen=True)
class UnitPlan:
    """
    All units of a run.

    Attributes:
        template: The command with its placeholders, as one text.

        names: The names of the parameters.

        units: All units, in the order of their numbers.

        root: The folder that holds the folders of all units, such as "results/".

        digest: 12 hex digits of names, commands, folders and values.
    """

    template: str
    names: tuple[str, ...]
    units: tuple[Unit, ...]
    root: str
    digest: str


def make(
    table: MapTable,
    root: Path,
    *,
    command: str = "",
    words: Sequence[str] = (),
    over: Sequence[str] = (),
    reserved: Collection[str] = (),
    source: Source | None = None,
) -> UnitPlan:
    """
    Return the plan of the units that settings and flags describe.

    Args:
        table: The settings [map].

        root: The project's folder.

        command: A line of shell that was typed, "" if there is none.

        words: The words of a command that were typed. Without *command* and *words*,
            the plan has the command of *table*.

        over: The values of --over flags. They add to the parameters of *table*, or
            replace those of the same name.

        reserved: The variables of [run] env and secrets, which are no parameters.

        source: `Settings.source`, for messages.

    Raises:
        ConfigError: There is no command, there are no parameters, or [map] is wrong.

        UsageError: What was typed is wrong.

        InputError: The file of parameters cannot be read or is wrong.
    """
    source = source or (lambda path: "default")
    names, rows = _parameters(table, root, over, reserved, source)
    commands, refuse = _commands(table, command, words, names, source)
    try:
        folders = Folders(table.outputs, names)
    except InvalidValue as problem:
        raise _error(source, "outputs", str(problem), problem.next) from None
    units: list[Unit] = []
    size = 0
    for number, row in enumerate(rows, 1):
        values = {**dict(zip(names, row)), "unit": str(number)}
        try:
            folder = folders.of_unit(number, values)
            # As in the variable, there is no "/" at the end.
            values["outputs"] = folder.rstrip("/")
        except InvalidValue as problem:
            raise _error(source, "outputs", str(problem), problem.next) from None
        try:
            unit = Unit(number, commands.of_unit(number, values), folder, row)
            size += _size(unit, names)
        except InvalidValue as problem:
            raise refuse(str(problem), problem.next) from None
        if size > MOST_BYTES:
            raise ConfigError(
                f"the commands and values of the units have over {MOST_BYTES >> 20} MB",
                next="use names of files, or numbers, in place of long texts",
            )
        units.append(unit)
    return UnitPlan(
        commands.text, names, tuple(units), folders.root, unit_digest(names, units)
    )


def _parameters(
    table: MapTable,
    root: Path,
    over: Sequence[str],
    reserved: Collection[str],
    source: Source,
) -> tuple[Row, Iterable[Row]]:
    """Return the names of the parameters, and the values of each unit."""
    typed: dict[str, Row] = {}
    for text in over:
        name, values = parse_over(text)
        if name in typed:
            raise UsageError(
                f"--over gives {name} twice", next=f"--over={name}=VALUE,VALUE"
            )
        if name in reserved:
            raise UsageError(f"--over={name}: {name} is a variable of [run] too")
        typed[name] = values
    if table.params and typed:
        raise UsageError(
            f"--over and [map] params = {show(table.params)} exclude each other",
            next='set params = "" in [map], or leave out --over',
        )
    if table.params:
        place = source("map.params")
        place = "" if place == "default" else f"{place}: [map] params: "
        names, rows = read_csv(root / table.params, table.params, place)
        for name in names:
            if name in reserved:
                raise InputError(f"{table.params}: {name} is a variable of [run] too")
        return names, rows
    merged = {**table.over, **typed}
    if not merged:
        raise ConfigError(
            "nothing to map: there are no parameters",
            next=f"set [map] over or params in {FILE}, or {_FLAGS}",
        )
    count = math.prod(map(len, merged.values()))
    if count > MOST_UNITS:
        product = " x ".join(f"{len(values):,}" for values in merged.values())
        problem = f"{product} = {count:,} units; at most {MOST_UNITS:,} are possible"
        next = "use fewer values, or let one command do several of them"
        if typed:
            raise error("--over", "", problem, next)
        raise _error(source, "over", problem, next)
    return tuple(merged), itertools.product(*merged.values())


def _error(source: Source, key: str, problem: str, next: str = "") -> ConfigError:
    """Return an error that names a key of [map] and where it is set."""
    place = source(f"map.{key}")
    return error("" if place == "default" else place, f"[map] {key}", problem, next)


def _commands(
    table: MapTable, line: str, words: Sequence[str], names: Row, source: Source
) -> tuple[Commands, Callable[[str, str], OneboxError]]:
    """Return the commands, and a function that makes the error for a mistake."""
    typed = bool(line or words)

    def refuse(problem: str, next: str) -> OneboxError:
        if typed:
            return UsageError(f"the command: {problem}", next=next)
        return _error(source, "command", problem, next)

    if not typed:
        line = table.command or ""
    if not (line + "".join(words)).strip():
        raise ConfigError(
            "nothing to map: there is no command",
            next=f"set [map] command in {FILE}, or {_FLAGS}",
        )
    try:
        return Commands(line, words, names), refuse
    except InvalidValue as problem:
        raise refuse(str(problem), problem.next) from None


def _size(unit: Unit, names: Row) -> int:
    """
    Return the number of bytes of a unit's texts.

    Raises:
        InvalidValue: No program can be started with the command or a value.
    """
    line = unit.command
    text = line if isinstance(line, str) else shlex.join(line)
    size = len(json.dumps({"parameters": unit.parameters(names), "command": text}))
    if size > MOST_UNIT_BYTES:
        raise InvalidValue(
            f"unit {unit.number} has a command and values of more than "
            f"{MOST_UNIT_BYTES >> 10} KB as JSON",
            next="write them to a file of the project, and pass the name of the file",
        )
    return size + len(json.dumps(unit.outputs))


def unit_digest(names: Sequence[str], units: Iterable[Unit]) -> str:
    """Return 12 hex digits that differ if any command, folder or value differs."""
    whole = [names, [[unit.command, unit.outputs, unit.values] for unit in units]]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:12]


def to_request(
    plan: UnitPlan, numbers: Iterable[int], *, run: str, table: MapTable
) -> dict[str, Any]:
    """
    Return the "units" of the request that starts a job.

    Args:
        numbers: The numbers of the units that the job shall run.

        run: The id of the run.
    """
    chosen = [plan.units[number - 1] for number in numbers]
    return {
        "run": run,
        "total": len(plan.units),
        "cpus": table.cpus,
        "memory": table.memory or 0,
        "retries": table.retries,
        "names": list(plan.names),
        "units": [[u.number, u.command, u.outputs, list(u.values)] for u in chosen],
    }


def save(path: Path, plan: UnitPlan) -> None:
    """
    Write a plan to a file.

    Raises:
        StateError: The file cannot be written.
    """
    text = json.dumps(to_document(plan), ensure_ascii=False)
    with disk_errors(path):
        write_atomically(path, text.encode())


def to_document(plan: UnitPlan) -> dict[str, Any]:
    """Return a plan as a JSON object."""
    return {
        "template": plan.template,
        "names": plan.names,
        "root": plan.root,
        "digest": plan.digest,
        "units": [[unit.command, unit.outputs, unit.values] for unit in plan.units],
    }


def load(path: Path) -> UnitPlan:
    """
    Return the plan that a file holds.

    Raises:
        OSError: There is no such file, or it cannot be read.

        StateError: The file is damaged.
    """
    problem = "it is too large"
    if path.stat().st_size <= _MOST_FILE_BYTES:
        try:
            return from_document(json.loads(read_regular(path)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problem = str(error)
    raise StateError(
        f"{printable(str(path))} is damaged: {printable(problem)}",
        next="remove it; inv map makes a new plan",
    )


def from_document(value: Any) -> UnitPlan:
    """
    Return the plan that a JSON object describes.

    Raises:
        ValueError, KeyError, TypeError: It is no plan.
    """
    names = _texts(value["names"])
    for name in names:
        check_name(name)
    units = []
    for number, (command, outputs, values) in enumerate(value["units"], 1):
        unit = Unit(
            number,
            command if isinstance(command, str) else _texts(command),
            _text(outputs),
            _texts(values),
        )
        if len(unit.values) != len(names) or unsafe_folder(unit.outputs):
            raise ValueError(f"unit {number} is invalid")
        units.append(unit)
    root, digest = _text(value["root"]), _text(value["digest"])
    if not 0 < len(units) <= MOST_UNITS or digest != unit_digest(names, units):
        raise ValueError("its units are not those of its digest")
    if not all(unit.outputs.startswith(root) for unit in units):
        raise ValueError("a folder is in another place")
    return UnitPlan(_text(value["template"]), names, tuple(units), root, digest)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("a list is missing")
    return tuple(map(_text, value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value
