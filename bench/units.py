"""
Measure the pool of `inv map` against what a user would run units with instead.

    .venv/bin/python bench/units.py [case …] [--units N] [--rounds N] [--write]

The cases are `makespan` (units of `sleep 0.1`), `start` and `cpu` (time and CPU time of
units of `/bin/true`), and `memory` (1,000 and 10,000 units). Other work on the machine
changes the CPU time least. As many units run at once as this process has CPUs.
The peers are `xargs -P`, GNU `parallel`, and a `multiprocessing.Pool` of subprocesses;
all ways run alternately, and the table shows medians.

The pool is measured alone, by the real agent in a folder: from the request that starts
the job to the answer that has its exit record. As `inv map` does it, the command is a
line for bash, and each unit has a folder with its log and its result, on the disk of
$TMPDIR. The peers run the words of the command without a shell (`parallel` has one
always), and write nothing.

The goals are for `--units 1000`, which takes half an hour with two CPUs;
`--units 10000` takes some hours, and a first look, with 200, a few minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# onebox is the installed one, or else that of this checkout; the box is that of tests/.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from measure import Row, Way, alternately, log, table

from tests.fakes.agent_box import AgentBox, read

RESULTS = Path(__file__).with_name("results.md")
HEADING = "# What `python bench/units.py"
MEMORY = "/dev/shm"  # noqa: S108 - a private directory is made in it
CPUS = len(os.sched_getaffinity(0))
SLEEP, TRUE = "sleep 0.1", "/bin/true"
# The most that the start of a unit may cost beyond a bare fork and exec, in ms.
START_COST = 20.0
SMALL, LARGE = 1_000, 10_000
POOL = """\
import multiprocessing, subprocess, sys

def run(number):
    return subprocess.run(sys.argv[3:], stdin=subprocess.DEVNULL).returncode

if __name__ == "__main__":
    with multiprocessing.Pool(int(sys.argv[1])) as pool:
        codes = pool.imap_unordered(run, range(int(sys.argv[2])))
        sys.exit(any(list(codes)))
"""


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(
        description="Measure the pool of `inv map` against xargs, parallel and Python."
    )
    parser.add_argument("case", nargs="*", help="makespan, start, cpu, memory")
    parser.add_argument("--units", type=int, default=200, help="default: 200")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--write", action="store_true", help=f"replace the section in {RESULTS.name}"
    )
    options = parser.parse_args()
    # On SIGTERM, end the box and remove the files too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cases: dict[str, Callable[[str], Iterator[Row]]] = {
        "makespan": partial(makespan, options.units, options.rounds),
        "start": partial(start, options.units, options.rounds),
        "cpu": partial(cpu, options.units, options.rounds),
        "memory": memory,
    }
    unknown = [name for name in options.case if name not in cases]
    if unknown:
        raise SystemExit(
            f"no case {', '.join(unknown)}; the cases are: {', '.join(cases)}"
        )
    if not _has_parallel():
        log("GNU parallel is missing, so it is left out: apt install parallel")
    rows: list[Row] = []
    for name in options.case or cases:
        log(f"{name}, {time.strftime('%H:%M:%S')}")
        # The boxes stay to the end of the case, because ext4 creates files slowly for a
        # minute after others were removed.
        with tempfile.TemporaryDirectory(prefix="ob-") as folder:
            rows += cases[name](folder)
    text = table(rows)
    print(text)
    if options.write:
        _save(_section(text))


def makespan(count: int, rounds: int, folder: str) -> Iterator[Row]:
    """Measure the time from the start to the end of *count* units of 0.1 s."""
    peers = _peers()
    mine, *theirs = alternately(
        rounds,
        [
            Way("onebox", lambda: _ours(folder, SLEEP, count).seconds),
            *(
                Way(name, partial(_seconds, peers[name], SLEEP, count))
                for name in peers
            ),
        ],
    )
    ideal = -(-count // CPUS) * 0.1
    for name, its in zip(peers, theirs):
        yield Row(
            "makespan",
            f"{count:,} units of {SLEEP}",
            name,
            mine,
            its,
            1.05,
            beside=[("sleeps alone", ideal)],
        )


def start(count: int, rounds: int, folder: str) -> Iterator[Row]:
    """Measure what the start of a unit costs beyond a bare fork and exec."""
    peers = _peers()
    xargs = next(iter(peers))

    def each(run: Callable[..., Spent], *arguments: Any) -> float:
        return run(*arguments, count).seconds / count * 1000

    mine, by_words, in_memory, single, in_bash, *theirs = alternately(
        rounds,
        [
            Way("onebox", partial(each, _ours, folder, TRUE)),
            Way("onebox, without bash", partial(each, _ours, folder, [TRUE])),
            Way("onebox, in memory", partial(each, _ours_in_memory, TRUE)),
            Way("onebox, one unit", lambda: _ours(folder, TRUE, 1).seconds * 1000),
            Way("xargs -P, bash -c", partial(each, _peer, _xargs_bash, TRUE)),
            *(Way(name, partial(each, _peer, peers[name], TRUE)) for name in peers),
        ],
    )
    bare = theirs[0]
    yield Row(
        "start",
        f"of a unit of {TRUE}, beyond {xargs}, in {count:,} units",
        f"{START_COST:g} ms",
        mine - bare,
        START_COST,
        1.0,
        unit="ms",
        beside=[
            ("a unit of onebox", mine),
            ("without bash", by_words),
            ("in memory", in_memory),
            *zip(peers, theirs),
            ("xargs -P with bash -c", in_bash),
            ("a whole job of one unit", single),
        ],
    )


def cpu(count: int, rounds: int, folder: str) -> Iterator[Row]:
    """Measure the CPU time of a unit beyond a bare fork and exec, on all CPUs."""

    def each(run: Callable[..., Spent], *arguments: Any) -> float:
        return run(*arguments, count).cpu / count * 1000

    mine, in_bash, bare = alternately(
        rounds,
        [
            Way("onebox", partial(each, _ours, folder, TRUE)),
            Way("xargs -P, bash -c", partial(each, _peer, _xargs_bash, TRUE)),
            Way("xargs -P", partial(each, _peer, _xargs, TRUE)),
        ],
    )
    yield Row(
        "cpu",
        f"CPU time of the same, beyond xargs -P, in {count:,} units",
        f"{START_COST:g} ms",
        mine - bare,
        START_COST,
        1.0,
        unit="ms",
        beside=[
            ("a unit of onebox", mine),
            ("xargs -P", bare),
            ("xargs -P with bash -c", in_bash),
        ],
    )


def memory(folder: str) -> Iterator[Row]:
    """Measure the peak memory of the pool's process with few and with many units."""
    few, many = (_peaks(folder, count) for count in (SMALL, LARGE))
    yield Row(
        "memory",
        f"of the pool with {LARGE:,} units",
        f"with {SMALL:,} units",
        many["pool"],
        few["pool"],
        1.1,
        unit="MB",
        beside=[
            ("its supervisor", many["supervisor"]),
            (f"with {SMALL:,}", few["supervisor"]),
        ],
    )


class Spent(NamedTuple):
    """The seconds that the units of one way took, and the CPU seconds of all of it."""

    seconds: float
    cpu: float


# onebox


@contextlib.contextmanager
def _box(folder: str) -> Iterator[AgentBox]:
    """Yield a new box below *folder*, and end its processes afterwards."""
    box = AgentBox(Path(tempfile.mkdtemp(dir=folder)).resolve())
    try:
        yield box
    finally:
        box.close()


def _units(command: str | list[str], count: int) -> dict[str, Any]:
    """Return the `units` of a request."""
    return {
        "run": "bench",
        "total": count,
        "cpus": 1,
        "memory": 0,
        "retries": 0,
        "names": ["n"],
        "units": [
            [number, command, f"results/{number}/", [str(number)]]
            for number in range(1, count + 1)
        ],
    }


def _ours(folder: str, command: str | list[str], count: int) -> Spent:
    """Run units in a job of a new box, to its exit record."""
    units = _units(command, count)
    with _box(folder) as box, box.connect() as link:
        link.request("hello")
        began = time.perf_counter()
        link.request("start", job="j1", units=units)
        end = link.request("follow", job="j1", offset=0)
        seconds = time.perf_counter() - began
    assert end["record"]["code"] == 0, end
    assert end["units"]["done"] == count, end
    assert end["units"]["at_once"] == min(CPUS, count), end
    return Spent(seconds, end["record"]["cpu_seconds"])


def _ours_in_memory(command: str | list[str], count: int) -> Spent:
    """Do the same with all files in memory, to show what the disk costs."""
    with tempfile.TemporaryDirectory(prefix="ob-", dir=MEMORY) as folder:
        return _ours(folder, command, count)


def _peaks(folder: str, count: int) -> dict[str, float]:
    """Run units of /bin/true; return the peak memory of the job's processes in MB."""
    log(f"    {count:,} units")
    peaks: dict[str, float] = {}
    with _box(folder) as box, box.connect() as link:
        link.request("start", job="j1", units=_units(TRUE, count))
        record = box.root / "jobs" / "j1" / "exit"
        supervisor = pool = 0
        while not record.exists():
            pool = pool or _pool(box)
            supervisor = supervisor or _parent(pool)
            for name, pid in (("pool", pool), ("supervisor", supervisor)):
                # The kernel's own maximum, from the exec on.
                found = re.search(rb"VmHWM:\s+(\d+)", read(f"/proc/{pid}/status"))
                if found:
                    peaks[name] = int(found[1]) / 1024
            time.sleep(0.02)
        end = link.request("job", job="j1")
    assert end["units"]["done"] == count, end
    return peaks


def _pool(box: AgentBox) -> int:
    """Return the pid of the pool, 0 if it does not run yet."""
    words = {os.fsencode(box.pyz), b"pool"}
    found = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if words <= set(read(f"{path}/cmdline").split(b"\0"))
    ]
    # A unit has the same command line until its exec; the pool is older.
    return min(found, default=0)


def _parent(pid: int) -> int:
    """Return the parent of a process, 0 if there is none."""
    found = re.search(rb"PPid:\s+(\d+)", read(f"/proc/{pid}/status"))
    return int(found[1]) if found else 0


# The peers: each is a line for a shell, in a folder that has pool.py


def _peers() -> dict[str, Callable[[str, int], str]]:
    """Return the lines of the peers; the first is the bare fork and exec."""
    peers = {"xargs -P": _xargs}
    if _has_parallel():
        peers["GNU parallel"] = _parallel
    return {**peers, "multiprocessing.Pool": _multiprocessing}


def _xargs(command: str, count: int) -> str:
    return f"seq {count} | xargs -P {CPUS} -I {{}} {command}"


def _xargs_bash(command: str, count: int) -> str:
    return _xargs(f"bash -c {shlex.quote(command)}", count)


def _parallel(command: str, count: int) -> str:
    return f"seq {count} | parallel --will-cite -j {CPUS} -N0 {command}"


def _multiprocessing(command: str, count: int) -> str:
    return f"{shlex.quote(sys.executable)} pool.py {CPUS} {count} {command}"


def _peer(line: Callable[[str, int], str], command: str, count: int) -> Spent:
    """Run units as a peer does."""
    with tempfile.TemporaryDirectory(prefix="obp-") as scratch:
        Path(scratch, "pool.py").write_text(POOL)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line(command, count)}"],
            cwd=scratch,
            env={**os.environ, "PARALLEL_HOME": scratch},
            check=True,
            stdin=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(seconds, used)


def _seconds(line: Callable[[str, int], str], command: str, count: int) -> float:
    return _peer(line, command, count).seconds


def _has_parallel() -> bool:
    """Return whether `parallel` is that of GNU; moreutils has another one."""
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(
            ["parallel", "--version"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return b"GNU parallel" in done.stdout
    return False


# The report


def _section(text: str) -> str:
    line = shlex.join(["python", "bench/units.py", *sys.argv[1:]])
    note = "" if _has_parallel() else " GNU parallel was missing."
    return (
        f"# What `{line}` measured\n\n"
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, {platform.system()}, "
        f"Python {platform.python_version()}; medians of alternate rounds. "
        f"Only the ratios can be compared between machines.{note}\n\n{text}\n"
    )


def _save(section: str) -> None:
    """Replace the section of this benchmark; the others stay."""
    parts: Sequence[str] = re.split(r"(?m)^(?=# )", RESULTS.read_text())
    others = [part.strip() for part in parts if not part.startswith(HEADING)]
    RESULTS.write_text("\n\n".join([*filter(None, others), section]))


if __name__ == "__main__":
    main()
