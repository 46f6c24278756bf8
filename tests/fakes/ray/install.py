"""Ray in a virtual environment of its own, which all test processes share."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

# The version is here alone. Ray is not among the requirements of `.[dev]`: it pins
# other packages, needs Python 3.10, and takes 400 MB that few tests need.
VERSION = "2.60.0"
OLDEST_PYTHON = (3, 10)
PLACE = Path(f"/var/tmp/onebox-tests-{os.getuid()}")
VENV = PLACE / f"ray-venv-{VERSION}"
PYTHON = VENV / "bin/python"
TOOLS = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen")
SSHD = "/usr/sbin/sshd"
# The file that the last step of an installation makes.
COMPLETE = "onebox-complete"
TIMEOUT = 900


class CannotInstall(Exception):
    """Ray cannot be installed on this host; the message has the reason."""


@functools.cache
def missing() -> str:
    """
    Return why this host cannot run a cluster, "" if it can.

    The first call on a host installs Ray, which takes about a minute: call it in a
    fixture, not while tests are collected.
    """
    if os.getuid() != 0:
        return "a Ray cluster needs root: namespaces and mounts"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for tool in TOOLS:
        if shutil.which(tool, path=path) is None:
            return f"{tool} is missing: apt install iproute2 openssh-client"
    if not Path(SSHD).exists():
        return "sshd is missing: apt install openssh-server"
    if sys.version_info < OLDEST_PYTHON and not _usable():
        return f"Ray {VERSION} needs Python 3.10"
    try:
        install()
    except (CannotInstall, OSError) as error:
        return str(error)
    return ""


def install() -> None:
    """Install Ray, unless it is installed."""
    PLACE.mkdir(mode=0o700, exist_ok=True)
    if PLACE.stat().st_uid != os.getuid():
        raise CannotInstall(f"{PLACE} is another user's")
    with (PLACE / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _usable():
            return
        # Its scripts contain its path, so it is made where it stays.
        shutil.rmtree(VENV, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(VENV))
        words = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(str(PYTHON), *words, f"ray[default]=={VERSION}")
        (VENV / COMPLETE).touch()


def _usable() -> bool:
    """Return whether Ray is installed, for an interpreter that still exists."""
    return (VENV / COMPLETE).exists() and PYTHON.exists()


def _run(*words: str) -> None:
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        error = done.stderr.strip().splitlines()[-1:]
        raise CannotInstall(f"Ray {VERSION} cannot be installed: {error}")
