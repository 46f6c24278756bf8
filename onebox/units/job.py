"""The units that one call of `map` runs, as a value and as a file of their job."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.errors import StateError
from onebox.settings.checks import is_name
from onebox.store.atomic_files import (
    disk_errors,
    private_dir,
    read_regular,
    write_atomically,
)
from onebox.store.paths import JOB
from onebox.units import plan as unit_plan
from onebox.units import results as unit_results
from onebox.units.plan import Unit, UnitPlan
from onebox.units.results import UnitResult

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.settings.map_table import MapTable

# The files in a job's folder that hold the plan of its units, and where they run.
PLAN = "units.json"
ABOUT = "units-job.json"
# The folders of the project's `.onebox` that hold the folders of jobs, and of calls of
# `map` on several boxes.
JOBS, SWEEPS = "jobs", "sweeps"
# The inputs of a sweep whose units have run with several versions of code or settings.
MIXED = "mixed"


@dataclass(frozen=True)
class UnitJob:
    """
    Some units of a plan, which one job runs.

    Attributes:
        numbers: The numbers of the units that run, ascending.

        sweep: The id of the first run of these units, "" if this is the first one. The
            results of all runs of a sweep belong together.

        is_typed: Whether the command was typed, and is not that of [map].

        has_flags: Whether the command or parameters were typed.

        inputs: The digest of what the units of the sweep run with, "" if it is unknown,
            `MIXED` if it has changed since the sweep began.

        part_of: The id of the call of `map` on several boxes of which these units are
            the part of one box, "" if they are all.

        boxes: For such a call, the name of each box and the numbers of its units.

        ended: Whether the end of all these boxes was reported to the user.

        waits_for: In a plan, the names of the boxes whose outputs are fetched first; it
            is known then which of these units are left. "" if that is known.

        folder: The folder for the outputs, as `BoxContext.outputs_folder_for_record`
            has it. *box* is the name of the box. Both are set when the job is stored.
    """

    plan: UnitPlan
    numbers: tuple[int, ...]
    sweep: str = ""
    is_typed: bool = False
    has_flags: bool = False
    inputs: str = ""
    part_of: str = ""
    boxes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    ended: bool = False
    folder: str = ""
    box: str = ""
    waits_for: str = ""

    @property
    def first_line(self) -> str:
        """Return the command of the first unit that runs."""
        command = self.units[0].command
        return command if isinstance(command, str) else formatting.shell_line(command)

    @property
    def units(self) -> list[Unit]:
        """Return the units that run."""
        return [self.plan.units[number - 1] for number in self.numbers]

    def box_of(self, number: int) -> str:
        """Return the name of the box that runs a unit, "" if none of `boxes` does."""
        return next((name for name, own in self.boxes if number in own), "")

    def has_units_of(self, plan: UnitPlan) -> bool:
        """
        Return whether *plan* has the same units.

        It may have another command, and units more or fewer at its end.
        """
        own, other = self.plan, plan
        return own.names == other.names and all(
            (one.values, one.outputs) == (two.values, two.outputs)
            for one, two in zip(own.units, other.units)
        )

    @property
    def text(self) -> str:
        """
        Return the command and the units as one text.

        The texts of two jobs are equal if both run the same units.
        """
        numbers = ",".join(map(str, self.numbers))
        digest = hashlib.sha256(f"{self.plan.digest} {numbers}".encode())
        return f"{self.plan.template}  # {self.amount}, {digest.hexdigest()[:8]}"

    @property
    def amount(self) -> str:
        """Return how many units run: "150 units", or "3 of 150 units"."""
        total = len(self.plan.units)
        if len(self.numbers) == total:
            return formatting.count(total, "unit")
        return f"{len(self.numbers):,} of {formatting.count(total, 'unit')}"

    def request(self, table: MapTable) -> Mapping[str, Any]:
        """Return the units as the agent expects them."""
        return unit_plan.to_request(
            self.plan, self.numbers, run=self.sweep, table=table
        )


def inputs_of(context: BoxContext, files: str) -> str:
    """
    Return a digest of what the result of a unit depends on, beside its command.

    Args:
        files: The digest of code and data.
    """
    settings = context.settings
    whole = [files, dict(settings.run.env), asdict(settings.image)]
    text = json.dumps(whole, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def begun(context: BoxContext, units: UnitJob, run: str, files: str) -> UnitJob:
    """
    Return the units as they are stored when they start.

    Args:
        run: The id of the run, which is that of a new sweep.

        files: The digest of the files on the box, "" if it is unknown.
    """
    inputs = inputs_of(context, files) if files else units.inputs
    if units.inputs not in ("", inputs):
        inputs = MIXED
    return replace(units, sweep=units.sweep or run, inputs=inputs)


def save(context: BoxContext, job: str, units: UnitJob) -> None:
    """
    Store the units of a job, with its box and the present folder for outputs.

    They are stored before the job starts. After each fetch the folder is stored again,
    because `fetch --into` may have named another one.

    Args:
        job: The id of the job, or of a call of `map` on several boxes.
    """
    folder = _folder(context, job, several=bool(units.boxes))
    about = {
        "sweep": units.sweep,
        "box": context.settings.name,
        "folder": context.outputs_folder_for_record,
        "inputs": units.inputs,
        "has_flags": units.has_flags,
        "numbers": units.numbers,
        "part_of": units.part_of,
        "boxes": units.boxes,
        "ended": units.ended,
    }
    with disk_errors(folder):
        private_dir(folder)
        if not (folder / PLAN).exists():
            unit_plan.save(folder / PLAN, units.plan)
        write_atomically(folder / ABOUT, json.dumps(about).encode())


def forget(context: BoxContext, job: str) -> None:
    """Remove what `save` has stored, because the job has not started."""
    for name in (ABOUT, PLAN):
        (context.job_dir(job) / name).unlink(missing_ok=True)


def load(context: BoxContext, job: str) -> UnitJob | None:
    """
    Return the units of a job, or of a call of `map` on several boxes.

    Return None if the job has no units, or if another machine has started it.
    """
    if not job:
        return None
    found = _read(_folder(context, job, several=False))
    return found or _read(_folder(context, job, several=True))


def resume(context: BoxContext, job: str) -> None:
    """Let the chain know the units of a job that an earlier command has started."""
    context.chain.units = load(context, job)


def latest(
    context: BoxContext, *, with_parts: bool = False
) -> tuple[str, UnitJob] | None:
    """
    Return the latest job of this box name that had units, and its units.

    It may be a call of `map` on several boxes.

    Args:
        with_parts: Whether the job may be the part of one box of such a call.
    """
    found = _ids(context, JOBS) | _ids(context, SWEEPS)
    for job in sorted(found, reverse=True):
        for several in (False, True):
            folder = _folder(context, job, several=several)
            about = _about(folder)
            if about.get("part_of") and not with_parts:
                continue
            if about.get("box") == context.settings.name:
                units = _read(folder)
                if units is not None:
                    return job, units
    return None


def parts(context: BoxContext, call: str) -> dict[str, str]:
    """Return the latest job of each box of a call of `map` on several boxes."""
    found = {}
    for job in sorted(_ids(context, JOBS)):
        about = _about(context.job_dir(job))
        if about.get("part_of") == call and isinstance(about.get("box"), str):
            found[about["box"]] = job
    return found


def to_document(units: UnitJob) -> dict[str, Any]:
    """Return the units as a JSON object, for another process."""
    values = {**vars(units), "plan": unit_plan.to_document(units.plan)}
    del values["boxes"]
    return values


def from_document(document: Mapping[str, Any]) -> UnitJob:
    """Return the units that `to_document` has described."""
    plan, numbers = unit_plan.from_document(document["plan"]), document["numbers"]
    return UnitJob(**{**document, "plan": plan, "numbers": tuple(numbers)})


def results(folder: Path, units: UnitJob) -> dict[int, UnitResult]:
    """
    Return the results of a job's units in a folder of outputs, by number.

    Results of another sweep do not count.
    """
    folders = {unit.number: unit.outputs for unit in units.plan.units}
    found = unit_results.read(folder, folders)
    return {n: result for n, result in found.items() if result.run == units.sweep}


def into(context: BoxContext, folder: str) -> str:
    """
    Return the flag `--into` that a command needs for a folder, with a space before it.

    The result is "" for the folder that a command has without this flag.

    Args:
        folder: A folder as `BoxContext.outputs_folder_for_record` has it.
    """
    with context.using_outputs_folder(context.default_outputs_folder):
        is_default = folder == context.outputs_folder_for_record
    return "" if is_default else " " + shlex.quote(f"--into={folder}")


def _folder(context: BoxContext, job: str, *, several: bool) -> Path:
    return context.local_dir / SWEEPS / job if several else context.job_dir(job)


def _ids(context: BoxContext, folder: str) -> set[str]:
    paths = (context.local_dir / folder).glob(f"*/{ABOUT}")
    return {path.parent.name for path in paths if JOB.fullmatch(path.parent.name)}


def _about(folder: Path) -> dict[str, Any]:
    """Return what is stored of a job beside its plan, {} if that is missing."""
    # A project that was cloned may bring any file.
    with suppress(OSError, ValueError, RecursionError):
        about = json.loads(read_regular(folder / ABOUT))
        return about if isinstance(about, dict) else {}
    return {}


def _read(folder: Path) -> UnitJob | None:
    about = _about(folder)
    with suppress(OSError, ValueError, TypeError, LookupError, StateError):
        names = ("sweep", "box", "folder", "inputs", "part_of")
        texts = {name: about[name] for name in names}
        ids = (texts["sweep"], texts["part_of"] or texts["sweep"])
        if not all(isinstance(text, str) for text in texts.values()):
            return None
        if not all(JOB.fullmatch(text) for text in ids):
            return None
        plan = unit_plan.load(folder / PLAN)
        boxes = [(_name(n), _numbers(own, plan)) for n, own in about["boxes"]]
        return UnitJob(
            plan,
            _numbers(about["numbers"], plan),
            has_flags=bool(about["has_flags"]),
            boxes=tuple(boxes),
            ended=bool(about["ended"]),
            **texts,
        )
    return None


def _numbers(value: Any, plan: UnitPlan) -> tuple[int, ...]:
    """Return stored numbers of units. Raises ValueError or TypeError."""
    if not all(type(n) is int and 1 <= n <= len(plan.units) for n in value):
        raise ValueError("a number is no unit")
    return tuple(value)


def _name(text: str) -> str:
    is_name(text)
    return text
