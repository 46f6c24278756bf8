"""Name the files of a box, define its boot configuration, and read and write JSON."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# This variable holds the box's id in the environment of every process of the box.
MARK = "ONEBOX_BOX"


@dataclass(frozen=True)
class Layout:
    """
    The paths of the files of one box.

    In the box's directory, jobs can read and write only *disk* and *power*. They can
    also read *bin*.
    """

    path: Path

    @property
    def marker(self) -> Path:
        """A file with the box's id, which identifies the directory as a box."""
        return self.path / "box-id"

    @property
    def record(self) -> Path:
        """A file with the client's data about the box: tags, offer, image, host key."""
        return self.path / "record.json"

    @property
    def boot(self) -> Path:
        """A file with the boot configuration: keys, deadline, faults to inject."""
        return self.path / "boot.json"

    @property
    def state(self) -> Path:
        """A file with the supervisor's report: state, port, and why the box stopped."""
        return self.path / "state.json"

    @property
    def lock(self) -> Path:
        """A file that is locked while a process prepares, runs or saves the box."""
        return self.path / "lock"

    @property
    def control(self) -> Path:
        """A named pipe for orders from clients."""
        return self.path / "control"

    @property
    def power(self) -> Path:
        """A named pipe to which `poweroff` and similar commands in the box write."""
        return self.path / "power"

    @property
    def log(self) -> Path:
        """A file with the box's console: the output of supervisor and machine."""
        return self.path / "supervisor.log"

    @property
    def bin(self) -> Path:
        """
        The first folder in PATH, with python3 and replacements for power commands.
        """
        return self.path / "bin"

    @property
    def disk(self) -> Path:
        """
        The directory with all files that the box may write.

        It is a single mount, so that files can be renamed between its directories.
        """
        return self.path / "disk"

    @property
    def home(self) -> Path:
        """The home directory of the box."""
        return self.disk / "home"

    @property
    def tmp(self) -> Path:
        """The box's TMPDIR, which is also its /tmp if it has a mount namespace."""
        return self.disk / "tmp"

    @property
    def var_tmp(self) -> Path:
        """The directory that is the box's /var/tmp if it has a mount namespace."""
        return self.disk / "var-tmp"

    @property
    def agent(self) -> Path:
        """The directory of the agent's own files."""
        return self.disk / "onebox"

    @property
    def saving(self) -> Path:
        """The directory of an image of this box that is being saved."""
        return self.path / "saving"


@dataclass(frozen=True)
class MachineConfig:
    """
    The data with which the supervisor and the machine boot a box.

    *deadline* is in seconds since the epoch. *faults* are the faults to inject.
    *host_key* is the private key of the ssh server, *user_key* the public key of the
    client. *homes* are folders to hide, *read* folders to make readable. *python_path*
    lists the folders of the libraries that the machine imports, and *work* is the
    project's folder in the box's home. *agent* becomes the agent's `box.json`.
    """

    box: str
    deadline: float
    faults: Mapping[str, float]
    host_key: str
    user: str
    user_key: str
    homes: tuple[str, ...]
    lang: str
    proxies: Mapping[str, str]
    login_shell: str
    python_path: tuple[str, ...]
    read: tuple[str, ...]
    work: str
    agent: Mapping[str, Any]

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> MachineConfig:
        """Return the configuration in a JSON object."""
        lists = {name: tuple(value[name]) for name in ("homes", "python_path", "read")}
        return cls(**{**value, **lists})

    @classmethod
    def load(cls, path: Path) -> MachineConfig | None:
        """Return a file's configuration, None if the file is missing or invalid."""
        value = read_json(path)
        try:
            return None if value is None else cls.parse(value)
        except (KeyError, TypeError):
            # Another version of onebox has written the file.
            return None

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as a JSON object."""
        return asdict(self)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file atomically, readable only by this user."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None if the file is missing or invalid."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def make_fifo(path: Path) -> None:
    """Create a named pipe at *path*, unless there is one already."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        if not stat.S_ISFIFO(path.lstat().st_mode):
            raise
