"""The last two pulls of checkpoints are whole, whatever happens to the next one."""

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

from . import cutter
from .conftest import AgentBox
from .test_sync import busy, snapshot

RUN = "20260101-000000-aaaa"


class Home:
    """A box with a job's checkpoints on it, and the pulls of them here."""

    def __init__(self, base: Path, box: AgentBox) -> None:
        self.box = box
        self.ckpt = box.work / "ckpt"
        self.pulls = CheckpointStore(base / "checkpoints")

    def write(self, name: str, data: bytes, mode: int = 0o644) -> Path:
        """Have the job write a checkpoint."""
        path = self.ckpt / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        os.utime(path, ns=(10**18, 10**18 + len(data)))
        return path

    def take(self, link: AgentChannel | None = None, run: str = RUN) -> Pull | None:
        """Pull what there is."""
        with link or self.box.link() as used:
            return self.pulls.pull(
                used, ["ckpt/"], silent, run=run, job=run, box=self.box.id
            )

    def folder(self) -> Path:
        """Return where the newest pull's checkpoints are."""
        return self.pulls.folder(self.pulls.all()[-1]) / "ckpt"

    def cut(self, limit: int) -> AgentChannel:
        """Connect through what breaks after so many bytes from the box."""
        command = [sys.executable, cutter.__file__, "down", str(limit)]
        return AgentChannel([*command, *self.box.command("serve")])


@pytest.fixture
def home(tmp_path: Path, agent_box: AgentBox) -> Home:
    """A box, and no pull yet."""
    return Home(tmp_path, agent_box)


def test_a_pull_is_what_the_box_has(home: Home) -> None:
    """Contents, modes, times, links and folders come as they are on the box."""
    home.write("model.pt", os.urandom(3 << 20), 0o600)
    home.write("deep/er/\xff name", b"state")
    (home.ckpt / "latest").symlink_to("model.pt")
    (home.ckpt / "empty").mkdir(mode=0o750)
    (home.ckpt / "sealed").mkdir()
    home.write("sealed/x", b"y")
    (home.ckpt / "sealed").chmod(0o555)

    first = home.take()
    again = home.take()

    assert first is not None and again is not None
    assert (first.number, again.number) == (1, 1)
    assert snapshot(home.ckpt) == snapshot(home.folder())
    home.write("new", b"1")
    home.take()
    assert snapshot(home.ckpt) == snapshot(home.folder())


def test_the_last_two_pulls_are_kept(home: Home) -> None:
    """A pull is exactly what there was; what the job removes is in the one before."""
    for step in range(4):
        home.write(f"step-{step}", os.urandom(100))
        shutil.rmtree(home.ckpt / "old", ignore_errors=True)
        home.write(f"old/{step}", b"o")
        home.take()
    (home.ckpt / "step-0").unlink()
    last = home.take()

    assert last is not None
    assert [4, 5] == [pull.number for pull in home.pulls.all()]
    assert (home.pulls.folder(home.pulls.all()[0]) / "ckpt/step-0").exists()
    assert snapshot(home.ckpt) == snapshot(home.folder())
    names = {path.name for path in home.pulls.directory.iterdir()}
    assert {"4", "5", "lock", "memory"} == names


def test_unchanged_files_are_shared_and_not_sent_again(home: Home) -> None:
    """A second pull moves the new file alone, and shares the others with the first."""
    home.write("big", os.urandom(4 << 20))
    home.take()
    home.write("small", os.urandom(1000))
    link = home.box.link()
    home.take(link)

    assert link.moved < 100_000
    first, second = home.pulls.all()
    assert (home.pulls.folder(first) / "ckpt/big").samefile(
        home.pulls.folder(second) / "ckpt/big"
    )


def test_an_equal_pull_pushes_none_out(home: Home) -> None:
    """When nothing has changed, the one before the last stays."""
    home.write("a", b"1")
    home.take()
    home.write("a", b"22")
    two = home.take()
    three = home.take()

    assert two is not None and three is not None
    assert [1, 2] == [pull.number for pull in home.pulls.all()]
    assert three.number == 2
    assert three.seen_at > two.seen_at


@pytest.mark.parametrize("limit", [0, 300, 100_000, 2_000_000])
def test_interrupted_pull_damages_no_earlier_one(home: Home, limit: int) -> None:
    """A connection that breaks leaves the pulls as they are; the next one goes on."""
    home.write("model", b"first" * 1000)
    home.take()
    before = snapshot(home.pulls.folder(home.pulls.all()[0]))
    home.write("model", os.urandom(3 << 20))
    with pytest.raises(ConnectionLost):
        home.take(home.cut(limit))

    assert [1] == [pull.number for pull in home.pulls.all()]
    assert before == snapshot(home.pulls.folder(home.pulls.all()[0]))
    link = home.box.link()
    home.take(link)
    assert snapshot(home.ckpt) == snapshot(home.folder())
    if limit == 2_000_000:
        assert link.moved < 2_500_000


def test_file_that_keeps_changing_stays_as_in_the_last_pull(home: Home) -> None:
    """A file that does not hold still is the last pull's; the others are new."""
    home.write("log", b"old")
    home.write("model", b"1")
    home.take()
    with busy(home.ckpt / "log"):
        home.write("model", b"22")
        pull = home.take()

    assert pull is not None
    assert ("ckpt/log",) == pull.unstable
    assert b"22" == (home.folder() / "model").read_bytes()
    assert b"old" == (home.folder() / "log").read_bytes()


def test_file_of_another_run_does_not_replace_one_that_keeps_changing(
    home: Home,
) -> None:
    """What another run had under that name is no state of this one."""
    home.write("log", b"other run's")
    home.take(run="other")
    with busy(home.ckpt / "log"):
        home.write("model", b"22")
        home.take()

    assert ["model"] == [path.name for path in home.folder().iterdir()]


def test_empty_folder_does_not_replace_a_pull(home: Home) -> None:
    """No folder yet is no error; a folder found empty does not replace what we have."""
    assert home.take() is None
    home.write("model", b"1")
    pull = home.take()
    shutil.rmtree(home.ckpt)
    assert pull == home.take()
    home.ckpt.mkdir()
    assert pull == home.take()
    assert [pull] == home.pulls.all()
    assert home.take(run="another") is None
    assert home.pulls.latest("another") is None


def test_pull_leaves_out_links_that_lead_out(home: Home) -> None:
    """A link that leads out of the box's folder comes into no pull."""
    home.write("model", b"1")
    (home.ckpt / "out").symlink_to("/etc/passwd")
    home.take()

    assert ["model"] == [path.name for path in home.folder().iterdir()]


def test_a_checkpoint_that_is_a_link_is_pulled(home: Home) -> None:
    """What a link leads to in the job's folder is in the pull as a file."""
    home.write("../runs/model", b"1")
    (home.ckpt / "newest").symlink_to("../runs/model")
    home.take()

    assert b"1" == (home.folder() / "newest").read_bytes()
    home.write("../runs/model", b"2")
    home.take()
    assert b"2" == (home.folder() / "newest").read_bytes()


def test_error_of_the_local_disk_is_raised_and_pulls_stay(home: Home) -> None:
    """Where the disk here refuses, the pulls stay, and the reason is raised."""
    home.write("model", b"1")
    home.take()
    (home.pulls.directory / "memory" / "incoming").rmdir()
    (home.pulls.directory / "memory" / "incoming").write_bytes(b"in the way")
    home.write("model", b"22")
    with pytest.raises(OutputsHeld, match="cannot be put here"):
        home.take()

    assert b"1" == (home.folder() / "model").read_bytes()


def test_removal_of_the_pulls_ends_the_current_one_only(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who removes the pulls while one is made ends that one, and not the next."""
    home.write("model", b"1")
    home.take()

    def later(folder: int, name: bytes) -> None:
        monkeypatch.undo()
        shutil.rmtree(home.pulls.directory / "1")
        folder_writer.remove(folder, name)

    monkeypatch.setattr("onebox.transfer.checkpoint_store.folder_writer.remove", later)
    with pytest.raises(OutputsHeld, match="cannot be put here"):
        home.take()

    assert [] == home.pulls.all()
    home.take()
    assert b"1" == (home.folder() / "model").read_bytes()


def test_second_pull_at_the_same_time_is_refused(home: Home) -> None:
    """While another terminal pulls, this one does not."""
    home.write("model", b"1")
    home.take()
    with locked(home.pulls.directory / "lock"), pytest.raises(Busy):
        home.take()
    assert home.take() is not None


def test_checkpoints_and_project_stay_when_the_other_is_pushed(
    home: Home, tmp_path: Path
) -> None:
    """Checkpoints and project each stay when the other is pushed again."""
    home.write("model", os.urandom(1000), 0o600)
    home.write("sub/state", b"s")
    home.take()
    files = home.folder().parent
    shutil.rmtree(home.box.work)
    home.box.work.mkdir()
    project = tmp_path / "project"
    project.mkdir()
    (project / "job.py").write_bytes(b"pass")

    for _ in range(2):
        with home.box.link() as link:
            push_files.push(link, project, [b"job.py"], tmp_path / "one", silent)
        paths = manifest.below(os.fsencode(files), b"")
        with home.box.link() as link:
            done = push_files.push(
                link, files, paths, tmp_path / "two", silent, "restored"
            )

        assert 0 == done.deleted
        assert snapshot(files / "ckpt") == snapshot(home.ckpt)
        assert b"pass" == (home.box.work / "job.py").read_bytes()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock as another process would."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def silent(files: int, of_files: int, done: int, total: int) -> None:
    """Take no notice of progress."""
