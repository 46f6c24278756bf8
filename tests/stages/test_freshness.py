"""`@onebox.stage(inputs=…, outputs=…)` runs a task only if something has changed."""

from __future__ import annotations

import json
from enum import Enum

import pytest

from onebox.stages.task_code import code_hash
from tests.conftest import Project

TASKS = """\
import pathlib, onebox
from onebox import *

@onebox.stage(inputs=["data/", "*.cfg"], outputs=["clean/"])
def prepare(c, rows=3):
    print("preparing", rows)
    pathlib.Path("clean").mkdir(exist_ok=True)
    pathlib.Path("clean/rows").write_text(pathlib.Path("data/raw").read_text())

@onebox.stage(prepare, push, inputs=["clean/"], outputs=["results/answer.txt"])
def train(c):
    run(c)
"""


@pytest.fixture
def pipeline(project: Project) -> Project:
    """A project with two stages; the second one needs a box."""
    project.write("tasks.py", TASKS)
    project.write("data/raw", "1 2 3")
    project.write("a.cfg", "x")
    return project


class TestSkip:
    """A stage whose files, arguments and source are unchanged is skipped."""

    def test_second_run_is_skipped_with_its_reason(self, pipeline: Project) -> None:
        """The line names the files; nothing runs."""
        first, second = pipeline.inv("prepare"), pipeline.inv("prepare")

        assert (0, "preparing 3\n") == (first.code, first.out)
        assert "prepare runs: prepare has not run here yet" in first.err
        assert (0, "") == (second.code, second.out)
        assert "up to date  data/, *.cfg → clean/" in second.err

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (("data/raw", "4"), "data/raw changed"),
            (("data/new", "4"), "data/new changed"),
            (("b.cfg", ""), "b.cfg changed"),
            (("clean/rows", "damaged"), "clean/rows changed"),
            (("tasks.py", TASKS.replace('"preparing"', "'now'")), "the task prepare"),
        ],
    )
    def test_a_change_is_the_reason_to_run(
        self, pipeline: Project, change: tuple[str, str], reason: str
    ) -> None:
        """Input, new input, new match of a pattern, output, source."""
        pipeline.inv("prepare")
        pipeline.write(*change)

        done = pipeline.inv("prepare")
        assert f"prepare runs: {reason}" in done.err
        assert "" != done.out

    @pytest.mark.parametrize("name", ["command", "env"])
    def test_a_setting_of_the_job_is_the_reason_to_run(
        self, pipeline: Project, name: str
    ) -> None:
        """A stage on a box runs again with another command; a local one does not."""
        pipeline.write("job.sh", "mkdir -p results; echo $A $1 > results/answer.txt\n")
        pipeline.inv("train")
        assert "train      ✓ up to date" in pipeline.inv("train").err
        text = pipeline.read("onebox.toml")
        changed = {
            "command": text.replace("sh job.sh", "sh job.sh new"),
            "env": text.replace("[run]", '[run]\nenv = { A = "new" }'),
        }
        pipeline.write("onebox.toml", changed[name])

        done = pipeline.inv("train")

        assert "prepare    ✓ up to date" in done.err
        assert f"train runs: [run] {name} changed" in done.err
        assert "new" == pipeline.read("results/answer.txt").strip()

    @pytest.mark.parametrize("place", ["versions", "../elsewhere"])
    @pytest.mark.parametrize("of", ["file", "folder"])
    def test_what_a_link_leads_to_is_an_input(
        self, pipeline: Project, place: str, of: str
    ) -> None:
        """The text of a link does not change with the file that it leads to."""
        pipeline.write(f"{place}/file", "old")
        target = pipeline.root / place / ("file" if of == "file" else "")
        (pipeline.root / "data/link").symlink_to(target)
        first, second = pipeline.inv("prepare"), pipeline.inv("prepare")
        pipeline.write(f"{place}/file", "new")

        done = pipeline.inv("prepare")

        changed = "data/link" if of == "file" else "data/link/file"
        assert (0, 0) == (first.code, second.code)
        assert "up to date" in second.err
        assert f"prepare runs: {changed} changed" in done.err

    def test_links_to_outputs_and_into_loops_are_not_followed(
        self, pipeline: Project
    ) -> None:
        """Such a link is no reason to run, whatever it leads to."""
        pipeline.write("clean/rows", "")
        (pipeline.root / "data/latest").symlink_to("../clean/rows")
        (pipeline.root / "data/loop").symlink_to(".")
        (pipeline.root / "data/broken").symlink_to("nothing")
        pipeline.inv("prepare")

        assert "up to date" in pipeline.inv("prepare").err

    def test_a_missing_output_is_the_reason_to_run(self, pipeline: Project) -> None:
        """A deleted result is made again."""
        pipeline.inv("prepare")
        (pipeline.root / "clean/rows").unlink()

        assert "clean/rows is missing" in pipeline.inv("prepare").err
        assert "1 2 3" == pipeline.read("clean/rows")

    def test_an_argument_is_the_reason_to_run(self, pipeline: Project) -> None:
        """The reason has the value of now and that of the last success."""
        pipeline.inv("prepare")

        assert "rows = 5, was 3" in pipeline.inv("prepare", "--rows=5").err

    def test_force_runs_the_stage(self, pipeline: Project) -> None:
        """`--force` needs no change."""
        pipeline.inv("prepare")

        assert "preparing 3\n" == pipeline.inv("prepare", "--force").out


def test_values_with_an_address_in_their_text_do_not_change() -> None:
    """Their classes and contents count, as in another process."""

    def value(text: str) -> list[object]:
        class Text(str):
            def __repr__(self) -> str:
                return f"<Text at {id(self)}>"

        class Kind(Enum):
            ONE = object()

        return [Text(text), Kind.ONE]

    # The objects are kept, so that no two of them have the same address.
    first, second = value("a"), value("a")

    assert code_hash(value, *first) == code_hash(value, *second)
    assert code_hash(value, *first) != code_hash(value, *value("b"))


class TestRecord:
    """Only a success counts, with the inputs that it began with."""

    def test_a_failed_task_runs_again(self, pipeline: Project) -> None:
        """An exception in the task leaves no record."""
        text = TASKS.replace('print("preparing", rows)', "assert rows != 3")
        pipeline.write("tasks.py", text)
        pipeline.inv("prepare")

        assert "has not run here yet" in pipeline.inv("prepare", "--rows=4").err

    def test_a_task_without_its_output_runs_again(self, pipeline: Project) -> None:
        """A warning names the output."""
        pipeline.write("tasks.py", TASKS.replace('outputs=["clean/"]', 'outputs=["x"]'))

        for _ in range(2):
            done = pipeline.inv("prepare")
            assert "prepare left no x: the next prepare runs again" in done.err

    def test_an_input_edited_meanwhile_counts_as_changed(
        self, pipeline: Project
    ) -> None:
        """The record has the inputs of the beginning."""
        edit = 'pathlib.Path("a.cfg").write_text(str(rows))\n    print("preparing"'
        pipeline.write("tasks.py", TASKS.replace('print("preparing"', edit))
        pipeline.inv("prepare")

        assert "a.cfg changed" in pipeline.inv("prepare").err

    @pytest.mark.parametrize("text", ["", "[]", '{"inputs": 3}', "\x00"])
    def test_a_damaged_record_counts_as_none(
        self, pipeline: Project, text: str
    ) -> None:
        """The task runs; no traceback."""
        pipeline.inv("prepare")
        pipeline.write(".onebox/stages/prepare.json", text)

        done = pipeline.inv("prepare")
        assert (0, "preparing 3\n") == (done.code, done.out)
        assert json.loads(pipeline.read(".onebox/stages/prepare.json"))["inputs"]


class TestChain:
    """A skipped stage needs no box."""

    def test_stages_of_a_chain_are_skipped_one_by_one(self, pipeline: Project) -> None:
        """No box is created if both are up to date."""
        first, second = pipeline.inv("train"), pipeline.inv("train")
        assert (0, "preparing 3\nworking\n") == (first.code, first.out)
        assert (0, "") == (second.code, second.out)
        assert 2 == second.err.count("up to date")
        assert "provision" not in second.err

        pipeline.write("data/raw", "4")
        third = pipeline.inv("train")
        assert "train runs: clean/rows changed" in third.err
        assert [] == pipeline.boxes()

    def test_dry_prints_the_reasons_and_runs_no_task(self, pipeline: Project) -> None:
        """A stage would run if a stage that makes its inputs would."""
        pipeline.inv("train")
        pipeline.write("data/raw", "5")

        for _ in range(2):
            done = pipeline.inv("--dry", "train")
            assert (
                "prepare    • would run  data/raw changed\n"
                "train      • would run  prepare would run\n"
            ) == done.out
        assert [] == pipeline.boxes()

    def test_missing_input_is_one_line(self, pipeline: Project) -> None:
        """The line names the stage and the input."""
        pipeline.write("tasks.py", TASKS.replace('inputs=["data/"', 'inputs=["dta/"'))

        done = pipeline.inv("prepare")
        assert 66 == done.code
        assert 'tasks.py: stage prepare: input "dta/" does not exist' in done.err


def test_graph_shows_which_stage_needs_which(pipeline: Project) -> None:
    """`inv plan --graph` prints trees, with the files of the user's own stages."""
    done = pipeline.inv("plan", "--graph")

    assert 0 == done.code
    assert (
        "train            clean/ → results/answer.txt\n"
        "├─ prepare       data/, *.cfg → clean/\n"
        "└─ push\n"
        "   └─ provision\n"
        "      └─ image\n"
    ) in done.out
    assert "run\n└─ push\n" in done.out
