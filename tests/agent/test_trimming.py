"""A log that is longer than its limit: its beginning and its end stay, whole."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.agent import protocol
from onebox.agent.jobs import log_limit
from onebox.agent.jobs.log_limit import Trimmer

from .conftest import AgentBox, until

LIMIT = 1 << 20
LINE = 8
# Each byte of it shows where it belongs, and none of it is a zero.
LINES = b"".join(b"%07d\n" % n for n in range(800_000))
PRINT = (
    "import sys; sys.stdout.buffer.write(b''.join(b'%%07d\\n' %% n for n in range(%d)))"
)


def pieces(box: AgentBox, job: str, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Follow a job to its end; return what is there of its log, and from where."""
    with box.link() as link:
        link.begin("follow", job=job, offset=offset)
        for kind, payload in link.frames():
            if kind == b"D":
                yield offset, bytes(payload)
                offset += len(payload)
            elif kind == b"G":
                offset += protocol.loads(payload)["gone"]


def start(box: AgentBox, shell: str) -> Path:
    """Start a job whose log is limited; return its directory."""
    with box.link() as link:
        link.ask("start", job="j1", shell=shell, max_log=LIMIT)
    return box.root / "jobs" / "j1"


def test_head_and_tail_stay(agent_box: AgentBox) -> None:
    """Who comes late gets both ends, each byte in its place, and is told the rest."""
    folder = start(
        agent_box,
        f'python3 -c "{PRINT % 600_000}"; while [ ! -e go ]; do sleep .1; done',
    )
    until(lambda: (folder / "log").stat().st_size == 600_000 * LINE)
    until(lambda: (folder / "log").stat().st_blocks * 512 < LIMIT + 65536)
    assert (folder / log_limit.NAME).exists()
    (agent_box.work / "go").touch()
    got = list(pieces(agent_box, "j1"))

    assert all(data == LINES[at : at + len(data)] for at, data in got)
    there = sum(len(data) for _, data in got)
    assert LIMIT // 2 <= there <= LIMIT
    assert got[0][0] == 0
    assert got[-1][0] + len(got[-1][1]) == 600_000 * LINE
    assert got[-1][1].endswith(b"0599999\n")
    with agent_box.link() as link:
        record = link.ask("job", job="j1")["record"]
    assert record["log_bytes"] == 600_000 * LINE
    assert record["log_gone"] == record["log_bytes"] - there


def test_from_within_what_is_gone(agent_box: AgentBox) -> None:
    """Who comes back to an offset that is no longer there goes on behind the gap."""
    folder = start(
        agent_box,
        f'python3 -c "{PRINT % 400_000}"; while [ ! -e go ]; do sleep .1; done',
    )
    offset = LIMIT + 3
    until(lambda: log_limit.gap(str(folder))[1] > offset)
    (agent_box.work / "go").touch()
    (at, data), *more = pieces(agent_box, "j1", offset)

    assert at > offset
    assert data == LINES[at : at + len(data)]
    assert sum(len(data) for _, data in more) + len(data) == 400_000 * LINE - at


def test_who_keeps_up_loses_nothing(agent_box: AgentBox) -> None:
    """A follower that is there as it is printed has every byte, and so its copy."""
    # A piece is less than what stays of a log's end, and waits for the one before.
    start(
        agent_box,
        "for n in 1 2 3 4 5 6 7 8; do "
        "python3 -c \"import sys; sys.stdout.buffer.write(b'x' * 300000)\"; "
        "sleep 0.3; until [ -e $n ]; do sleep 0.02; done; done",
    )
    got = []
    for at, data in pieces(agent_box, "j1"):
        got.append((at, data))
        for number in range(1, (at + len(data)) // 300_000 + 1):
            (agent_box.work / str(number)).touch()

    assert b"".join(data for _, data in got) == b"x" * 2_400_000
    assert got[-1][0] + len(got[-1][1]) == 2_400_000
    assert log_limit.gap(str(agent_box.root / "jobs" / "j1")) != (0, 0)


def test_a_hole_is_never_taken_for_output(tmp_path: Path) -> None:
    """However reading and trimming meet, a byte is the job's or said to be gone."""
    whole = LINES[: 400_000 * LINE]
    step, limit, holes = 1 << 15, 1 << 18, 0
    for count in range(20):
        (tmp_path / "log").write_bytes(b"")
        (tmp_path / log_limit.NAME).unlink(missing_ok=True)
        trimmer = Trimmer(str(tmp_path), limit)

        def write(trimmer: Trimmer = trimmer) -> None:
            with (tmp_path / "log").open("ab", buffering=0) as log:
                for at in range(0, len(whole), step):
                    log.write(whole[at : at + step])
                    trimmer.trim()

        writer = threading.Thread(target=write)
        writer.start()
        if not count:
            # Once the reader comes too late for certain.
            writer.join()
        fd = os.open(tmp_path / "log", os.O_RDONLY)
        try:
            at = 0
            while at < len(whole):
                data = os.read(fd, 1 << 16)
                here, gone = (
                    log_limit.skip(str(tmp_path), fd, len(data)) if data else (0, 0)
                )
                assert data[:here] == whole[at : at + here]
                at += here + gone
                holes += bool(gone)
        finally:
            os.close(fd)
            writer.join()
    assert holes


@pytest.mark.parametrize("cut", [0, 1, LIMIT // 2])
def test_within_the_limit_nothing_is_touched(tmp_path: Path, cut: int) -> None:
    """A log of the limit's size, or below, stays as it is."""
    (tmp_path / "log").write_bytes(LINES[: LIMIT - cut])
    Trimmer(str(tmp_path), LIMIT).trim()
    Trimmer(str(tmp_path), 0).trim()

    assert (tmp_path / "log").read_bytes() == LINES[: LIMIT - cut]
    assert log_limit.gap(str(tmp_path)) == (0, 0)


def test_it_goes_on(tmp_path: Path) -> None:
    """A log that grows on is trimmed on: its start stays, the rest moves along."""
    for count in range(200_000, 800_000, 50_000):
        with (tmp_path / "log").open("ab") as log:
            log.write(LINES[log.tell() : count * LINE])
        Trimmer(str(tmp_path), LIMIT).trim()
        start, end = log_limit.gap(str(tmp_path))
        size = count * LINE
        data = (tmp_path / "log").read_bytes()

        assert data[:start] == LINES[:start]
        assert data[end:] == LINES[end:size]
        assert start == LIMIT // 2
        assert 0 < LIMIT - (size - (end - start)) < LIMIT // 4
        assert not data[start:end].strip(b"\0")


def test_a_disk_without_holes(tmp_path: Path) -> None:
    """Where a disk cannot free what is in the middle of a file, the log stays whole."""
    command = ["mount", "-t", "ramfs", "onebox-test", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a disk that cannot do it takes root to mount")
    try:
        (tmp_path / "log").write_bytes(LINES)
        Trimmer(str(tmp_path), LIMIT).trim()

        assert [path.name for path in tmp_path.iterdir()] == ["log"]
        assert (tmp_path / "log").read_bytes() == LINES
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
