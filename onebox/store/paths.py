"""The directories in which onebox keeps state, identity and local boxes."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from onebox.errors import StateError


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the state directory: $ONEBOX_STATE, or one below $XDG_STATE_HOME or ~."""
    return _directory(environ, "ONEBOX_STATE", "XDG_STATE_HOME", ".local/state")


def config_dir(environ: Mapping[str, str]) -> Path:
    """Return the directory of owner id and ssh key, which must outlast the state."""
    return _directory(environ, "ONEBOX_IDENTITY", "XDG_CONFIG_HOME", ".config")


def local_root(environ: Mapping[str, str]) -> Path:
    """Return the directory in which the `local` provider keeps its boxes."""
    if environ.get("ONEBOX_LOCAL_ROOT"):
        return Path(environ["ONEBOX_LOCAL_ROOT"]).absolute()
    return _directory(environ, "", "XDG_DATA_HOME", ".local/share") / "local"


def _directory(environ: Mapping[str, str], own: str, xdg: str, home: str) -> Path:
    """
    Return the directory that one of two variables names, or one below the home folder.

    Args:
        own: Our variable; its value is used as it is.

        xdg: The XDG variable; its value is the parent directory.

        home: The parent directory below the home folder if neither is set.
    """
    if own and environ.get(own):
        return Path(environ[own]).absolute()
    # The XDG specification requires an absolute path and ignores a relative one.
    if Path(environ.get(xdg, "")).is_absolute():
        return Path(environ[xdg]) / "onebox"
    return _home(environ) / home / "onebox"


def _home(environ: Mapping[str, str]) -> Path:
    """Return $HOME, or the home folder of the account if $HOME is not absolute."""
    if Path(environ.get("HOME", "")).is_absolute():
        return Path(environ["HOME"])
    with contextlib.suppress(KeyError):
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    raise StateError(
        "HOME is not an absolute path, and this account has no home folder",
        next="export HOME=/an/absolute/path",
    )
