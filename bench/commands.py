"""Measure the command itself: its start, its memory, a whole cycle."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import data
from lab import Lab
from measure import Row, Way, alternately, log

JOB = "mkdir -p results && date > results/when"
SCRIPT = """\
set -e
{ssh} -M -N -f -o ControlPersist=600 bench </dev/null
rsync -a -e "{ssh}" data bench:{far}/
{ssh} bench 'cd {far} && {job}'
rsync -a -e "{ssh}" bench:{far}/results .
{ssh} bench rm -r {far}
{ssh} -O exit bench 2>/dev/null
"""


def listing(rounds: int) -> Iterator[Row]:
    """Measure the CPU time of `inv --list` with onebox and with an empty file."""
    with Lab.open(0) as lab:
        bare = lab.base / "bare"
        bare.mkdir()
        # One task, because Invoke fails without any.
        (bare / "tasks.py").write_text(
            "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"
        )

        def spent(folder: Path) -> float:
            return _cpu([sys.executable, "-m", "invoke", "--list"], folder, lab)

        spent(lab.project), spent(bare)
        mine, theirs = alternately(
            max(rounds, 3) * 5,
            [
                Way("onebox", lambda: spent(lab.project)),
                Way("tasks.py with one task", lambda: spent(bare)),
            ],
        )
    yield Row(
        "list",
        "inv --list, CPU time",
        "tasks.py with one task",
        mine,
        theirs,
        1.1,
        unit="ms",
    )


def cycle(rounds: int) -> Iterator[Row]:
    """Measure provision to teardown against a script with ssh and rsync."""
    with Lab.open(0) as lab, lab.peer() as peer:
        data.empty(lab.data)
        lab.data.rmdir()
        data.many_files(lab.data, 200, 100_000)
        toml = lab.project / "onebox.toml"
        toml.write_text(toml.read_text() + f'\n[run]\ncommand = "{JOB}"\n')
        far = lab.peers / "work"
        script = SCRIPT.format(ssh=" ".join(peer.ssh), far=far, job=JOB)
        here = lab.base / "script"
        here.mkdir()
        (here / "data").symlink_to(lab.data)

        def ours() -> None:
            subprocess.run(
                [sys.executable, "-m", "invoke", "run"],
                cwd=lab.project,
                env=lab.environ,
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )

        def theirs() -> None:
            far.mkdir()
            subprocess.run(
                ["bash", "-c", script.replace("-a -e", "-aL -e", 1)],
                cwd=here,
                check=True,
            )

        mine, its = alternately(
            rounds, [Way("inv run", ours), Way("ssh + rsync script", theirs)]
        )
    yield Row(
        "cycle",
        "provision … teardown, 200 files, 20 MB",
        "ssh + rsync + ControlMaster script",
        mine,
        its,
        1.5,
    )


def memory(count: int) -> Iterator[Row]:
    """Measure the peak memory of `inv push` and `inv fetch` of many files."""
    with Lab.open(0) as lab, lab.ours():
        for word, folder in (("push", lab.data), ("fetch", lab.work / "results")):
            data.empty(folder)
            folder.rmdir()
            data.many_files(folder, count, 20)
            for what in ("", ", 1 changed"):
                log(f"    inv {word}{what}")
                peak = _run(lab.inv(word), lab.project, lab).ru_maxrss / 1024
                data.change_some(folder, 1)
                yield Row(
                    f"memory-{word}",
                    f"inv {word} of {count:,} files{what}",
                    "150 MB",
                    peak,
                    150.0,
                    1.0,
                    unit="MB",
                )


def _cpu(argv: list[str], folder: Path, lab: Lab) -> float:
    usage = _run(argv, folder, lab)
    return (usage.ru_utime + usage.ru_stime) * 1000


def _run(argv: list[str], folder: Path, lab: Lab) -> resource.struct_rusage:
    """Run a command; return its resource usage."""
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=lab.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert not process.returncode, f"exit {process.returncode}: {argv}"
    return usage
