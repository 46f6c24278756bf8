"""Files that a job creates or changes outside its outputs are found by content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onebox.transfer.remote_manifest import ChangesOutside, request_manifest
from tests.fakes.agent_box import AgentBox
from tests.transfer.synced_project import SyncedProject, make_old


@pytest.fixture
def project(tmp_path: Path, agent_box: AgentBox) -> SyncedProject:
    """A project with two pushed files, and its box."""
    made = SyncedProject(tmp_path, agent_box)
    make_old(made.write("model.json", b"untrained"))
    make_old(made.write("data/x", b"input"))
    made.push()
    return made


def changes_outside(
    project: SyncedProject, *roots: str, search_outside: str = "always"
) -> ChangesOutside | None:
    """Return the changes on the box outside of the outputs."""
    with project.box.connect() as link:
        asked = roots or ("out",)
        return request_manifest(
            link, asked, hashing=False, into_project=True, search_outside=search_outside
        ).changes_outside


@pytest.mark.parametrize("how", ["longer", "as long", "link", "touched", "gone"])
def test_pushed_files_are_compared_by_content(project: SyncedProject, how: str) -> None:
    """Size, content and kind count; times do not, and a removed file is no result."""
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
    found = changes_outside(project)

    if how in ("touched", "gone"):
        assert found is None
    else:
        assert found == ChangesOutside(1, [b"model.json"], without_outputs=True)


@pytest.mark.parametrize("name", [".RData", ".ckpt/9", "runs/.best", ".model.pt"])
def test_new_hidden_file_is_a_result(project: SyncedProject, name: str) -> None:
    """A new file whose name begins with a dot is a result."""
    project.job(name)

    assert changes_outside(project) == ChangesOutside(
        1, [name.encode()], without_outputs=True
    )


@pytest.mark.parametrize(
    "name",
    [
        ".cache/x",
        ".pytest_cache/x",
        "a/__pycache__/x.pyc",
        ".ipynb_checkpoints/x",
        "src/a.egg-info/PKG-INFO",
    ],
)
def test_caches_of_tools_are_no_results(project: SyncedProject, name: str) -> None:
    """Caches and the like are not reported."""
    project.job(name)

    assert changes_outside(project) is None


def test_local_changes_after_the_push_are_no_results(project: SyncedProject) -> None:
    """A pushed file that was removed or changed here is not a result of the job."""
    project.write("model.json", b"edited since")
    (project.root / "data/x").unlink()

    assert changes_outside(project) is None


def test_targets_of_output_links_are_not_reported(project: SyncedProject) -> None:
    """A file that is fetched through a link is not reported as left on the box."""
    project.job("ckpt/a", b"result")
    project.job("ckpt/b")
    project.job("model.json", b"trained")
    (project.box.work / "out").mkdir()
    (project.box.work / "out" / "a").symlink_to("../ckpt/a")
    (project.box.work / "out" / "model").symlink_to("../model.json")

    assert changes_outside(project) == ChangesOutside(
        1, [b"ckpt/b"], without_outputs=False
    )
    (project.box.work / "out" / "all").symlink_to("../ckpt")
    assert changes_outside(project) is None


def test_pushed_files_in_an_output_folder_are_no_result(project: SyncedProject) -> None:
    """A pushed output folder holds no result until the job changes it."""
    project.job("new")

    assert changes_outside(project, "data") == ChangesOutside(
        1, [b"new"], without_outputs=True
    )
    project.job("data/x", b"INPUT")
    assert changes_outside(project, "data") == ChangesOutside(
        1, [b"new"], without_outputs=False
    )
    assert changes_outside(project, "data", search_outside="if-empty") is None
    assert changes_outside(project, "data", "new") is None


def test_many_results_are_counted_and_a_few_are_named(project: SyncedProject) -> None:
    """The answer stays short, however many files a job creates."""
    for number in range(1_000):
        project.job(f"run/{number:04}")
    found = changes_outside(project)

    assert found is not None
    assert (found.count, len(found.names)) == (1_000, 10)


def test_push_record_without_hashes_counts_as_unchanged(project: SyncedProject) -> None:
    """
    Files recorded without hashes are not reported, and the next push records
    hashes.
    """
    record = project.box.root / "files" / "pushed"
    record.write_bytes(
        b"\0".join([b"digest", b"data", b"data/x", b"model.json", b"end"])
    )
    project.job("model.json", b"trained")

    assert changes_outside(project) is None
    project.push()
    project.job("model.json", b"trained")
    assert changes_outside(project) is not None
