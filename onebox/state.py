"""
What this machine remembers: whose we are, which box, what was meant to happen.

Everything here is a cache of what the provider's tags say, except the owner's
id and ssh key, which live in the configuration directory so that an emptied
state directory loses no box. The journal is written before each call that
creates or destroys, so that the next command can finish or undo it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import Busy, StateError
from .signals import held

FORMAT = 1
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the user's state directory: ONEBOX_STATE, else XDG's, else ~."""
    return _directory(environ, "ONEBOX_STATE", "XDG_STATE_HOME", ".local/state")


def config_dir(environ: Mapping[str, str]) -> Path:
    """Return where the owner's id and ssh key live: they must outlast state."""
    return _directory(environ, "ONEBOX_IDENTITY", "XDG_CONFIG_HOME", ".config")


def local_root(environ: Mapping[str, str]) -> Path:
    """Return where the `local` provider keeps its boxes: its "cloud"."""
    if environ.get("ONEBOX_LOCAL_ROOT"):
        return Path(environ["ONEBOX_LOCAL_ROOT"]).absolute()
    return _directory(environ, "", "XDG_DATA_HOME", ".local/share") / "local"


def owner(directory: Path) -> str:
    """Return the random id of this user on this machine; make it once."""
    path = directory / "owner"
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text("ascii", errors="replace").strip()
        if re.fullmatch(r"[a-z2-7]{12}", found):
            return found
        raise StateError(
            f"{path} does not hold an owner id",
            next=f"restore it, or remove it to become a new owner: rm {path}",
        )
    made = random_id(12)
    private_dir(directory)
    # Two first commands at once must agree: link() lets exactly one win.
    with tempfile.NamedTemporaryFile("w", dir=directory) as draft:
        draft.write(made + "\n")
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, path)
    sync_dir(directory)
    return path.read_text("ascii").strip()


def random_id(length: int = 10) -> str:
    """Return random lower-case base32: legal in every cloud's names."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


@dataclass(frozen=True)
class Record:
    """
    What is known of one project's box of one name.

    *ours_to_end* says that a chain made the box and owes its teardown; *job* is
    the latest job, *fetched* the digest of the outputs verified here of it,
    *discarded* that its outputs need not come back.
    """

    box: str = ""
    provider: str = ""
    vm: str = ""
    price: float | None = None
    on_demand: float | None = None
    created: float = 0.0
    deadline: float = 0.0
    ours_to_end: bool = False
    image: str = ""
    job: str = ""
    job_command: str = ""
    job_key: str = ""
    job_started: float = 0.0
    fetched: str = ""
    discarded: bool = False
    unknown: Mapping[str, Any] = field(default_factory=dict)


class Notebook:
    """The state of one box name of one project, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None

    @property
    def record(self) -> Record:
        """
        Read the record; a damaged one is set aside and counts as empty.

        Raises:
            StateError: It was written by a newer version.
        """
        path = self.directory / "state.json"
        try:
            data = json.loads(path.read_bytes())
            if not isinstance(data, dict):
                raise ValueError("not an object")
        except FileNotFoundError:
            return Record()
        except ValueError:
            self._set_aside(path)
            return Record()
        if data.pop("format", FORMAT) > FORMAT:
            raise StateError(
                f"{path} was written by a newer onebox",
                next="update onebox; `inv sweep` works without this file",
            )
        known = {f.name for f in fields(Record)} - {"unknown"}
        unknown = {k: v for k, v in data.items() if k not in known}
        return Record(**{k: v for k, v in data.items() if k in known}, unknown=unknown)

    def update(self, **changes: Any) -> Record:
        """Change the record and return it; it is on the disk when this returns."""
        record = replace(self.record, **changes)
        data = asdict(record)
        data.update(data.pop("unknown"))
        private_dir(self.directory)
        write_atomically(
            self.directory / "state.json",
            json.dumps({"format": FORMAT, **data}, indent=1).encode(),
        )
        return record

    def forget(self) -> None:
        """Empty the record, and the journal unless something in it is open."""
        if not self.open_intents():
            (self.directory / "journal").unlink(missing_ok=True)
        self.update(**asdict(Record()) | {"unknown": {}})

    @contextlib.contextmanager
    def intent(self, do: str, **what: Any) -> Iterator[dict[str, Any]]:
        """
        Journal what is about to be done, and that it has been.

        The line is on the disk before the body runs. If the body fails, the
        intent stays open, unless it says with `["undone"] = True` that nothing
        came of it.
        """
        entry = random_id(8)
        self._journal({"id": entry, "do": do, "at": time.time(), **what})
        outcome: dict[str, Any] = {}
        try:
            yield outcome
        except BaseException:
            if outcome.get("undone"):
                self._journal({"id": entry, "done": "nothing"})
            raise
        self._journal({"id": entry, "done": "yes"})

    def open_intents(self) -> list[dict[str, Any]]:
        """Return what was begun and not seen to its end, oldest first."""
        begun: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            if "do" in line:
                begun[line["id"]] = line
            else:
                begun.pop(line["id"], None)
        return list(begun.values())

    def close_intent(self, intent: Mapping[str, Any], how: str) -> None:
        """Note that an open intent has been dealt with."""
        self._journal({"id": intent["id"], "done": how})

    def lock(self, command: str) -> None:
        """
        Take this box for this process, until it ends.

        Raises:
            Busy: Another process has it; the message says which, since when.
        """
        if self._lock is not None:
            return
        private_dir(self.directory)
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 500).decode("utf-8", "replace") or "unknown"
            os.close(fd)
            raise Busy(
                f"busy: {holder}",
                next="wait for it; `inv status`, `inv logs`, `inv cancel` work now",
            ) from None
        since = time.strftime("%H:%M:%S")
        os.truncate(fd, 0)
        os.pwrite(fd, f'pid {os.getpid()} "{command}" since {since}'.encode(), 0)
        self._lock = fd

    def unlock(self) -> None:
        """Give the box free for other processes."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _journal(self, line: Mapping[str, Any]) -> None:
        private_dir(self.directory)
        text = json.dumps(line, separators=(",", ":"))
        whole = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        path = self.directory / "journal"
        with held():
            new = not path.exists()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # A line torn by a crash must not swallow this one.
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    whole = b"\n" + whole
                os.write(fd, whole)
                os.fsync(fd)
            finally:
                os.close(fd)
            if new:
                sync_dir(self.directory)

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            raw = (self.directory / "journal").read_bytes()
        except FileNotFoundError:
            return
        for line in raw.split(b"\n"):
            crc, _, text = line.partition(b" ")
            if crc == b"%08x" % zlib.crc32(text) and text:
                yield json.loads(text)

    def _set_aside(self, path: Path) -> None:
        for n in range(1, 1000):
            aside = path.with_name(f"{path.name}.corrupt-{n}")
            if not aside.exists():
                path.replace(aside)
                return


def private_dir(path: Path) -> Path:
    """Make a directory that only this user can enter, and its parents."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file so that after a crash it is either the old or the new."""
    with held():
        fd, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            try:
                os.fchmod(fd, mode)
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            Path(draft).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(draft).unlink()
            raise
        sync_dir(path.parent)


def sync_dir(path: Path) -> None:
    """Bring a directory's own entries to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _directory(environ: Mapping[str, str], own: str, xdg: str, home: str) -> Path:
    if own and environ.get(own):
        return Path(environ[own]).absolute()
    if environ.get(xdg):
        return Path(environ[xdg]).absolute() / "onebox"
    return Path(environ.get("HOME") or Path.home()) / home / "onebox"
