"""Check what boxes on this machine need, for `inv doctor`."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from importlib import metadata
from pathlib import Path

from onebox.providers.values import Check

from . import confinement

# With less free space than this, a virtual environment may not fit.
_LITTLE_DISK = 2 << 30


def checks(root: Path) -> list[Check]:
    """
    Check what a box needs and how its jobs are confined; return the lines to show.
    """
    protection = confinement.here()
    return [
        Check("boxes", True, f"in {root}"),
        Check("confinement", protection.complete or None, protection.describe()),
        _processes(),
        _account(),
        _space(root),
        _server(),
    ]


def _processes() -> Check:
    if sys.platform.startswith("linux"):
        return Check("processes", True, "can track daemons")
    return Check(
        "processes",
        None,
        "cannot track a daemon that clears its environment; it outlives its box",
    )


def _account() -> Check:
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return Check(
            "account",
            False,
            f"user id {os.getuid()} has no entry in /etc/passwd, so ssh does not run",
            "add one, or run as a user that has one",
        )
    return Check("account", True, name)


def _space(root: Path) -> Check:
    existing = root
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    detail = f"{free / 1e9:.1f} GB free for boxes"
    return Check("disk", None if free < _LITTLE_DISK else True, detail)


def _server() -> Check:
    try:
        return Check("ssh server", True, f"asyncssh {metadata.version('asyncssh')}")
    except metadata.PackageNotFoundError:
        return Check(
            "ssh server", False, "asyncssh is not installed", "pip install asyncssh"
        )
