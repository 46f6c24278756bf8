"""One box for each line and name; no second box is created silently."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import Project
from tests.system.lines import finished_stages


def test_line_with_several_stages_has_one_box_and_each_stage_once(
    project: Project,
) -> None:
    """`inv provision push run --vm=large` creates one box."""
    done = project.inv("provision", "push", "run", "--vm=large")

    assert 0 == done.code
    assert ["image", "provision", "push", "run", "fetch"] == finished_stages(done.err)
    assert "large" in done.err.splitlines()[0]
    # Asked for by name, so it stays.
    assert 1 == len(project.boxes())
    assert "kept" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["provision", "--vm=small", "run", "--vm=large"], "conflicting flags: "),
        (["run", "--spot", "--no-spot"], "conflicting flags: "),
        (["run", "--vm", "--dry"], "--vm needs a value"),
        (["run", "--name="], "--name needs a value"),
    ],
)
@pytest.mark.fast
def test_contradicting_flags_are_refused_before_anything_runs(
    project: Project, words: list[str], message: str
) -> None:
    """The error names the contradiction."""
    done = project.inv(*words)

    assert 64 == done.code
    assert done.err.startswith(f"onebox[64]: {message}")
    assert [] == project.boxes()


def test_flag_that_contradicts_the_existing_box_is_refused(project: Project) -> None:
    """No second box is created silently."""
    project.inv("provision", "--vm=small")
    done = project.inv("run", "--vm=large")

    assert 64 == done.code
    assert "requests large" in done.err
    assert "inv teardown" in done.err
    assert 1 == len(project.boxes())


def test_existing_box_precedes_the_size_of_the_file(project: Project) -> None:
    """After `inv provision --vm=large`, a plain `inv run` uses that box."""
    project.inv("provision", "--vm=large")
    before = project.boxes()
    done = project.inv("run")

    assert 0 == done.code
    assert "up to date" in done.err
    assert before == project.boxes()


def test_name_gives_a_second_box(project: Project) -> None:
    """`--name` creates another box, and teardown deletes only its own."""
    project.inv("provision")
    project.inv("provision", "--name=second")
    assert 2 == len(project.boxes())

    done = project.inv("teardown", "--name=second")

    assert 0 == done.code
    assert 1 == len(project.boxes())
    assert 0 == project.inv("teardown", "--all").code
    assert [] == project.boxes()


def test_box_is_found_without_the_state_directory(project: Project) -> None:
    """The box is found by its tags, used and deleted."""
    project.inv("provision")
    (box,) = project.boxes()
    subprocess.run(["rm", "-r", str(project.home / "state")], check=True)
    done = project.inv("run")

    assert (0, "working\n") == (done.code, done.out)
    assert [box] == project.boxes()
    assert 0 == project.inv("teardown").code
    assert [] == project.boxes()


def test_boxes_of_another_owner_are_neither_listed_nor_deleted(
    project: Project,
) -> None:
    """They are at the same provider."""
    project.inv("provision", env={"ONEBOX_IDENTITY": str(project.home / "other")})
    (theirs,) = project.boxes()
    assert "no box is up" in project.inv("status").out
    project.inv("run")
    project.inv("teardown", "--all", "--yes")
    project.inv("cleanup", "--yes")

    assert [theirs] == project.boxes()
