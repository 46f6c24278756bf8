"""onebox never writes its own files through a link to another file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Project

PLACES = (
    "state/projects/*/main/lock",
    "state/projects/*/main/journal",
    ".onebox/fetched/main/fetched.new",
    ".onebox/fetched/main/fetch.lock",
    ".onebox/fetched/main/folders.jsonl",
)


@pytest.mark.parametrize("place", PLACES)
def test_file_of_onebox_is_not_written_through_a_link(
    project: Project, tmp_path: Path, place: str
) -> None:
    """The command names the link, and the file that it leads to is unchanged."""
    assert 0 == project.inv("run").code
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    pattern, _, name = place.rpartition("/")
    top = project.root if place.startswith(".") else project.home
    (folder,) = top.glob(pattern)
    path = folder / name
    path.unlink(missing_ok=True)
    path.symlink_to(other)
    project.write("job.sh", "mkdir -p runs/a; echo new >results/new")
    done = project.inv("run", "--into=runs/a")

    assert b"precious" == other.read_bytes()
    assert 78 == done.code, done.err
    assert f"{path} is not a file" in done.err
    path.unlink()
    project.inv("teardown", "--discard-outputs", "--yes")
    assert [] == project.boxes()
