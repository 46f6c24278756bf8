"""units.csv, the table of all units."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from onebox.errors import StateError
from onebox.units import table as units_csv
from onebox.units.plan import Unit
from tests.units.test_results import NAMES, plan, result


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of a table, by column."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_table_has_a_line_for_each_unit(tmp_path: Path) -> None:
    """Units that are left have a line too; the order is that of the numbers."""
    path = tmp_path / "units.csv"
    done = result(1, code=0, memory_peak=None)
    units_csv.write(path, NAMES, reversed(plan(3).units), {2: result(2), 1: done})

    assert (
        "unit,seed,alpha,state,exit,cause,seconds,cpu_seconds,memory_peak,attempts,"
        "started,outputs\n"
        "1,1,0.1,done,0,exit,3.2,0.9,,2,2025-01-02T03:04:05Z,results/1/\n"
        "2,2,0.1,failed,1,exit,3.2,0.9,1073741824,2,2025-01-02T03:04:05Z,results/2/\n"
        "3,3,0.1,left,,,,,,,,results/3/\n"
    ) == path.read_text()
    assert 0o644 == path.stat().st_mode & 0o777


def test_result_of_another_unit_is_left_out(tmp_path: Path) -> None:
    """A line with the parameters of one unit never has the result of another one."""
    other = result(1, code=0, parameters={"seed": "9", "alpha": "0.1"})
    units_csv.write(tmp_path / "units.csv", NAMES, plan(1).units, {1: other})

    assert "left" == read(tmp_path / "units.csv")[0]["state"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        " a ",
        "a,b",
        'say "x"',
        "a\nb",
        "a\rb",
        "a\r\nb",
        "=1+1",
        "é",
        "\udc80",
        "\t",
    ],
)
def test_values_come_back_as_they_were(tmp_path: Path, value: str) -> None:
    """The table is data for programs: no value is changed."""
    path = tmp_path / "units.csv"
    unit = Unit(1, "fit", "results/1/", (value, "0.1"))
    units_csv.write(path, NAMES, [unit], {})

    assert [value] == [line["seed"] for line in read(path)]


def test_column_gives_way_to_a_parameter_of_its_name(tmp_path: Path) -> None:
    """No two columns have the same name."""
    path = tmp_path / "units.csv"
    unit = Unit(1, "fit", "results/1/", ("solid", "x"))
    units_csv.write(path, ["state", "unit_exit"], [unit], {})
    (line,) = read(path)

    assert ("solid", "left") == (line["state"], line["unit_state"])
    assert ("x", "") == (line["unit_exit"], line["exit"])


def test_table_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    """The folder was fetched from a box, which may have left a link there."""
    target, path = tmp_path / "target", tmp_path / "units.csv"
    target.write_text("mine")
    path.symlink_to(target)
    units_csv.write(path, NAMES, plan(1).units, {})

    assert "mine" == target.read_text()
    assert path.is_file() and not path.is_symlink()


def test_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """Nothing is written to the folder where the link leads."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="link"):
        units_csv.write(tmp_path / "results/units.csv", NAMES, plan(1).units, {})

    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_folder_is_created_and_a_wrong_place_is_named(tmp_path: Path) -> None:
    """Without any output, all units are left; an error names the table's path."""
    path = tmp_path / "results/units.csv"
    units_csv.write(path, NAMES, plan(2).units, {})
    assert ["left", "left"] == [line["state"] for line in read(path)]

    path.unlink()
    path.mkdir()
    with pytest.raises(StateError, match=r"units\.csv"):
        units_csv.write(path, NAMES, plan(2).units, {})
    assert [path] == list(path.parent.iterdir())
