"""The lock of a box: one process at a time changes it."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from onebox.errors import Busy, StateError
from onebox.signals import Interrupted, signals_as_exceptions
from onebox.store.box_store import BoxStore, locks_released
from tests.store.processes import (
    file_size_limit,
    lock_elsewhere,
    output_of,
    start_python,
)

HOLD = (
    "import subprocess, sys; from pathlib import Path\n"
    "from onebox.store.box_store import BoxStore\n"
    "BoxStore(Path(sys.argv[1])).lock('inv run --vm=large')\n"
    "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)\n"
    "print(child.pid, flush=True); sys.stdin.read()"
)


def test_lock_names_its_holder_and_ends_with_its_process(store: BoxStore) -> None:
    """
    A second process gets the holder's command, and the lock when the holder
    has ended.
    """
    holder = start_python(HOLD, store.directory)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(Busy) as busy:
            store.lock("inv teardown")
        message = busy.value.message
        begin = 'the box is busy: "inv run --vm=large" since '
        assert message.startswith(begin)
        assert message.endswith(f" (pid {holder.pid})")
        time.strptime(message[len(begin) :].partition(" ")[0], "%H:%M:%S")
        assert 75 == busy.value.code
        # Reading needs no lock.
        assert "ob-first" == store.record.box

        holder.kill()
        holder.communicate()
        # Its child still runs, and does not hold the lock.
        os.kill(child, 0)
        store.lock("inv teardown")
        text = (store.directory / "lock").read_text()
        assert text.startswith('"inv teardown" since')
    finally:
        os.kill(child, signal.SIGKILL)


def test_unlocked_box_can_be_locked_by_another_process(store: BoxStore) -> None:
    """Another process can lock a box that was unlocked."""
    store.lock("inv run")
    take = (
        "import sys; from pathlib import Path; from onebox.store.box_store import "
        "BoxStore\n"
        "BoxStore(Path(sys.argv[1])).lock('inv logs'); print('mine')"
    )
    store.unlock()

    assert "mine\n" == output_of(start_python(take, store.directory))


def test_one_process_can_lock_a_box_several_times(store: BoxStore) -> None:
    """One process may lock a box through several stores."""
    store.lock("inv train")
    BoxStore(store.directory).lock("inv train")

    with pytest.raises(Busy):
        lock_elsewhere(store.directory)


def test_threads_lock_each_other_out(store: BoxStore) -> None:
    """A second thread gets Busy, as a second process does, until the unlock."""
    with locks_released():
        store.lock("inv train")
        with ThreadPoolExecutor() as pool:
            with pytest.raises(Busy, match="inv train"):
                pool.submit(BoxStore(store.directory).lock, "inv run").result()

    lock_elsewhere(store.directory)


def test_released_locks_are_those_of_the_body(store: BoxStore) -> None:
    """A lock from before the body stays."""
    store.lock("inv train")
    with locks_released():
        store.lock("inv run")

    with pytest.raises(Busy):
        lock_elsewhere(store.directory)


def test_lock_that_cannot_be_written_is_not_held(store: BoxStore) -> None:
    """If the holder's name cannot be written, the lock is not held."""
    with pytest.raises(StateError, match="lock"), file_size_limit(0):
        store.lock("inv run")

    lock_elsewhere(store.directory)
    store.lock("inv run")


def test_ctrl_c_during_locking_leaves_a_lock_that_can_be_released(
    store: BoxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Ctrl-C at the moment of locking does not leave a lock that nothing can
    release.
    """

    def interrupted(fd: int, how: int) -> None:
        monkeypatch.undo()
        fcntl.flock(fd, how)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("onebox.store.box_store.fcntl.flock", interrupted)
    with pytest.raises(Interrupted), signals_as_exceptions(str):
        store.lock("inv run")
    with pytest.raises(Busy):
        lock_elsewhere(store.directory)
    store.unlock()

    lock_elsewhere(store.directory)
