"""
Measure onebox against the commands that a user would type instead.

    python bench/run.py [case …] [--rounds N] [--small] [--write]

onebox and its peers run alternately against a real OpenSSH server on this machine. The
table shows medians; only the ratios can be compared between machines.
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

# onebox is the installed one, or else that of this checkout.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import commands
import printing
import transfers
from lab import SSHD
from measure import Row, log, table

RESULTS = Path(__file__).with_name("results.md")


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(
        description="Measure onebox against what a user would type instead."
    )
    parser.add_argument(
        "case",
        nargs="*",
        help="default: all; push, fetch or big select all of that kind",
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--small", action="store_true", help="1/32 of the sizes, to see that it runs"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="a factor for the sizes, such as 0.1"
    )
    parser.add_argument(
        "--no-inv",
        action="store_true",
        help="measure the stages without the inv command",
    )
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--names", action="store_true", help="list the cases")
    options = parser.parse_args()
    # On SIGTERM, stop the server and remove the files too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cases = _cases(
        1 / 32 if options.small else options.scale, options.rounds, not options.no_inv
    )
    if options.names:
        print("\n".join(cases))
        return
    if not Path(SSHD).exists():
        raise SystemExit(f"{SSHD} is missing: apt install openssh-server rsync zstd")
    chosen = [
        name for name in cases if not options.case or _is_selected(name, options.case)
    ]
    if not chosen:
        raise SystemExit(f"no such case; the cases are: {', '.join(cases)}")
    rows: list[Row] = []
    for name in chosen:
        log(f"{name}, {time.strftime('%H:%M:%S')}")
        rows += cases[name]()
    text = table(rows)
    print(text)
    if options.write:
        RESULTS.write_text(_report(text))


def _is_selected(name: str, words: list[str]) -> bool:
    """Return whether a case is named, or its direction (push) or work (big) is."""
    kind, _, work = name.partition("-")
    return name in words or kind in words or work in words


def _cases(
    part: float, rounds: int, with_inv: bool
) -> dict[str, Callable[[], Iterator[Row]]]:
    scale = transfers.FULL.part(part)
    cases: dict[str, Callable[[], Iterator[Row]]] = {
        "list": partial(commands.listing, rounds),
        "cycle": partial(commands.cycle, rounds),
    }
    for transfer in transfers.TRANSFERS:
        for direction in transfer.directions:
            cases[f"{direction}-{transfer.name}"] = partial(
                transfers.measure, transfer, direction, scale, rounds, with_inv
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
        f"Python {platform.python_version()}; medians of alternate rounds. "
        f"Only the ratios can be compared between machines.\n\n{text}\n"
    )


if __name__ == "__main__":
    main()
