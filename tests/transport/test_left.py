"""What a job creates or changes outside its outputs is found by content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onebox.transfer.remote_manifest import ChangesOutside, request_manifest

from .conftest import AgentBox
from .test_sync import Project, age


@pytest.fixture
def project(tmp_path: Path, agent_box: AgentBox) -> Project:
    """A project with two pushed files, and its box."""
    made = Project(tmp_path, agent_box)
    age(made.write("model.json", b"untrained"))
    age(made.write("data/x", b"input"))
    made.push()
    return made


def left(
    project: Project, *roots: str, search_outside: str = "always"
) -> ChangesOutside | None:
    """Return what the box has outside of the outputs."""
    with project.box.link() as link:
        asked = roots or ("out",)
        return request_manifest(
            link, asked, hashing=False, into_project=True, search_outside=search_outside
        ).changes_outside


@pytest.mark.parametrize("how", ["longer", "as long", "link", "touched", "gone"])
def test_pushed_files_are_compared_by_content(project: Project, how: str) -> None:
    """Size, contents or kind tell; times do not, and a removed file is no result."""
    model = project.box.work / "model.json"
    before = model.stat()
    if how == "longer":
        model.write_bytes(b"trained, at last")
    elif how == "as long":
        model.write_bytes(b"TRAINED!!")
        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif how == "touched":
        model.touch()
    else:
        model.unlink()
    if how == "link":
        model.symlink_to("data/x")
    found = left(project)

    if how in ("touched", "gone"):
        assert found is None
    else:
        assert found == ChangesOutside(1, [b"model.json"], without_outputs=True)


@pytest.mark.parametrize("name", [".RData", ".ckpt/9", "runs/.best", ".model.pt"])
def test_hidden_files_are_results_too(project: Project, name: str) -> None:
    """A name that begins with a dot makes a new file no less of a result."""
    project.job(name)

    assert left(project) == ChangesOutside(1, [name.encode()], without_outputs=True)


@pytest.mark.parametrize(
    "name",
    [".cache/x", ".pytest_cache/x", "a/__pycache__/x.pyc", ".ipynb_checkpoints/x"],
)
def test_what_tools_keep_for_themselves_is_no_result(
    project: Project, name: str
) -> None:
    """Caches and the like hold no box."""
    project.job(name)

    assert left(project) is None


def test_what_is_here_now_does_not_count(project: Project) -> None:
    """Files that were pushed stay the user's when they are gone or changed here."""
    project.write("model.json", b"edited since")
    (project.root / "data/x").unlink()

    assert left(project) is None


def test_targets_of_links_in_the_outputs_are_not_left(project: Project) -> None:
    """What comes through a link is a result that has come."""
    project.job("ckpt/a", b"result")
    project.job("ckpt/b")
    project.job("model.json", b"trained")
    (project.box.work / "out").mkdir()
    (project.box.work / "out" / "a").symlink_to("../ckpt/a")
    (project.box.work / "out" / "model").symlink_to("../model.json")

    assert left(project) == ChangesOutside(1, [b"ckpt/b"], without_outputs=False)
    (project.box.work / "out" / "all").symlink_to("../ckpt")
    assert left(project) is None


def test_pushed_files_in_an_output_folder_are_no_result(project: Project) -> None:
    """A folder that is input and output holds nothing new until the job changes it."""
    project.job("new")

    assert left(project, "data") == ChangesOutside(1, [b"new"], without_outputs=True)
    project.job("data/x", b"INPUT")
    assert left(project, "data") == ChangesOutside(1, [b"new"], without_outputs=False)
    assert left(project, "data", search_outside="if-empty") is None
    assert left(project, "data", "new") is None


def test_many_are_counted_and_a_few_named(project: Project) -> None:
    """However many files a job leaves, the answer stays short."""
    for number in range(1_000):
        project.job(f"run/{number:04}")
    found = left(project)

    assert found is not None
    assert (found.count, len(found.names)) == (1_000, 10)


def test_a_record_of_an_older_agent_counts_as_pushed(project: Project) -> None:
    """Paths alone tell no contents: nothing is held for them, and a push renews it."""
    record = project.box.root / "files" / "pushed"
    record.write_bytes(
        b"\0".join([b"digest", b"data", b"data/x", b"model.json", b"end"])
    )
    project.job("model.json", b"trained")

    assert left(project) is None
    project.push()
    project.job("model.json", b"trained")
    assert left(project) is not None
