"""Cuts and stalls connections in push, run and fetch: no byte may be lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.world import Outcome, World, raw, world
from tests.conftest import Done

TOML = """\
[push]
data = ["data/"]

[run]
command = "python3 job.py"

[fetch]
outputs = ["results/"]
"""
JOB = """\
import pathlib, shutil, time
for line in range(40):
    print("\\n".join(f"line {line} {n} " + "x" * (n % 90) for n in range(500)))
    time.sleep(0.02)
shutil.copytree("data", "results", dirs_exist_ok=True)
"""
LOG = "".join(
    f"line {line} {n} " + "x" * (n % 90) + "\n"
    for line in range(40)
    for n in range(500)
)
BIG = 40 << 20


def push_run_fetch(made: World, chance: random.Random) -> list[Outcome]:
    """Push, run and fetch with faults in between; compare every byte."""
    made.begin()
    data = made.project.root / "data"
    data.mkdir(exist_ok=True)
    (data / "big").write_bytes(chance.randbytes(BIG))
    for number in range(20):
        (data / f"small-{number}").write_bytes(chance.randbytes(1000 * number))
    faults: list[str] = []
    for words in (("push",), ("run", "--only"), ("fetch",)):
        code, out = _disturb(made, chance, words, faults)
        if words[0] == "run":
            _finish_job(made, code, out)
        elif code:
            made.persist(*words)
    _same_files(made, data, made.project.root / "results")
    return [made.outcome(f"connection {fault}", "") for fault in faults]


def round_trips(chance: random.Random, faults: int) -> Iterator[Outcome]:
    """Make trips in one world until there were *faults* faults."""
    count = 0
    with world(toml=TOML) as made:
        made.project.write("job.py", JOB)
        made.persist("provision")
        while count < faults:
            outcomes = push_run_fetch(made, chance)
            count += len(outcomes)
            yield from outcomes


def _finish_job(made: World, code: int, out: bytes) -> None:
    """Return to a job whose connection was lost; compare its output."""
    for _ in range(5):
        if not code:
            break
        made.inv("run", "--only")
        done = made.inv("logs")
        code, out = done.code, done.out.encode()
    if out != LOG.encode():
        made.wrong.append(f"printed {len(out)} bytes, not these {len(LOG)}")
    logs = made.project.root.glob(".onebox/jobs/*/log")
    latest = max(logs, key=lambda path: path.stat().st_mtime_ns)
    if latest.read_text() != LOG:
        made.wrong.append(f"{latest} differs from what the job has printed")


def _same_files(made: World, here: Path, back: Path) -> None:
    for path in here.iterdir():
        other = back / path.name
        if not other.exists() or other.read_bytes() != path.read_bytes():
            made.wrong.append(f"{other} differs from what was pushed")


def _disturb(
    made: World, chance: random.Random, words: tuple[str, ...], faults: list[str]
) -> tuple[int, bytes]:
    """Type a line, disturb its connection a few times, return code and output."""
    process = made.project.start(*words)
    for _ in range(chance.randint(1, 3)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1 + chance.random() * 0.7)
            break
        fault = disturb_now(made, chance)
        if fault:
            faults.append(f"{fault} in {words[0]}")
    code = process.wait(300)
    made.judge(f"{' '.join(words)} (disturbed)", Done(code, "", made.project.err))
    return code, (made.project.home / "out").read_bytes()


def disturb_now(made: World, chance: random.Random) -> str:
    """Cut or stall the connections that are open now; return which, "" for none."""
    ours = [pid for pid in made.processes() if _is_ssh(pid)]
    if not ours:
        return ""
    fault = chance.choice(["cut", "stalled"])
    if fault == "cut":
        _send(signal.SIGKILL, ours)
    else:
        _send(signal.SIGSTOP, ours)
        time.sleep(chance.random())
        _send(signal.SIGCONT, ours)
    return fault


def _is_ssh(pid: int) -> bool:
    return raw(Path(f"/proc/{pid}/cmdline")).startswith((b"ssh\0", b"ssh: "))


def _send(number: int, pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
