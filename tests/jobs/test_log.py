"""The copy of a job's log: its size is the offset, its gaps are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onebox.errors import ProtocolError, StateError
from onebox.jobs.log import JobLog, replay
from onebox.store.atomic_files import write_in


def shown(path: Path) -> list[object]:
    """Return what is printed of a log, and how much is said to be gone."""
    seen: list[object] = []
    replay(path, seen.append, seen.append)
    return seen


def test_gaps_keep_the_offset(tmp_path: Path) -> None:
    """What is left out counts for the size, and is no output when it is printed."""
    path = tmp_path / "jobs" / "j1" / "log"
    with JobLog(path) as log:
        log.add(b"head")
        log.skip(7)
        log.add(b"more")
        log.skip(1 << 40)
        log.add(b"tail")
        log.settle()
    with JobLog(path) as log:
        assert 12 + 7 + (1 << 40) == log.size

    assert [b"head", 7, b"more", 1 << 40, b"tail"] == shown(path)
    assert path.stat().st_blocks * 512 < 1 << 16


def test_killed_before_the_hole(tmp_path: Path) -> None:
    """A gap that was noted and not made is none; it is noted anew, longer perhaps."""
    path = tmp_path / "log"
    with JobLog(path) as log:
        log.add(b"head")
        log.skip(7)
    with path.open("r+b") as file:
        file.truncate(4)

    assert [b"head"] == shown(path)
    with JobLog(path) as log:
        log.skip(9)
        log.add(b"tail")
    assert [b"head", 9, b"tail"] == shown(path)


@pytest.mark.parametrize("last", [0, 1])
def test_two_terminals(tmp_path: Path, last: int) -> None:
    """Of two that follow one job either may go first: what the other shows is here."""
    path = tmp_path / "log"
    logs = JobLog(path), JobLog(path)
    with logs[last]:
        with logs[1 - last] as first:
            for log in logs:
                log.add(b"head")
                log.skip(7)
            first.add(b"more")
        logs[last].add(b"more, tail")

    assert [b"head", 7, b"more, tail"] == shown(path)


def test_two_terminals_at_one_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another terminal writes while one notes the gap before it stays."""
    path = tmp_path / "log"
    with JobLog(path) as one, JobLog(path) as other:

        def later(*words: Any) -> None:
            monkeypatch.undo()
            other.skip(7)
            other.add(b"more")
            write_in(*words)

        monkeypatch.setattr("onebox.jobs.log.write_in", later)
        one.skip(7)
        other.add(b", tail")

    assert [7, b"more, tail"] == shown(path)


def test_a_long_log_is_printed_in_pieces(tmp_path: Path) -> None:
    """No log is too long to be printed: it is not held in memory as a whole."""
    path = tmp_path / "log"
    path.write_bytes(bytes(range(256)) * 20_000)
    pieces = shown(path)

    assert path.read_bytes() == b"".join(p for p in pieces if isinstance(p, bytes))
    assert len(pieces) > 2


@pytest.mark.parametrize("holes", [True, False])
def test_copy_of_a_log_stays_within_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holes: bool
) -> None:
    """However much a box sends, a copy is no larger; every offset stays what it was."""
    if not holes:
        monkeypatch.setattr(
            "onebox.agent.jobs.log_limit.punch_hole", lambda *words: False
        )
    limit, piece, path = 1 << 20, 1 << 16, tmp_path / "job" / "log"
    with JobLog(path, limit=limit) as log:
        for number in range(100):
            log.add(bytes([number]) * piece)
        log.settle()
    with JobLog(path, limit=limit) as log:
        assert 100 * piece == log.size
    seen = shown(path)
    kept = b"".join(part for part in seen if isinstance(part, bytes))

    assert path.stat().st_blocks * 512 <= limit + (1 << 20) + 2 * piece
    assert 100 * piece - len(kept) == sum(p for p in seen if isinstance(p, int))
    assert bytes(piece) + b"\1" == kept[: piece + 1]
    assert not holes or kept.endswith(b"c" * piece)
    assert 2 >= len([part for part in seen if isinstance(part, int)])


def test_log_in_too_many_pieces_is_refused(tmp_path: Path) -> None:
    """A box that sends gaps without an end is named."""
    with JobLog(tmp_path / "job" / "log") as log, pytest.raises(ProtocolError):
        for _ in range(1001):
            log.add(b"x")
            log.skip(1)


@pytest.mark.parametrize("link", ["jobs/j1", "jobs/j1/log"])
def test_log_is_not_written_through_a_link(tmp_path: Path, link: str) -> None:
    """A link in the place of a job's folder or log leads to no other file."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "log").write_bytes(b"mine")
    place = tmp_path / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere / "log" if link.endswith("log") else elsewhere)

    with pytest.raises(StateError, match="through a link"):
        JobLog(tmp_path / "jobs" / "j1" / "log")
    assert ["log"] == [path.name for path in elsewhere.iterdir()]
    assert b"mine" == (elsewhere / "log").read_bytes()
