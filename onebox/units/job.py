"""The units that one call of `map` runs, as a value and as a file of their job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.errors import StateError
from onebox.store.atomic_files import (
    disk_errors,
    private_dir,
    read_regular,
    write_atomically,
)
from onebox.units import plan as unit_plan
from onebox.units import results as unit_results
from onebox.units.plan import Unit, UnitPlan
from onebox.units.results import UnitResult

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.settings.map_table import MapTable

# The file in a job's folder that holds the plan of its units.
NAME = "units.json"
# The file beside it that holds the id of the sweep.
SWEEP = "units-sweep"


@dataclass(frozen=True)
class UnitJob:
    """
    Some units of a plan, which one job runs.

    *numbers* are those of the units that run, ascending. *sweep* is the id of the first
    run of these units, "" if this is the first one: the results of all runs of a sweep
    belong together. *is_typed* is whether the command was typed, and is not that of
    [map].
    """

    plan: UnitPlan
    numbers: tuple[int, ...]
    sweep: str = ""
    is_typed: bool = False

    @property
    def first_line(self) -> str:
        """Return the command of the first unit that runs."""
        command = self.units[0].command
        return command if isinstance(command, str) else formatting.shell_line(command)

    @property
    def units(self) -> list[Unit]:
        """Return the units that run."""
        return [self.plan.units[number - 1] for number in self.numbers]

    def has_units_of(self, plan: UnitPlan) -> bool:
        """Return whether *plan* has the same units; its command may be another one."""
        own, other = self.plan, plan
        return own.names == other.names and [
            (unit.values, unit.outputs) for unit in own.units
        ] == [(unit.values, unit.outputs) for unit in other.units]

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


def save(context: BoxContext, job: str, units: UnitJob) -> None:
    """Store the units of a job, before the job starts."""
    folder = context.job_dir(job)
    with disk_errors(folder):
        private_dir(folder)
        unit_plan.save(folder / NAME, units.plan)
        write_atomically(folder / SWEEP, units.sweep.encode())


def load(context: BoxContext, job: str) -> UnitJob | None:
    """
    Return the units of a job, all of its plan.

    Return None if the job has no units, or if another machine has started it.
    """
    folder = context.job_dir(job)
    with suppress(OSError, ValueError, StateError):
        plan = unit_plan.load(folder / NAME)
        sweep = read_regular(folder / SWEEP).decode("ascii")
        return UnitJob(plan, tuple(unit.number for unit in plan.units), sweep)
    return None


def resume(context: BoxContext, job: str) -> None:
    """Let the chain know the units of a job that an earlier command has started."""
    context.chain.units = load(context, job)


def latest(context: BoxContext) -> tuple[str, UnitJob] | None:
    """Return the latest job of this project that had units, and its units."""
    for path in sorted((context.local_dir / "jobs").glob(f"*/{NAME}"), reverse=True):
        units = load(context, path.parent.name)
        if units is not None:
            return path.parent.name, units
    return None


def results(context: BoxContext, units: UnitJob) -> dict[int, UnitResult]:
    """
    Return the results of a job's units in the folder of the outputs, by number.

    Results of another sweep do not count.
    """
    folders = {unit.number: unit.outputs for unit in units.plan.units}
    found = unit_results.read(context.outputs_folder, folders)
    return {n: result for n, result in found.items() if result.run == units.sweep}
