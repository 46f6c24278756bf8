"""Marks of a log: when it had which length."""

from __future__ import annotations

from pathlib import Path

from onebox.agent.jobs import log_times
from tests.agent.test_jobs import follow
from tests.fakes.agent_box import AgentBox


def test_marks_are_added_only_when_the_log_has_grown(tmp_path: Path) -> None:
    """A quiet job needs no space for marks."""
    log, marker = tmp_path / "log", log_times.Marker(str(tmp_path))
    log.touch()
    for now in (1.0, 2.0):
        marker.mark(now)
    assert [] == log_times.marks(str(tmp_path))
    log.write_text("one\n")
    marker.mark(3.0)
    marker.mark(4.0)
    log.write_text("one\ntwo\n")
    marker.mark(5.0)

    assert [(3.0, 4), (5.0, 8)] == log_times.marks(str(tmp_path))


def test_marks_of_a_long_job_thin_out_and_the_latest_stay(tmp_path: Path) -> None:
    """Old marks are dropped, and never the order."""
    log, marker = tmp_path / "log", log_times.Marker(str(tmp_path))
    count = 3 * log_times.MOST
    with log.open("ab", buffering=0) as file:
        for second in range(count):
            file.write(b"x")
            marker.mark(float(second))
    found = log_times.marks(str(tmp_path))

    assert log_times.MOST // 2 < len(found) <= log_times.MOST
    assert sorted(found) == found
    assert (0.0, 1) == found[0]
    latest = [(float(n), n + 1) for n in range(count - 1000, count)]
    assert latest == found[-1000:]


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    """A power cut may leave zeros or half a line."""
    (tmp_path / log_times.NAME).write_bytes(
        b"1.0 4\n\0\0\0\n2.0\nnan 5\n-1 5\n3.0 9\n4"
    )

    assert [(1.0, 4), (3.0, 9)] == log_times.marks(str(tmp_path))


def test_follow_returns_the_marks_of_the_log(agent_box: AgentBox) -> None:
    """The last mark has the whole length."""
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="echo one; sleep 1.2; echo two")
        log, end = follow(link, "j1")

    assert b"one\ntwo\n" == log
    marks = end["marks"]
    assert [len(log)] == [size for _, size in marks][-1:]
    assert 4 in [size for _, size in marks]
    times = [at for at, _ in marks]
    assert sorted(times) == times


def test_follow_without_waiting_returns_while_the_job_runs(
    agent_box: AgentBox,
) -> None:
    """It sends the log up to now, and the client can ask again."""
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="echo one; sleep 600")
        log = b""
        while not log:
            link.begin("follow", job="j1", offset=0, wait=False)
            log = b"".join(data for kind, data in link.frames() if kind == b"D")
        assert b"one\n" == log
        assert "running" == link.request("job")["state"]
        assert not (agent_box.root / "jobs/j1/followers").exists()
        link.request("cancel", job="j1")
