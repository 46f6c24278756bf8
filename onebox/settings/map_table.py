"""Declare the settings of `inv map`: the table [map]. It belongs to one project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onebox.settings.checks import (
    Between,
    InvalidValue,
    bytes_from,
    in_project,
    job_output,
    not_empty,
)
from onebox.settings.fields import Conflict, Table, setting
from onebox.settings.kinds import BYTES, INTEGER, STRING
from onebox.settings.parameters import PARAMETERS
from onebox.settings.quoting import show

# More boxes need an engine that schedules, such as Slurm or Ray.
MOST_BOXES = 10


def unit_outputs(value: object) -> None:
    """
    Refuse a template that does not give each unit a folder of its own.

    The folder must pass `job_output`. Its first part has no placeholder, because it
    holds the folders of all units. It is not in `.venv`, which is never copied.
    """
    text = str(value)
    job_output(text)
    first = text.split("/")[0]
    if "{" in first:
        raise InvalidValue(
            f"{show(text)} has a placeholder in its first folder; write "
            '"results/{unit}/"'
        )
    if "{" not in text:
        meant = show(f"{text.rstrip('/')}/{{unit}}/")
        raise InvalidValue(
            f"{show(text)} is the same folder for all units; write {meant}"
        )
    if any(part.lower() == ".venv" for part in text.split("/")):
        raise InvalidValue(f"{show(text)} is in .venv; name another folder")


@dataclass(frozen=True)
class MapTable(Table):
    """
    The units of `inv map`; *memory* is in bytes, None if it is not given.

    *over* has the values of each parameter as texts, in the order of the file; a unit
    is made for each combination. *params* is a CSV file with a line for each unit.
    """

    command: str | None = setting(
        STRING,
        None,
        '"python fit.py --seed {seed}"',
        "A unit: a line of shell; {NAME} is a parameter's value.",
        not_empty,
    )
    over: Mapping[str, tuple[str, ...]] = setting(
        PARAMETERS,
        {},
        '{ seed = "1..50", alpha = [0.1, 0.5] }',
        "Parameters; a unit for each combination.",
    )
    params: str | None = setting(
        STRING,
        None,
        '"params.csv"',
        "Instead: a CSV file with names, then a unit in each line.",
        in_project,
        blank=True,
    )
    cpus: int = setting(INTEGER, 1, "4", "The CPUs of one unit.", Between(1, 2048))
    memory: int | None = setting(
        BYTES,
        None,
        '"8 GB"',
        "The memory of one unit; if not set, only CPUs count.",
        bytes_from(1 << 20),
        blank=True,
    )
    retries: int = setting(
        INTEGER,
        0,
        "1",
        "How often a unit that fails runs again.",
        Between(0, 100),
    )
    boxes: int = setting(
        INTEGER,
        1,
        "4",
        "On how many boxes the units run, side by side.",
        Between(1, MOST_BOXES),
    )
    outputs: str = setting(
        STRING,
        "results/{unit}/",
        '"results/{unit}/"',
        "The folder of one unit; {unit} is its number.",
        unit_outputs,
    )

    @property
    def root(self) -> str:
        """Return the folder that holds the folders of all units, with a "/"."""
        return f"{self.outputs.partition('{')[0].rpartition('/')[0]}/"

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict if the parameters have two sources."""
        if self.params and self.over:
            raise Conflict("params", "excludes over: a unit's values have one source")
