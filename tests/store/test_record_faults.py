"""An update that is killed, or does not fit on the disk, leaves a complete record."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from onebox.errors import StateError
from onebox.store.box_store import BoxStore
from tests.store.processes import ROOT, file_size_limit, names, start_python

STRACE = shutil.which("strace")


UPDATE = (
    "import sys; from pathlib import Path; from onebox.store.box_store import "
    "BoxStore\n"
    "from onebox.errors import StateError\n"
    "try: BoxStore(Path(sys.argv[1])).update(box='ob-second', job='j' * 5000)\n"
    "except StateError as error: print(error.message)"
)


def _strace(store: BoxStore, how: str) -> tuple[int, str]:
    if STRACE is None:
        pytest.skip("strace is missing")
    call = how.partition(":")[0]
    done = subprocess.run(
        [
            *(STRACE, "-f", "-o", "/dev/null"),
            *("-e", f"trace={call}", "-e", f"inject={how}"),
            *(sys.executable, "-B", "-c", UPDATE, str(store.directory)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace is not permitted: {done.stderr}")
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("call", "when", "new"),
    [
        ("fchmod", 1, False),
        ("write", 1, False),
        ("fsync", 1, False),
        ("renameat", 1, False),
        ("fsync", 2, True),
    ],
)
def test_kill_at_any_system_call_leaves_the_old_or_the_new_record(
    store: BoxStore, call: str, when: int, new: bool
) -> None:
    """A kill at a system call of an update never leaves a mixture."""
    before = store.record
    code, _ = _strace(store, f"{call}:signal=KILL:when={when}")

    assert -signal.SIGKILL == code
    if new:
        assert "ob-second" == store.record.box
    else:
        assert before == store.record
    assert "ob-third" == store.update(box="ob-third").box


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_full_disk_leaves_the_old_record(store: BoxStore, call: str) -> None:
    """A full disk leaves the old record, and the error names the cause."""
    before = store.record
    code, printed = _strace(store, f"{call}:error=ENOSPC:when=1")

    assert 0 == code
    assert "No space left on device" in printed
    assert before == store.record
    assert ["state.json"] == names(store.directory)


def test_update_that_does_not_fit_leaves_the_old_record_and_no_draft(
    store: BoxStore,
) -> None:
    """An update that is too large for the disk changes nothing."""
    before = store.record
    for room in (0, 1, 100):
        with (
            file_size_limit(room),
            pytest.raises(StateError, match="File too large"),
        ):
            store.update(job="j" * 1000)
        assert before == store.record
        assert ["state.json"] == names(store.directory)


@pytest.mark.slow
def test_kill_at_any_time_leaves_a_complete_record(store: BoxStore) -> None:
    """
    After a kill the record is one that was written, and the journal fits to
    it.
    """
    code = (
        "import sys; from pathlib import Path; from onebox.store.box_store import "
        "BoxStore\n"
        "store = BoxStore(Path(sys.argv[1]))\n"
        "n = int(store.record.job or 0)\n"
        "while True:\n"
        "    n += 1\n"
        "    with store.intent('create', box=str(n)):\n"
        "        store.update(job=str(n), job_command='x' * n)\n"
        "    print(n, flush=True)\n"
    )
    for _ in range(6):
        process = start_python(code, store.directory)
        assert process.stdout is not None
        printed = process.stdout.readline()
        time.sleep(random.random() / 20)
        process.kill()
        # Not `communicate`: it does not return what was read ahead.
        printed += process.stdout.read()
        process.communicate()
        seen = int(printed.split("\n")[-2])
        record = store.record
        assert int(record.job) in (seen, seen + 1)
        assert "x" * int(record.job) == record.job_command
        left = [int(intent.box) for intent in store.open_intents()]
        assert left in ([], [seen + 1])
        for intent in store.open_intents():
            store.close_intent(intent, "closed")
    assert [] == list(store.directory.glob("*.corrupt-*"))
