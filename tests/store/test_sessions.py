"""The sessions of `exec` and `ssh` on a box, and whether they have left files there."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
from pathlib import Path

import pytest

from onebox.store.sessions import Sessions
from tests.store.processes import output_of, start_python

BOX, OTHER = "ob-first", "ob-second"
NOTE = """\
import sys
from pathlib import Path
from onebox.store.sessions import Sessions
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    Sessions(Path(sys.argv[1])).note_session("ob-first", [f"{sys.argv[2]}-{number}"])
"""
WAIT = """\
import sys
from pathlib import Path
from onebox.signals import Interrupted, signals_as_exceptions
from onebox.store.sessions import Sessions
say = lambda text: print(text, flush=True)
try:
    with signals_as_exceptions(lambda: ""):
        with Sessions(Path(sys.argv[1])).during(
            "inv exec", "ob-first", interactive=False, blocked=lambda: say("blocked")
        ):
            say("begun")
except Interrupted as stop:
    say(stop.code)
"""
RUN = """\
import sys
from pathlib import Path
from onebox.store.sessions import Sessions
with Sessions(Path(sys.argv[1])).during("inv exec", sys.argv[2], interactive=False):
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    """The sessions on a box that was just created."""
    made = Sessions(tmp_path)
    made.note_new_box(BOX)
    return made


@pytest.mark.parametrize("interactive", [False, True])
def test_fetch_forgets_no_session_that_ran_when_it_began(
    sessions: Sessions, interactive: bool
) -> None:
    """It may have written after the outputs were listed, though it ended since."""
    with sessions.during("inv exec", BOX, interactive=interactive):
        sessions.note_session(BOX, ["results/"])
        before = sessions.seen(BOX)
    sessions.note_fetched(BOX, before)

    assert sessions.mark(BOX)
    assert ("results/",) == sessions.outputs(BOX)


def test_fetch_forgets_no_session_whose_process_was_killed(
    sessions: Sessions, tmp_path: Path
) -> None:
    """A killed session leaves no trace but the mark of its beginning."""
    session = start_python(RUN, tmp_path, BOX)
    assert session.stdout is not None
    session.stdout.readline()
    sessions.note_session(BOX, [])
    before = sessions.seen(BOX)
    session.kill()
    session.communicate()
    sessions.note_fetched(BOX, before)

    assert sessions.mark(BOX)


def test_fetch_forgets_no_session_that_has_begun_since(sessions: Sessions) -> None:
    """It may have ended since, or still run."""
    before = sessions.seen(BOX)
    with sessions.during("inv exec", BOX, interactive=False):
        sessions.note_session(BOX, [])
        sessions.note_fetched(BOX, before)
        assert sessions.mark(BOX)
    sessions.note_fetched(BOX, before)
    assert sessions.mark(BOX)


def test_fetch_forgets_the_sessions_that_had_ended(sessions: Sessions) -> None:
    """What they have left is here. A session of another box changes nothing."""
    with sessions.during("inv exec", BOX, interactive=False):
        sessions.note_session(BOX, ["results/"])
    with sessions.during("inv exec", OTHER, interactive=False):
        sessions.note_fetched(BOX, sessions.seen(BOX))

    assert ("", ()) == (sessions.mark(BOX), sessions.outputs(BOX))


def test_sessions_that_begin_at_once_forget_no_outputs(
    sessions: Sessions, tmp_path: Path
) -> None:
    """Each of them may have other settings, so each may name other outputs."""
    noting = [start_python(NOTE, tmp_path, name) for name in "abcd"]
    for process in noting:
        assert process.stdout is not None
        process.stdout.readline()
    for process in noting:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in noting:
        output_of(process)
        assert 0 == process.returncode

    expected = {f"{name}-{number}" for name in "abcd" for number in range(20)}
    assert expected == set(sessions.outputs(BOX))


def test_command_on_a_removed_box_does_not_keep_the_next_one(
    sessions: Sessions, tmp_path: Path
) -> None:
    """Its process may hang for ever."""
    session = start_python(RUN, tmp_path, BOX)
    assert session.stdout is not None
    session.stdout.readline()
    session.send_signal(signal.SIGSTOP)

    assert [session.pid] == [run.pid for run in sessions.commands(BOX)]
    assert [] == sessions.commands(OTHER)
    with sessions.none_begins(OTHER) as running:
        assert [] == running
    session.kill()
    session.communicate()


@pytest.mark.parametrize("ticket", [{"pid": 7, "command": "inv exec"}, None])
def test_command_on_an_unknown_box_keeps_each_box(
    sessions: Sessions, tmp_path: Path, ticket: object
) -> None:
    """The tickets of earlier versions do not name the box."""
    path = tmp_path / "commands" / "3.json"
    path.parent.mkdir()
    path.write_text(json.dumps(ticket))
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)

    assert [3] == [run.number for run in sessions.commands(OTHER)]
    os.close(fd)


def test_signal_ends_a_command_that_waits_for_a_removal(
    sessions: Sessions, tmp_path: Path
) -> None:
    """A removal can last minutes. Without a signal, the command begins after it."""
    with sessions.none_begins(BOX):
        stopped, waiting = (start_python(WAIT, tmp_path) for _ in range(2))
        for process in (stopped, waiting):
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0], "not interruptible"
            assert "blocked\n" == process.stdout.readline()
        stopped.send_signal(signal.SIGINT)
        assert "130" == output_of(stopped).split()[-1]
    assert "begun" == output_of(waiting).split()[-1]
    assert ["lock"] == [path.name for path in (tmp_path / "commands").iterdir()]
