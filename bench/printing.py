"""Measure a job that prints: the delay of a line, the rate, the cost for the job."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence

from lab import Lab
from measure import Row, Way, alternately

STAMPS = """\
import sys, time
for count in range({count}):
    time.sleep(0.05)
    sys.stdout.write("at %.6f\\n" % time.time())
    sys.stdout.flush()
"""
LINES = """\
import sys, time
began = time.perf_counter()
for count in range({count}):
    print("epoch", count, "loss 0.41")
sys.stdout.flush()
open("elapsed", "w").write(str(time.perf_counter() - began))
"""


def latency(count: int, rounds: int) -> Iterator[Row]:
    """Measure how long a printed line takes to reach the terminal."""
    with Lab.open(0) as lab, lab.ours() as ours, lab.peer() as peer:
        (lab.work / "stamps.py").write_text(STAMPS.format(count=count))
        peer.open_master()
        ours.warm()
        line = f"cd {lab.work} && python3 stamps.py"

        def age(argv: Sequence[str]) -> float:
            ages = []
            for now, text in _terminal(argv, lab):
                ages += [now - float(at) for at in re.findall(rb"at (\d+\.\d+)", text)]
            assert ages, "nothing was printed"
            return statistics.median(ages) * 1000

        job = lab.inv("run", "--only", "--", "python3", "stamps.py")
        mine, theirs = alternately(
            rounds,
            [
                Way("onebox", lambda: age(job)),
                Way("ssh", lambda: age([*peer.ssh, "bench", line])),
            ],
        )
    yield Row(
        "latency",
        "a printed line is on the terminal",
        "100 ms",
        mine,
        100.0,
        1.0,
        unit="ms",
        beside=[("ssh", theirs)],
    )


def lines(count: int, rounds: int) -> Iterator[Row]:
    """Measure how much longer a job takes that prints to onebox instead of a file."""
    with Lab.open(0) as lab, lab.ours() as ours:
        (lab.work / "lines.py").write_text(LINES.format(count=count))
        ours.warm()

        def elapsed(command: str) -> float:
            lab.run_inv("run", "--only", "--", "sh", "-c", command)
            return float((lab.work / "elapsed").read_text())

        mine, theirs = alternately(
            rounds,
            [
                Way("onebox", lambda: elapsed("python3 lines.py")),
                Way("> file", lambda: elapsed("python3 lines.py > out")),
            ],
        )
    yield Row("lines", f"a job prints {count:,} lines", "> file", mine, theirs, 1.2)


def terminal(count: int, rounds: int) -> Iterator[Row]:
    """Measure how many lines per second reach a terminal."""
    with Lab.open(0) as lab, lab.ours() as ours, lab.peer() as peer:
        peer.open_master()
        ours.warm()

        def rate(argv: Sequence[str]) -> float:
            began = ended = 0.0
            seen = 0
            for now, text in _terminal(argv, lab):
                found = text.count(b"loss 0.41")
                if found:
                    seen += found
                    began, ended = began or now, now
            assert seen > count * 0.99, "lines are missing"
            return seen / (ended - began)

        command = f"yes 'epoch loss 0.41' | head -n {count}"
        job = lab.inv("run", "--only", "--", "sh", "-c", command)
        mine, theirs = alternately(
            rounds,
            [
                Way("onebox", lambda: rate(job)),
                Way("ssh", lambda: rate([*peer.ssh, "bench", command])),
            ],
        )
    yield Row(
        "terminal",
        f"{count:,} lines to a terminal",
        "200,000 lines/s",
        mine,
        200_000.0,
        1.0,
        unit="/s",
        beside=[("ssh", theirs)],
        more_is_better=True,
    )


def _terminal(argv: Sequence[str], lab: Lab) -> Iterator[tuple[float, bytes]]:
    """Run a command on a terminal; yield its output with the times."""
    ours, its = os.openpty()
    process = subprocess.Popen(
        argv, cwd=lab.project, env=lab.environ, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    try:
        while True:
            try:
                text = os.read(ours, 1 << 16)
            except OSError:
                # Linux reports EIO when the other end is closed.
                break
            if not text:
                break
            yield time.time(), text
    finally:
        os.close(ours)
        process.wait()
    if process.returncode:
        raise AssertionError(f"exit {process.returncode}: {argv}")
