"""Find the folders of onebox itself, and the folders that must not be a project."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from onebox.errors import StateError

# This matches a job's id, the name of the folder of its log. An id begins with the date
# and time, so ids sort by age.
JOB = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the state directory: $ONEBOX_STATE, or one below $XDG_STATE_HOME or ~."""
    return _directory(environ, "ONEBOX_STATE", "XDG_STATE_HOME", ".local/state")


def config_dir(environ: Mapping[str, str]) -> Path:
    """Return the directory of owner id and ssh key; it must outlast the state."""
    return _directory(environ, "ONEBOX_IDENTITY", "XDG_CONFIG_HOME", ".config")


def local_root(environ: Mapping[str, str]) -> Path:
    """Return the directory in which the `local` provider keeps its boxes."""
    if environ.get("ONEBOX_LOCAL_ROOT"):
        return _absolute(environ, "ONEBOX_LOCAL_ROOT")
    return _directory(environ, "", "XDG_DATA_HOME", ".local/share") / "local"


def ssh_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the user's own ssh configuration."""
    return _home(environ) / ".ssh"


def own_folders(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders of onebox's key, state and local boxes; the keys name them."""
    return {
        "onebox's own key": config_dir(environ),
        "onebox's state": state_dir(environ),
        "the local boxes": local_root(environ),
    }


def own_folder_near(path: Path, environ: Mapping[str, str]) -> tuple[str, Path] | None:
    """
    Return one of onebox's own folders that contains *path* or lies in it.

    Returns:
        The description and the path of that folder, None if there is no such folder.
    """
    real = path.resolve()
    for name, folder in own_folders(environ).items():
        place = folder.resolve()
        if holds(real, place) or holds(place, real):
            return name, folder
    return None


def why_no_project(root: Path, environ: Mapping[str, str]) -> str | None:
    """Return why a folder must not be pushed as a project; None if it may be pushed."""
    real = root.resolve()
    for home in _homes(real, environ):
        if real == home:
            return f"{root} is a home folder"
        if holds(real, home):
            return f"{root} holds a home folder, {home}"
    for name, folder in own_folders(environ).items():
        if holds(real, folder.resolve()):
            return f"{root} holds {name}, in {folder}"
    return None


def holds(outer: Path, inner: Path) -> bool:
    """Return whether *inner* is the same path as *outer* or lies in *outer*."""
    return outer == inner or outer in inner.parents


def _directory(environ: Mapping[str, str], own: str, xdg: str, home: str) -> Path:
    """
    Return a directory of onebox, as an environment variable or a default gives it.

    Args:
        own: The name of onebox's variable, whose value is the directory itself.

        xdg: The name of the XDG variable, whose value is the parent of the directory.

        home: The default for the parent, relative to the home folder. It is used if
            neither variable is set.
    """
    if own and environ.get(own):
        return _absolute(environ, own)
    # The XDG specification requires an absolute path and ignores a relative one.
    if Path(environ.get(xdg, "")).is_absolute():
        return Path(environ[xdg]) / "onebox"
    return _home(environ) / home / "onebox"


def _absolute(environ: Mapping[str, str], variable: str) -> Path:
    """
    Return the path that a variable holds.

    Raises:
        StateError: The path is relative. In another working directory it would be
            another folder, and the boxes that are recorded there would be forgotten.
    """
    path = Path(environ[variable])
    if not path.is_absolute():
        raise StateError(
            f"{variable} is not an absolute path: {str(path)!r}",
            next=f"export {variable}={shlex.quote(str(path.expanduser().absolute()))}",
        )
    return path


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


def _homes(root: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """
    Yield the home folders that must not be pushed.

    They are $HOME, and the home folders of this account and of the owner of *root*.
    """
    if Path(environ.get("HOME", "")).is_absolute():
        yield Path(environ["HOME"]).resolve()
    for uid in dict.fromkeys((os.getuid(), root.stat().st_uid)):
        # In a container, the account may have no entry in the password file.
        with contextlib.suppress(KeyError):
            yield Path(pwd.getpwuid(uid).pw_dir).resolve()
