"""Runs Python scripts that use `onebox.api`, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onebox
from tests.conftest import Done, Project, text
from tests.fakes import warm_processes

PACKAGE = str(Path(onebox.__file__).parents[1])
HEAD = """\
import contextlib, io, os, pathlib, signal, subprocess, sys, threading, time
from onebox import api, errors
def show(*words): print("=", *words, flush=True)
def note(*words): print("=", *words, file=sys.stderr, flush=True)
def let_jobs_continue():
    for home in pathlib.Path(os.environ["ONEBOX_LOCAL_ROOT"]).glob("boxes/*/disk/home"):
        (home / "work/go").touch()
"""


def script(
    project: Project,
    code: str,
    *words: str,
    cwd: Path | None = None,
    as_user: bool = False,
) -> Done:
    """
    Run a Python script to its end.

    Args:
        cwd: The project folder by default.

        as_user: Start Python for it, instead of a process that has imported onebox.
    """
    environ = {**project.environ, "PYTHONWARNINGS": "error", "PYTHONPATH": PACKAGE}
    words = (HEAD + code, *words)
    if not as_user:
        exit_code, out, err = warm_processes.run(
            words, cwd or project.root, environ, timeout=300, program="-c"
        )
        return Done(exit_code, text(out), text(err))
    done = subprocess.run(
        [sys.executable, "-c", *words],
        cwd=cwd or project.root,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )
    return Done(done.returncode, text(done.stdout), text(done.stderr))


def shown(text: str) -> list[str]:
    """Return the lines that the script itself has printed."""
    return [line[2:] for line in text.splitlines() if line.startswith("= ")]
