"""The limit of a log: its beginning and its end stay complete."""

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
from tests.fakes.agent_box import AgentBox, until

LIMIT = 1 << 20
LINE = 8
# Every byte shows its own position, and none is zero as in a hole.
LINES = b"".join(b"%07d\n" % n for n in range(800_000))
PRINT = (
    "import sys; sys.stdout.buffer.write(b''.join(b'%%07d\\n' %% n for n in range(%d)))"
)


def pieces(box: AgentBox, job: str, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Follow a job to its end; yield the parts of its log with their offsets."""
    with box.connect() as link:
        link.begin("follow", job=job, offset=offset)
        for kind, payload in link.frames():
            if kind == b"D":
                yield offset, bytes(payload)
                offset += len(payload)
            elif kind == b"G":
                offset += protocol.loads(payload)["gone"]


def start(box: AgentBox, shell: str) -> Path:
    """Start a job whose log is limited; return its directory."""
    with box.connect() as link:
        link.request("start", job="j1", shell=shell, max_log=LIMIT)
    return box.root / "jobs" / "j1"


def test_a_late_reader_gets_head_and_tail(agent_box: AgentBox) -> None:
    """A late reader gets both ends at the right offsets, and the size of the gap."""
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
    with agent_box.connect() as link:
        record = link.request("job", job="j1")["record"]
    assert record["log_bytes"] == 600_000 * LINE
    assert record["log_gone"] == record["log_bytes"] - there


def test_following_from_within_the_gap_continues_behind_it(agent_box: AgentBox) -> None:
    """A reader that returns to an offset inside the gap continues behind it."""
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


def test_a_reader_that_keeps_up_gets_every_byte(agent_box: AgentBox) -> None:
    """A client that follows the log while it is printed gets every byte."""
    # Each piece is shorter than the kept end of a log, and is printed only after the
    # previous piece has arrived.
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


@pytest.mark.slow
def test_a_hole_is_never_read_as_output(tmp_path: Path) -> None:
    """
    However reads and trims interleave, a byte is either output or reported as missing.
    """
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
            # In the first round the reader certainly comes too late.
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
def test_a_log_within_its_limit_is_unchanged(tmp_path: Path, cut: int) -> None:
    """A log of at most the limit's size stays unchanged."""
    (tmp_path / "log").write_bytes(LINES[: LIMIT - cut])
    Trimmer(str(tmp_path), LIMIT).trim()
    Trimmer(str(tmp_path), 0).trim()

    assert (tmp_path / "log").read_bytes() == LINES[: LIMIT - cut]
    assert log_limit.gap(str(tmp_path)) == (0, 0)


def test_a_growing_log_is_trimmed_again(tmp_path: Path) -> None:
    """A log that keeps growing is trimmed again: its beginning stays, the gap grows."""
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


def test_a_log_stays_whole_on_a_disk_without_holes(tmp_path: Path) -> None:
    """If the disk cannot free the middle of a file, the log stays whole."""
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
