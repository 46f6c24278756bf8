"""
Measure onebox against what a user would type instead.

    python bench/run.py [case …] [--rounds N] [--small] [--write]

Ours and theirs run in turn, in one go, against a real OpenSSH server on this
machine; the table shows medians. Only the ratios mean anything.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

# Beside this file; onebox itself is the one that is installed, or this checkout's.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import commands
import printing
import transfers
from lab import SSHD
from measure import Row, say, table

RESULTS = Path(__file__).with_name("results.md")


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(
        description="Measure onebox against what a user would type instead."
    )
    parser.add_argument(
        "case",
        nargs="*",
        help="default: all; push, fetch or big mean all of their kind",
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--small", action="store_true", help="just to see it run")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="a part of the sizes, such as 0.1"
    )
    parser.add_argument("--no-inv", action="store_true", help="stages alone")
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name} too")
    parser.add_argument(
        "--names", action="store_true", help="say which cases there are"
    )
    told = parser.parse_args()
    # Ended from outside, it still takes its server and its files away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cases = _cases(1 / 32 if told.small else told.scale, told.rounds, not told.no_inv)
    if told.names:
        print("\n".join(cases))
        return
    if not Path(SSHD).exists():
        raise SystemExit(f"{SSHD} is missing: apt install openssh-server rsync zstd")
    chosen = [name for name in cases if not told.case or _meant(name, told.case)]
    if not chosen:
        raise SystemExit(f"no such case; there are: {', '.join(cases)}")
    rows: list[Row] = []
    for name in chosen:
        say(f"{name}, {time.strftime('%H:%M:%S')}")
        rows += cases[name]()
    text = table(rows)
    print(text)
    if told.write:
        RESULTS.write_text(_report(text))


def _meant(name: str, words: list[str]) -> bool:
    """Tell whether a case is named, or all of its kind are: push, fetch, big."""
    kind, _, work = name.partition("-")
    return name in words or kind in words or work in words


def _cases(
    part: float, rounds: int, whole: bool
) -> dict[str, Callable[[], Iterator[Row]]]:
    scale = transfers.FULL.part(part)
    cases: dict[str, Callable[[], Iterator[Row]]] = {
        "list": partial(commands.listing, rounds),
        "cycle": partial(commands.cycle, rounds),
    }
    for transfer in transfers.TRANSFERS:
        for direction in transfer.directions:
            cases[f"{direction}-{transfer.name}"] = partial(
                transfers.measure, transfer, direction, scale, rounds, whole
            )
    cases["memory"] = partial(commands.memory, int(100_000 * part))
    count = int(1_000_000 * part)
    cases["latency"] = partial(printing.latency, 60 if part == 1 else 20, rounds)
    cases["lines"] = partial(printing.lines, count, rounds)
    cases["terminal"] = partial(printing.terminal, count, rounds)
    return cases


def _report(text: str) -> str:
    line = shlex.join(["python", "bench/run.py", *sys.argv[1:]])
    return (
        f"# What `{line}` measured\n\n"
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, {platform.system()}, "
        f"Python {platform.python_version()}; medians of rounds in turn. "
        f"Only the ratios mean anything.\n\n{text}\n"
    )


if __name__ == "__main__":
    main()
