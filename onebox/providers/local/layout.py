"""Where everything of a box lies on disk, and how its files are written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# In the environment of every process of a box.
MARK = "ONEBOX_BOX"

# The two processes import this folder as a package of its own: the packages
# above it would bring in the whole of onebox, and what onebox imports.
_RUN = (
    "import sys; sys.path += sys.argv[2].split(':')"
    "; from local.{module} import main; main(sys.argv[3:])"
)


@dataclass(frozen=True)
class Layout:
    """
    The files of one box.

    Only what lies on *disk* may be written from inside, and *bin* read.
    """

    path: Path

    @property
    def marker(self) -> Path:
        """The file that makes the directory a box: it holds the box's id."""
        return self.path / "box-id"

    @property
    def record(self) -> Path:
        """What the client that made the box wants remembered: tags, size, image."""
        return self.path / "record.json"

    @property
    def boot(self) -> Path:
        """What the supervisor needs to boot: keys, deadline, faults to rehearse."""
        return self.path / "boot.json"

    @property
    def state(self) -> Path:
        """What the supervisor says of the box: state, port, why it stopped."""
        return self.path / "state.json"

    @property
    def lock(self) -> Path:
        """Held while somebody prepares or runs the box: held means alive."""
        return self.path / "lock"

    @property
    def control(self) -> Path:
        """The pipe for orders from outside."""
        return self.path / "control"

    @property
    def power(self) -> Path:
        """The pipe for what `poweroff` and its like inside the box ask for."""
        return self.path / "power"

    @property
    def log(self) -> Path:
        """What both processes say: the box's console."""
        return self.path / "supervisor.log"

    @property
    def bin(self) -> Path:
        """First in the box's PATH: its python3, and commands made harmless."""
        return self.path / "bin"

    @property
    def disk(self) -> Path:
        """All that the box may write, in one mount: files are renamed across it."""
        return self.path / "disk"

    @property
    def home(self) -> Path:
        """The home directory of the box."""
        return self.disk / "home"

    @property
    def tmp(self) -> Path:
        """The box's TMPDIR, and its /tmp where it has one of its own."""
        return self.disk / "tmp"

    @property
    def var_tmp(self) -> Path:
        """The box's /var/tmp, where it has one of its own."""
        return self.disk / "var-tmp"

    @property
    def agent(self) -> Path:
        """The agent's own directory."""
        return self.disk / "onebox"

    @property
    def saving(self) -> Path:
        """An image of the box while it is being written."""
        return self.path / "saving"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file that is there whole or not at all, for our user alone."""
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
    """Return a JSON file's object, None if there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def take_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, None if it cannot be had now."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        # The directory has just been removed by who had it.
        return None
    try:
        _lock(handle)
        # The file may have been removed, or replaced, before it was locked.
        same = os.path.samestat(os.fstat(handle), path.stat())
    except (BlockingIOError, FileNotFoundError):
        same = False
    if same:
        return handle
    os.close(handle)
    return None


def _lock(handle: int) -> None:
    """Lock a file. Raises BlockingIOError if somebody else has; a look is no lock."""
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        # `is_locked` of another process is in the way, if this gets through.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)
        time.sleep(0.001)


def is_locked(path: Path) -> bool:
    """Say whether somebody holds the lock."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def make_fifo(path: Path) -> None:
    """Make a named pipe, unless it is there."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        if not stat.S_ISFIFO(path.lstat().st_mode):
            raise


def command(module: str, path: Sequence[str], *arguments: str) -> list[str]:
    """Return the command that runs a module of this folder, alone, by our Python."""
    above = str(Path(__file__).resolve().parent.parent)
    places = ":".join([*path, above])
    code = _RUN.format(module=module)
    # -I and -S: neither the user's PYTHON* variables nor .pth files take part.
    return [sys.executable, "-I", "-S", "-c", code, module, places, *arguments]
