"""The local copy of a job's log: its size is the offset, and its gaps are recorded."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.errors import ProtocolError, StateError
from onebox.jobs import log as log_module
from onebox.jobs.log import MARKS, JobLog, offset_at, offset_of_last_lines, show_log
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


@given(
    pieces=st.lists(st.sampled_from([b"a", b"\n", b"bc\n", b"\n\n"])),
    lines=st.integers(0, 6),
    piece=st.integers(1, 4),
)
def test_last_lines_are_those_of_tail(
    pieces: list[bytes], lines: int, piece: int
) -> None:
    """`tail -n` prints the same bytes, however the log is read."""
    data = b"".join(pieces)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "PIECE", piece)
        path = Path(folder) / "log"
        path.write_bytes(data)
        offset = offset_of_last_lines(path, lines)

    kept = data.splitlines(keepends=True)
    assert b"".join(kept[len(kept) - min(lines, len(kept)) :]) == data[offset:]


def test_last_lines_may_lie_on_both_sides_of_a_gap(tmp_path: Path) -> None:
    """
    The gap is no line, and its size is reported where it is.

    The line after a gap may have begun in it, so the gap is reported with this line.
    """
    path = tmp_path / "jobs" / "j1" / "log"
    with JobLog(path) as log:
        log.add(b"one\ntwo\n")
        log.skip(1 << 30)
        log.add(b"three\n")
        log.flush()

    def shown(lines: int) -> list[object]:
        seen: list[object] = []
        begin = offset_of_last_lines(path, lines)
        show_log(path, seen.append, seen.append, begin)
        return seen

    assert [1 << 30, b"three\n"] == shown(1)
    assert [b"two\n", 1 << 30, b"three\n"] == shown(2)
    assert [b"one\ntwo\n", 1 << 30, b"three\n"] == shown(9)


def test_offset_at_a_time_is_that_of_the_last_mark_before_it(tmp_path: Path) -> None:
    """A log without marks, or with damaged ones, has no times."""
    path = tmp_path / "jobs" / "j1" / "log"
    with JobLog(path) as log:
        log.keep_marks([(10.0, 5), (20.0, 9)])

    offsets = [offset_at(path, moment) for moment in (9.0, 10.0, 19.9, 99.0)]
    assert [0, 5, 5, 9] == offsets
    path.with_name(MARKS).write_bytes(b"{")
    assert None is offset_at(path, 99.0)
