"""The results of units, which a box that may be hostile has written."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.errors import ProtocolError
from onebox.units import failures as unit_failures
from onebox.units import results as unit_results
from onebox.units.plan import Unit, UnitPlan
from onebox.units.results import UnitCounts, UnitResult

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\udc80"
NAMES = ("seed", "alpha")
DOCUMENT: dict[str, Any] = {
    "unit": 1,
    "units": 3,
    "run": "20250102-030405-abcd",
    "job": "20250102-040506-cdef",
    "parameters": {"seed": "1", "alpha": "0.1"},
    "command": "python fit.py --seed 1 --alpha 0.1",
    "code": 1,
    "signal": None,
    "cause": "exit",
    "attempts": 2,
    "started": 1735787045.5,
    "seconds": 3.2,
    "cpu_seconds": 0.9,
    "memory_peak": 1 << 30,
    "log_bytes": 20,
    "last": "ValueError: no data",
    "survivors": [],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def result(unit: int = 1, **change: Any) -> UnitResult:
    """Return the result of a unit that differs from `DOCUMENT` by *change*."""
    parameters = {"seed": str(unit), "alpha": "0.1"}
    document = {**DOCUMENT, "unit": unit, "parameters": parameters, **change}
    return UnitResult.parse(document)


def plan(total: int) -> UnitPlan:
    """Return a plan with the seeds from 1 to *total*."""
    units = [
        Unit(n, f"fit {n}", f"results/{n}/", (str(n), "0.1"))
        for n in range(1, total + 1)
    ]
    return UnitPlan("fit {seed}", NAMES, tuple(units), "results/", "0" * 12)


def write(folder: Path, unit: int = 1, **change: Any) -> Path:
    """Write the result of a unit to its folder, and return the file."""
    path = folder / "results" / str(unit) / "unit.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**DOCUMENT, "unit": unit, **change}))
    return path


def read(folder: Path, *units: int) -> dict[int, UnitResult]:
    """Read the results of *units*."""
    return unit_results.read(folder, {n: f"results/{n}/" for n in units})


class TestRead:
    def test_every_field_is_read(self, tmp_path: Path) -> None:
        """A result has the values of the file."""
        write(tmp_path)

        assert {
            1: UnitResult(
                unit=1,
                run="20250102-030405-abcd",
                job="20250102-040506-cdef",
                code=1,
                cause="exit",
                attempts=2,
                started=1735787045.5,
                seconds=3.2,
                cpu_seconds=0.9,
                memory_peak=1 << 30,
                last="ValueError: no data",
                parameters=(("seed", "1"), ("alpha", "0.1")),
            )
        } == read(tmp_path, 1)

    def test_units_without_a_file_are_missing(self, tmp_path: Path) -> None:
        """This holds for a missing file, a missing folder, and a missing top."""
        write(tmp_path, 2)
        (tmp_path / "results/1").mkdir()

        assert [2] == list(read(tmp_path, 1, 2, 3))
        assert {} == read(tmp_path / "none", 1)

    @pytest.mark.parametrize(
        "change",
        [
            {"unit": 2},
            {"unit": True},
            {"unit": 0},
            {"run": "../x"},
            {"job": None},
            {"code": 256},
            {"code": "0"},
            {"code": None},
            {"cause": ESCAPES},
            {"signal": 10**6},
            {"attempts": -1},
            {"started": float("nan")},
            {"seconds": 10**30},
            {"seconds": -1},
            {"cpu_seconds": float("inf")},
            {"memory_peak": 10**400},
            {"last": 3},
            {"survivors": "sleep"},
            {"parameters": []},
            {"parameters": {"seed": 1}},
        ],
    )
    def test_file_with_a_wrong_value_is_missing(
        self, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        """A code of 256 would count as success, and a unit must be the folder's."""
        write(tmp_path).write_text(json.dumps({**DOCUMENT, **change}))

        assert {} == read(tmp_path, 1)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b"[" * 60_000,
            json.dumps({**DOCUMENT, "last": "x" * (256 << 10)}).encode(),
        ],
    )
    def test_damaged_or_large_file_is_missing(
        self, tmp_path: Path, data: bytes
    ) -> None:
        """A file is a JSON object of at most 64 KiB."""
        write(tmp_path).write_bytes(data)
        write(tmp_path, 2)

        assert [2] == list(read(tmp_path, 1, 2))

    def test_no_link_is_followed(self, tmp_path: Path) -> None:
        """This holds for the file, the unit's folder and the folders above it."""
        outside = write(tmp_path / "outside")
        top = tmp_path / "top"
        (top / "results/1").mkdir(parents=True)
        file = top / "results/1/unit.json"
        file.symlink_to(outside)
        assert {} == read(top, 1)

        file.unlink()
        file.parent.rmdir()
        file.parent.symlink_to(outside.parent)
        assert {} == read(top, 1)

        file.parent.unlink()
        file.parent.parent.rmdir()
        file.parent.parent.symlink_to(outside.parent.parent)
        assert {} == read(top, 1)

    def test_top_may_be_a_link(self, tmp_path: Path) -> None:
        """A project may be behind a link of its user."""
        write(tmp_path / "project")
        (tmp_path / "link").symlink_to(tmp_path / "project")

        assert [1] == list(read(tmp_path / "link", 1))

    def test_pipe_and_folder_are_missing(self, tmp_path: Path) -> None:
        """A read of a pipe would never end."""
        for unit in (1, 2):
            write(tmp_path, unit).unlink()
        os.mkfifo(tmp_path / "results/1/unit.json")
        (tmp_path / "results/2/unit.json").mkdir()

        assert {} == read(tmp_path, 1, 2)

    @pytest.mark.parametrize(
        "name", ["", "/", "..", "../results/1/", "/etc/", "a\0b/", "\ud800/"]
    )
    def test_folder_that_is_no_path_inside_is_missing(
        self, tmp_path: Path, name: str
    ) -> None:
        """No path leads out of the folder."""
        write(tmp_path)
        (tmp_path / "other").mkdir()

        assert {} == unit_results.read(tmp_path / "other", {1: name})

    def test_folders_of_different_depth_are_read(self, tmp_path: Path) -> None:
        """Also if the next unit is in a folder that was left before."""
        folders = {1: "r/a/1/", 2: "r/b/2/", 3: "r/a/3/", 4: "r/a/3/4/", 5: "r5/"}
        for unit, name in folders.items():
            (tmp_path / name).mkdir(parents=True)
            document = {**DOCUMENT, "unit": unit}
            (tmp_path / name / "unit.json").write_text(json.dumps(document))

        assert [1, 2, 3, 4, 5] == list(unit_results.read(tmp_path, folders))

    def test_no_descriptor_stays_open(self, tmp_path: Path) -> None:
        """This holds for missing and damaged files too."""
        write(tmp_path)
        write(tmp_path, 2).write_text("{")
        write(tmp_path, 3).unlink()
        before = len([*Path("/proc/self/fd").iterdir()])
        read(tmp_path, 1, 2, 3, 4)

        assert before == len([*Path("/proc/self/fd").iterdir()])

    def test_texts_are_escaped(self, tmp_path: Path) -> None:
        """No text of a unit moves the cursor of the terminal."""
        parameters = {ESCAPES: ESCAPES}
        write(tmp_path, last=ESCAPES, survivors=[ESCAPES], parameters=parameters)
        found = read(tmp_path, 1)[1]
        texts = [found.last, *found.survivors, *found.parameters[0], found.describe()]

        assert all(text.isprintable() and "title" in text for text in texts)

    def test_many_units_are_read(self, tmp_path: Path) -> None:
        """The number of open files does not grow with the units."""
        for unit in range(1, 2001):
            write(tmp_path, unit)

        assert 2000 == len(read(tmp_path, *range(1, 2001)))

    @given(JSON | st.dictionaries(st.sampled_from(list(DOCUMENT)), JSON))
    def test_any_json_is_parsed_or_raises_protocol_error(self, value: object) -> None:
        """No JSON from a box raises anything else."""
        changed = {**DOCUMENT, **value} if isinstance(value, dict) else value
        for document in (value, changed):
            with contextlib.suppress(ProtocolError):
                assert UnitResult.parse(document).describe().isprintable()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "exit 1"),
        ({"code": 0}, "exit 0"),
        ({"code": 139}, "exit 139 (SIGSEGV)"),
        ({"cause": "signal", "code": 143, "signal": 15}, "killed by SIGTERM"),
        ({"cause": "signal", "code": 228, "signal": 100}, "killed by signal 100"),
        (
            {"cause": "oom", "code": 137, "signal": 9},
            "killed by SIGKILL: out of memory",
        ),
        ({"cause": "oom"}, "exit 1: out of memory"),
        ({"cause": "disk-full"}, "exit 1: the box's disk is full"),
        ({"cause": "outputs-lost"}, "its outputs were removed"),
        ({"cause": "not-started", "code": 126}, "could not be started"),
        ({"cause": "something-new", "code": 9}, "exit 9"),
        (
            {"survivors": ["sleep 9"]},
            "exit 1; ended what it left running: sleep 9",
        ),
    ],
)
def test_description_names_code_or_cause(change: dict[str, Any], text: str) -> None:
    """The end of a unit in a few words."""
    assert text == result(**change).describe()


class TestNotDone:
    def test_failed_and_left_units_are_not_done(self) -> None:
        """The numbers keep their order; other units are not added."""
        results = {1: result(1, code=0), 2: result(2), 4: result(4)}

        assert [3, 2] == unit_results.failed(results, [3, 2, 1])
        assert [2, 3] == unit_results.not_done(plan(3), results)

    def test_units_are_counted(self) -> None:
        """A unit is done, failed or left; a unit that is not in the plan is none."""
        results = {1: result(1, code=0), 2: result(2), 9: result(9)}

        assert UnitCounts(4, 1, 1, 2) == unit_results.count(plan(4), results)

    def test_result_with_other_parameters_does_not_count(self) -> None:
        """After a change of onebox.toml, a number belongs to another unit."""
        results = {1: result(1, code=0, parameters={"seed": "7", "alpha": "0.1"})}
        results[2] = result(2, code=0, parameters={"seed": "2"})

        assert [1, 2] == unit_results.not_done(plan(2), results)
        assert UnitCounts(2, 0, 0, 2) == unit_results.count(plan(2), results)

    def test_value_that_is_escaped_is_still_the_same(self) -> None:
        """A value may contain any character, and its unit is found again."""
        unit = Unit(1, "fit", "results/1/", (ESCAPES,))
        own = result(1, parameters={"seed": ESCAPES})

        assert {1: own} == unit_results.of_units(["seed"], [unit], {1: own})


class TestFailures:
    def test_only_failed_units_are_listed_in_their_order(self) -> None:
        """Units that are done or left have no line."""
        results = {3: result(3), 1: result(1, cause="outputs-lost", last="")}
        results[2] = result(2, code=0)

        assert [
            "unit 1 (seed=1 alpha=0.1): its outputs were removed, 3.2 s",
            "unit 3 (seed=3 alpha=0.1): exit 1, 3.2 s: ValueError: no data",
        ] == unit_failures.lines(NAMES, plan(4).units, results)

    def test_lines_are_limited_and_the_rest_is_counted(self) -> None:
        """A run of many units does not fill the screen."""
        results = {n: result(n) for n in range(1, 151)}
        found = unit_failures.lines(NAMES, plan(150).units, results)

        assert 21 == len(found)
        assert "and 130 more" == found[-1]

    def test_line_has_parameters_end_and_last_line(self) -> None:
        """A line has no part that is empty."""
        results = {1: result(1), 2: result(2, last=""), 3: result(3)}

        assert [
            "unit 1 (seed=1 alpha=0.1): exit 1, 3.2 s: ValueError: no data",
            "unit 2 (seed=2 alpha=0.1): exit 1, 3.2 s",
            "and 1 more",
        ] == unit_failures.lines(NAMES, iter(plan(3).units), results, most=2)
        alone = result(1, parameters={}, last="")
        unit = Unit(1, "fit", "results/1/", ())
        assert ["unit 1: exit 1, 3.2 s"] == unit_failures.lines([], [unit], {1: alone})

    def test_long_and_hostile_texts_are_cut_and_escaped(self) -> None:
        """A value is the user's, a last line is the box's."""
        value = ESCAPES + "x" * 1000
        unit = Unit(1, "fit", "results/1/", (value,))
        own = result(1, parameters={"seed": value}, last="y" * 1000)
        (line,) = unit_failures.lines(["seed"], [unit], {1: own})

        assert line.isprintable()
        assert len(line) < 220
        assert 2 == line.count("…")
