"""The queue of the runs that wait for a box."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from onebox.errors import StateError
from onebox.store.run_queue import RunQueue
from tests.store.processes import start_python

WAIT = (
    "import sys; from pathlib import Path\n"
    "from onebox.store.run_queue import RunQueue\n"
    "with RunQueue(Path(sys.argv[1])).place(sys.argv[2], 'local') as run:\n"
    "    print(run.number, flush=True); sys.stdin.read()"
)


@pytest.fixture
def queue(tmp_path: Path) -> RunQueue:
    """An empty queue."""
    return RunQueue(tmp_path / "queue")


def test_runs_are_listed_in_the_order_in_which_they_came(queue: RunQueue) -> None:
    """Each run is a process, and knows how many are before it."""
    with queue.place("inv run a", "local") as first:
        second = start_python(WAIT, queue.directory, "b")
        assert second.stdout is not None
        second.stdout.readline()
        with queue.place("inv run c", "local") as third:
            assert ["inv run a", "b", "inv run c"] == [r.command for r in queue.runs()]
            assert second.pid == queue.runs()[1].pid
            assert [2, 0] == [len(queue.ahead_of(run)) for run in (third, first)]
        second.communicate()
    assert [] == queue.runs()
    assert ["lock"] == [path.name for path in queue.directory.iterdir()]


def test_end_of_a_process_frees_its_place(queue: RunQueue) -> None:
    """A kill leaves the ticket behind, which the next look removes."""
    waiting = start_python(WAIT, queue.directory, "b")
    assert waiting.stdout is not None
    waiting.stdout.readline()
    assert ["b"] == [run.command for run in queue.runs()]
    waiting.kill()
    waiting.communicate()
    assert (queue.directory / "1.json").exists()

    assert [] == queue.runs()
    assert not (queue.directory / "1.json").exists()


def test_number_of_a_run_that_left_is_used_only_at_the_end(queue: RunQueue) -> None:
    """A new run is behind all others that still wait."""
    with queue.place("a", "local"):
        with queue.place("b", "local"):
            pass
        with queue.place("c", "local"):
            assert ["a", "c"] == [run.command for run in queue.runs()]


def test_ticket_of_another_version_keeps_its_place(queue: RunQueue) -> None:
    """Its contents may be unknown, but its process waits."""
    with queue.place("a", "local"):
        foreign = queue.directory / "7.json"
        foreign.write_text('{"format": 2}')
        fd = os.open(foreign, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with queue.place("b", "local") as after:
            assert 8 == after.number
            assert ["a", "", "b"] == [run.command for run in queue.runs()]
            assert 2 == len(queue.ahead_of(after))
        os.close(fd)


def test_ticket_is_written_through_no_link(queue: RunQueue, tmp_path: Path) -> None:
    """Another file would be written."""
    queue.directory.mkdir()
    target = tmp_path / "target"
    target.write_text("mine")
    (queue.directory / "1.json").symlink_to(target)

    with pytest.raises(StateError), queue.place("a", "local"):
        pass
    assert "mine" == target.read_text()


def test_queue_that_was_never_used_has_no_folder(queue: RunQueue) -> None:
    """Only a run that waits writes."""
    assert [] == queue.runs()
    assert not queue.directory.exists()
