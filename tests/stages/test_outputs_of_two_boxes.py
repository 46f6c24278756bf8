"""Outputs of two boxes of one project do not replace each other silently."""

from __future__ import annotations

import re

import pytest

from tests.conftest import TOML, Project

JOB = "mkdir -p results/model; echo $1 | tee results/answer.txt > results/model/w\n"


def test_fetch_keeps_and_names_outputs_of_another_box(project: Project) -> None:
    """Files that another box's fetch brought are moved aside, and the box is named."""
    project.write("job.sh", JOB)
    for name in ("a", "b"):
        done = project.inv("run", f"--name={name}", "--", "sh", "job.sh", name)
        assert 0 == done.code, done.err

    assert "b\n" == project.read("results/answer.txt")
    assert "a\n" == project.read("results/answer.txt~")
    assert "a\n" == project.read("results/model/w~")
    printed = " ".join(done.err.split())
    assert "outputs of census/a were here and are kept" in printed
    assert "results/answer.txt is now results/answer.txt~" in printed
    assert "had been changed here" not in printed


def test_concurrent_fetches_of_two_boxes_keep_both_outputs(project: Project) -> None:
    """The outputs of both boxes are here in the end."""
    project.write("job.sh", JOB)
    lines = [
        project.start("run", f"--name={name}", "--", "sh", "job.sh", name)
        for name in ("a", "b", "c")
    ]
    assert [0, 0, 0] == [line.wait(300) for line in lines]

    found = (project.root / "results").glob("answer.txt*")
    assert ["a\n", "b\n", "c\n"] == sorted(path.read_text() for path in found)


def test_fetch_replaces_outputs_of_the_same_box_name(project: Project) -> None:
    """Files of an earlier fetch of the same box name are replaced."""
    project.write("job.sh", JOB)
    for word in ("1", "2"):
        assert 0 == project.inv("run", "--", "sh", "job.sh", word).code

    assert "2\n" == project.read("results/answer.txt")
    assert not (project.root / "results/answer.txt~").exists()


def test_run_into_puts_outputs_into_that_folder(project: Project) -> None:
    """`inv run --into=DIR` also holds for a later fetch of that job."""
    done = project.inv("run", "--into=out/1")
    assert 0 == done.code, done.err
    assert "verified → out/1/results/" in done.err
    assert "42\n" == project.read("out/1/results/answer.txt")
    assert 0 == project.inv("run", "--into=out/2", "fetch", "teardown").code
    assert "42\n" == project.read("out/2/results/answer.txt")
    assert 0 == project.inv("run", "--into=out/3", "--detach").code
    assert 0 == project.inv("logs").code
    assert 0 == project.inv("fetch", "teardown").code
    assert "42\n" == project.read("out/3/results/answer.txt")
    assert not (project.root / "results").exists()
    assert [] == project.boxes()


def test_teardown_of_a_stopped_box_fetches_into_the_folder_of_its_run(
    project: Project,
) -> None:
    """A box that is off has its outputs fetched to where its `run --into` names."""
    assert 0 == project.inv("run", "--into=out", "--detach").code
    assert 0 == project.inv("logs").code
    project.cut_power()
    done = project.inv("teardown")

    assert 0 == done.code, done.err
    assert "42\n" == project.read("out/results/answer.txt")
    assert not (project.root / "results").exists()
    assert [] == project.boxes()


def test_into_holds_for_its_job_only(project: Project) -> None:
    """The next job's outputs go to the usual folder."""
    assert 0 == project.inv("run", "--into=out", "--detach").code
    assert 0 == project.inv("logs").code
    assert 0 == project.inv("run").code

    assert "42\n" == project.read("out/results/answer.txt")
    assert "42\n" == project.read("results/answer.txt")
    above = project.inv("run", "--into=../above")
    assert 0 == above.code, above.err
    assert "42\n" == project.read("../above/results/answer.txt")
    assert 0 == project.inv("run").code


def test_job_is_not_up_to_date_for_another_folder(project: Project) -> None:
    """Outputs that are in one folder are not up to date in another."""
    project.write("onebox.toml", TOML.replace("[run]", '[run]\nwhen = "changed"'))
    assert "working\n" == project.inv("run", "--into=a").out
    assert "" == project.inv("run", "--into=a").out
    assert "working\n" == project.inv("run", "--into=b").out
    assert not (project.root / "c").exists()
    project.inv("--dry", "run", "--into=c")
    assert not (project.root / "c").exists()


def test_outputs_to_gives_each_box_a_folder_that_is_not_pushed(
    project: Project,
) -> None:
    """With `outputs_to`, each box name has its own folder for outputs."""
    toml = TOML + 'outputs_to = "runs/{name}"\n'
    project.write("onebox.toml", toml)
    project.write("job.sh", JOB + "ls > results/seen\n")
    for name in ("a", "b"):
        done = project.inv("run", f"--name={name}", "--", "sh", "job.sh", name)
        assert 0 == done.code, done.err
        assert f"verified → runs/{name}/results/" in done.err

    assert "a\n" == project.read("runs/a/results/answer.txt")
    assert "b\n" == project.read("runs/b/results/answer.txt")
    assert "runs" not in project.read("runs/b/results/seen")
    assert not (project.root / "results").exists()


@pytest.mark.parametrize("folder", ["{name}", "../x", "a/{job}", "/tmp/x", "x{name}/y"])
def test_outputs_to_outside_of_a_fixed_folder_is_refused(
    project: Project, folder: str
) -> None:
    """The folder must be in the project, below a folder with a fixed name."""
    project.write("onebox.toml", TOML + f'outputs_to = "{folder}"\n')
    done = project.inv("plan")

    assert 78 == done.code
    assert re.search(r"onebox.toml:\d+: \[fetch\] outputs_to: ", done.err)
