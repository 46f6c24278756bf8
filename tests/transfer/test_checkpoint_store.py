"""The last two checkpoint pulls are complete, even if the next one fails."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onebox.agent.files import folder_writer, manifest
from onebox.errors import Busy, ConnectionLost, OutputsHeld
from onebox.remote.channel import AgentChannel
from onebox.transfer import push_files
from onebox.transfer.checkpoint_store import CheckpointStore, Pull
from tests.fakes import cutter
from tests.fakes.agent_box import AgentBox
from tests.remote.steps import quiet
from tests.transfer.synced_project import keep_changing, snapshot

RUN = "20260101-000000-aaaa"


class Checkpoints:
    """A box with a job's checkpoints, and the pulls of them here."""

    def __init__(self, base: Path, box: AgentBox) -> None:
        self.box = box
        self.ckpt = box.work / "ckpt"
        self.pulls = CheckpointStore(base / "checkpoints")

    def write(self, name: str, data: bytes, mode: int = 0o644) -> Path:
        """Write a checkpoint on the box, as a job does."""
        path = self.ckpt / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        os.utime(path, ns=(10**18, 10**18 + len(data)))
        return path

    def pull(self, link: AgentChannel | None = None, run: str = RUN) -> Pull | None:
        """Pull the current checkpoints."""
        with link or self.box.connect() as used:
            return self.pulls.pull(
                used, ["ckpt/"], quiet, run=run, job=run, box=self.box.id
            )

    def folder(self) -> Path:
        """Return the folder of the newest pull."""
        return self.pulls.folder(self.pulls.all()[-1]) / "ckpt"

    def connect_with_cut(self, limit: int) -> AgentChannel:
        """Return a channel that breaks after *limit* bytes from the box."""
        command = [sys.executable, cutter.__file__, "down", str(limit)]
        return AgentChannel([*command, *self.box.command("serve")])


@pytest.fixture
def checkpoints(tmp_path: Path, agent_box: AgentBox) -> Checkpoints:
    """A box without any pull."""
    return Checkpoints(tmp_path, agent_box)


def test_pull_equals_the_checkpoints_on_the_box(checkpoints: Checkpoints) -> None:
    """Contents, modes, times, links and folders are the same as on the box."""
    checkpoints.write("model.pt", os.urandom(3 << 20), 0o600)
    checkpoints.write("deep/er/\xff name", b"state")
    (checkpoints.ckpt / "latest").symlink_to("model.pt")
    (checkpoints.ckpt / "empty").mkdir(mode=0o750)
    (checkpoints.ckpt / "sealed").mkdir()
    checkpoints.write("sealed/x", b"y")
    (checkpoints.ckpt / "sealed").chmod(0o555)

    first = checkpoints.pull()
    again = checkpoints.pull()

    assert first is not None and again is not None
    assert (first.number, again.number) == (1, 1)
    assert snapshot(checkpoints.ckpt) == snapshot(checkpoints.folder())
    checkpoints.write("new", b"1")
    checkpoints.pull()
    assert snapshot(checkpoints.ckpt) == snapshot(checkpoints.folder())


def test_the_last_two_pulls_are_kept(checkpoints: Checkpoints) -> None:
    """
    A pull holds exactly the current files; removed files are in the previous pull.
    """
    for step in range(4):
        checkpoints.write(f"step-{step}", os.urandom(100))
        shutil.rmtree(checkpoints.ckpt / "old", ignore_errors=True)
        checkpoints.write(f"old/{step}", b"o")
        checkpoints.pull()
    (checkpoints.ckpt / "step-0").unlink()
    last = checkpoints.pull()

    assert last is not None
    assert [4, 5] == [pull.number for pull in checkpoints.pulls.all()]
    assert (
        checkpoints.pulls.folder(checkpoints.pulls.all()[0]) / "ckpt/step-0"
    ).exists()
    assert snapshot(checkpoints.ckpt) == snapshot(checkpoints.folder())
    names = {path.name for path in checkpoints.pulls.directory.iterdir()}
    assert {"4", "5", "lock", "memory"} == names


def test_unchanged_files_are_shared_and_not_sent_again(
    checkpoints: Checkpoints,
) -> None:
    """
    A second pull sends only the new file and shares the others with the first pull.
    """
    checkpoints.write("big", os.urandom(4 << 20))
    checkpoints.pull()
    checkpoints.write("small", os.urandom(1000))
    link = checkpoints.box.connect()
    checkpoints.pull(link)

    assert link.moved < 100_000
    first, second = checkpoints.pulls.all()
    assert (checkpoints.pulls.folder(first) / "ckpt/big").samefile(
        checkpoints.pulls.folder(second) / "ckpt/big"
    )


def test_pull_without_changes_keeps_both_earlier_pulls(
    checkpoints: Checkpoints,
) -> None:
    """If nothing has changed, the pull before the last one stays."""
    checkpoints.write("a", b"1")
    checkpoints.pull()
    checkpoints.write("a", b"22")
    two = checkpoints.pull()
    three = checkpoints.pull()

    assert two is not None and three is not None
    assert [1, 2] == [pull.number for pull in checkpoints.pulls.all()]
    assert three.number == 2
    assert three.seen_at > two.seen_at


@pytest.mark.parametrize("limit", [0, 300, 100_000, 2_000_000])
def test_interrupted_pull_damages_no_earlier_one(
    checkpoints: Checkpoints, limit: int
) -> None:
    """A connection that breaks leaves the pulls unchanged; the next pull continues."""
    checkpoints.write("model", b"first" * 1000)
    checkpoints.pull()
    before = snapshot(checkpoints.pulls.folder(checkpoints.pulls.all()[0]))
    checkpoints.write("model", os.urandom(3 << 20))
    with pytest.raises(ConnectionLost):
        checkpoints.pull(checkpoints.connect_with_cut(limit))

    assert [1] == [pull.number for pull in checkpoints.pulls.all()]
    assert before == snapshot(checkpoints.pulls.folder(checkpoints.pulls.all()[0]))
    link = checkpoints.box.connect()
    checkpoints.pull(link)
    assert snapshot(checkpoints.ckpt) == snapshot(checkpoints.folder())
    if limit == 2_000_000:
        assert link.moved < 2_500_000


def test_file_that_keeps_changing_stays_as_in_the_last_pull(
    checkpoints: Checkpoints,
) -> None:
    """A file that keeps changing is taken from the last pull; the others are new."""
    checkpoints.write("log", b"old")
    checkpoints.write("model", b"1")
    checkpoints.pull()
    with keep_changing(checkpoints.ckpt / "log"):
        checkpoints.write("model", b"22")
        pull = checkpoints.pull()

    assert pull is not None
    assert ("ckpt/log",) == pull.unstable
    assert b"22" == (checkpoints.folder() / "model").read_bytes()
    assert b"old" == (checkpoints.folder() / "log").read_bytes()


def test_file_of_another_run_does_not_replace_one_that_keeps_changing(
    checkpoints: Checkpoints,
) -> None:
    """A file of another run is never used in the place of one that keeps changing."""
    checkpoints.write("log", b"other run's")
    checkpoints.pull(run="other")
    with keep_changing(checkpoints.ckpt / "log"):
        checkpoints.write("model", b"22")
        checkpoints.pull()

    assert ["model"] == [path.name for path in checkpoints.folder().iterdir()]


def test_empty_folder_does_not_replace_a_pull(checkpoints: Checkpoints) -> None:
    """
    A missing folder is no error; an empty folder does not replace an earlier pull.
    """
    assert checkpoints.pull() is None
    checkpoints.write("model", b"1")
    pull = checkpoints.pull()
    shutil.rmtree(checkpoints.ckpt)
    assert pull == checkpoints.pull()
    checkpoints.ckpt.mkdir()
    assert pull == checkpoints.pull()
    assert [pull] == checkpoints.pulls.all()
    assert checkpoints.pull(run="another") is None
    assert checkpoints.pulls.latest("another") is None


def test_pull_leaves_out_links_out_of_the_work_folder(checkpoints: Checkpoints) -> None:
    """A link out of the box's work folder is in no pull."""
    checkpoints.write("model", b"1")
    (checkpoints.ckpt / "out").symlink_to("/etc/passwd")
    checkpoints.pull()

    assert ["model"] == [path.name for path in checkpoints.folder().iterdir()]


def test_pull_follows_a_link_inside_the_work_folder(checkpoints: Checkpoints) -> None:
    """The target of such a link is in the pull as a file."""
    checkpoints.write("../runs/model", b"1")
    (checkpoints.ckpt / "newest").symlink_to("../runs/model")
    checkpoints.pull()

    assert b"1" == (checkpoints.folder() / "newest").read_bytes()
    checkpoints.write("../runs/model", b"2")
    checkpoints.pull()
    assert b"2" == (checkpoints.folder() / "newest").read_bytes()


def test_error_of_the_local_disk_is_raised_and_pulls_stay(
    checkpoints: Checkpoints,
) -> None:
    """If the local disk fails, the pulls stay and the error is raised."""
    checkpoints.write("model", b"1")
    checkpoints.pull()
    (checkpoints.pulls.directory / "memory" / "incoming").rmdir()
    (checkpoints.pulls.directory / "memory" / "incoming").write_bytes(b"in the way")
    checkpoints.write("model", b"22")
    with pytest.raises(OutputsHeld, match="cannot be put here"):
        checkpoints.pull()

    assert b"1" == (checkpoints.folder() / "model").read_bytes()


def test_removal_of_the_pulls_ends_the_current_one_only(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing the pulls during a pull ends that pull, but not the next one."""
    checkpoints.write("model", b"1")
    checkpoints.pull()

    def later(folder: int, name: bytes) -> None:
        monkeypatch.undo()
        shutil.rmtree(checkpoints.pulls.directory / "1")
        folder_writer.remove(folder, name)

    monkeypatch.setattr("onebox.transfer.checkpoint_store.folder_writer.remove", later)
    with pytest.raises(OutputsHeld, match="cannot be put here"):
        checkpoints.pull()

    assert [] == checkpoints.pulls.all()
    checkpoints.pull()
    assert b"1" == (checkpoints.folder() / "model").read_bytes()


def test_second_pull_at_the_same_time_is_refused(checkpoints: Checkpoints) -> None:
    """While another process pulls, a second pull is refused."""
    checkpoints.write("model", b"1")
    checkpoints.pull()
    with locked(checkpoints.pulls.directory / "lock"), pytest.raises(Busy):
        checkpoints.pull()
    assert checkpoints.pull() is not None


def test_checkpoints_and_project_stay_when_the_other_is_pushed(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """A push of the checkpoints leaves the project unchanged, and the reverse."""
    checkpoints.write("model", os.urandom(1000), 0o600)
    checkpoints.write("sub/state", b"s")
    checkpoints.pull()
    files = checkpoints.folder().parent
    shutil.rmtree(checkpoints.box.work)
    checkpoints.box.work.mkdir()
    project = tmp_path / "project"
    project.mkdir()
    (project / "job.py").write_bytes(b"pass")

    for _ in range(2):
        with checkpoints.box.connect() as link:
            push_files.push(link, project, [b"job.py"], tmp_path / "one", quiet)
        paths = manifest.below(os.fsencode(files), b"")
        with checkpoints.box.connect() as link:
            done = push_files.push(
                link, files, paths, tmp_path / "two", quiet, "restored"
            )

        assert 0 == done.deleted
        assert snapshot(files / "ckpt") == snapshot(checkpoints.ckpt)
        assert b"pass" == (checkpoints.box.work / "job.py").read_bytes()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, as another process would."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
