"""Runs Python scripts that use `onebox.api`, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onebox
from tests.conftest import Done, Project

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


def script(project: Project, code: str, *words: str, cwd: Path | None = None) -> Done:
    """Run a Python script to its end; *cwd* is the project folder by default."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code, *words],
        cwd=cwd or project.root,
        env={**project.environ, "PYTHONWARNINGS": "error", "PYTHONPATH": PACKAGE},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def shown(text: str) -> list[str]:
    """Return the lines that the script itself has printed."""
    return [line[2:] for line in text.splitlines() if line.startswith("= ")]
