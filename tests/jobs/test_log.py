"""The local copy of a job's log: its size is the offset, and its gaps are recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onebox.errors import ProtocolError, StateError
from onebox.jobs.log import JobLog, show_log
from onebox.store.atomic_files import write_in


def printed(path: Path) -> list[object]:
    """Return what is printed of a log, and the reported number of missing bytes."""
    seen: list[object] = []
    show_log(path, seen.append, seen.append)
    return seen


def test_gap_counts_for_the_offset_and_is_not_printed(tmp_path: Path) -> None:
    """A gap counts for the size, but is no output."""
    path = tmp_path / "jobs" / "j1" / "log"
    with JobLog(path) as log:
        log.add(b"head")
        log.skip(7)
        log.add(b"more")
        log.skip(1 << 40)
        log.add(b"tail")
        log.flush()
    with JobLog(path) as log:
        assert 12 + 7 + (1 << 40) == log.size

    assert [b"head", 7, b"more", 1 << 40, b"tail"] == printed(path)
    assert path.stat().st_blocks * 512 < 1 << 16


def test_recorded_gap_without_its_hole_is_no_gap(tmp_path: Path) -> None:
    """If a command was killed before it made the hole, the gap is recorded again."""
    path = tmp_path / "log"
    with JobLog(path) as log:
        log.add(b"head")
        log.skip(7)
    with path.open("r+b") as file:
        file.truncate(4)

    assert [b"head"] == printed(path)
    with JobLog(path) as log:
        log.skip(9)
        log.add(b"tail")
    assert [b"head", 9, b"tail"] == printed(path)


@pytest.mark.parametrize("last", [0, 1])
def test_two_commands_that_follow_one_job_write_one_log(
    tmp_path: Path, last: int
) -> None:
    """Whichever is first, the copy has what the other one shows."""
    path = tmp_path / "log"
    logs = JobLog(path), JobLog(path)
    with logs[last]:
        with logs[1 - last] as first:
            for log in logs:
                log.add(b"head")
                log.skip(7)
            first.add(b"more")
        logs[last].add(b"more, tail")

    assert [b"head", 7, b"more, tail"] == printed(path)


def test_output_written_by_another_command_during_a_gap_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one command records a gap, the bytes of another one are kept."""
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

    assert [7, b"more, tail"] == printed(path)


def test_long_log_is_printed_in_pieces(tmp_path: Path) -> None:
    """The log is not read into memory as a whole."""
    path = tmp_path / "log"
    path.write_bytes(bytes(range(256)) * 20_000)
    pieces = printed(path)

    assert path.read_bytes() == b"".join(p for p in pieces if isinstance(p, bytes))
    assert len(pieces) > 2


@pytest.mark.parametrize("holes", [True, False])
def test_copy_of_a_log_stays_within_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holes: bool
) -> None:
    """
    However much a box sends, the copy stays within its limit, and offsets stay
    valid.
    """
    if not holes:
        monkeypatch.setattr(
            "onebox.agent.jobs.log_limit.punch_hole", lambda *words: False
        )
    limit, piece, path = 1 << 20, 1 << 16, tmp_path / "job" / "log"
    with JobLog(path, limit=limit) as log:
        for number in range(100):
            log.add(bytes([number]) * piece)
        log.flush()
    with JobLog(path, limit=limit) as log:
        assert 100 * piece == log.size
    seen = printed(path)
    kept = b"".join(part for part in seen if isinstance(part, bytes))

    assert path.stat().st_blocks * 512 <= limit + (1 << 20) + 2 * piece
    assert 100 * piece - len(kept) == sum(p for p in seen if isinstance(p, int))
    assert bytes(piece) + b"\1" == kept[: piece + 1]
    assert not holes or kept.endswith(b"c" * piece)
    assert 2 >= len([part for part in seen if isinstance(part, int)])


def test_log_in_too_many_pieces_is_refused(tmp_path: Path) -> None:
    """A box that sends gaps without end is named."""
    with JobLog(tmp_path / "job" / "log") as log, pytest.raises(ProtocolError):
        for _ in range(1001):
            log.add(b"x")
            log.skip(1)


@pytest.mark.parametrize("link", ["jobs/j1", "jobs/j1/log"])
def test_log_is_not_written_through_a_link(tmp_path: Path, link: str) -> None:
    """A link at the place of a job's folder or log is not followed."""
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
