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
import pwd
import re
import secrets
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from onebox.errors import Busy, StateError
from onebox.signals import held
from onebox.store.atomic_files import (
    clear_drafts,
    private_dir,
    sync_dir,
    write_all,
    write_atomically,
)

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
    """
    Return the random id of this user on this machine; make it once.

    Raises:
        StateError: The file is damaged, or cannot be read or written.
    """
    path = directory / "owner"
    with _usable(path):
        return _owner(path)


def _owner(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text("ascii", errors="replace").strip()
        if re.fullmatch(r"[a-z2-7]{12}", found):
            return found
        raise StateError(
            f"{path} does not hold an owner id",
            next=f"restore it, or remove it to become a new owner: rm {path}",
        )
    made = random_id(12)
    private_dir(path.parent)
    # Two first commands at once must agree: link() lets exactly one win.
    with tempfile.NamedTemporaryFile("w", prefix=".draft-", dir=path.parent) as draft:
        draft.write(made + "\n")
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, path)
    sync_dir(path.parent)
    return path.read_text("ascii").strip()


def random_id(length: int = 10) -> str:
    """Return random lower-case base32: legal in every cloud's names."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def note_provider(directory: Path, name: str) -> None:
    """Write down, in the state directory, that boxes are made at this provider."""
    mark = directory / "providers" / name
    clear_drafts(mark.parent, ".*-*")
    if not mark.exists():
        with _usable(mark):
            private_dir(mark.parent)
            write_atomically(mark, b"")


def providers_used(directory: Path) -> list[str]:
    """Return the providers at which boxes were ever made from here."""
    return sorted(mark.name for mark in (directory / "providers").glob("[a-z]*"))


@dataclass(frozen=True)
class Record:
    """
    What is known of one project's box of one name.

    *ours_to_end* says that a chain made the box and owes its teardown; *job* is
    the latest job, *fetched* the digest of the outputs verified in *into* of it,
    *discarded* that its outputs need not come back. *place* is where the box was
    made, *host_key* the key that it was told to answer with from now on. *job_into*
    is the folder that the job's outputs go to, "" for the usual one. *kept_builder*
    is a box that `image --keep` has left up. *arrived* is False from the create on
    until the box has come up.
    """

    box: str = ""
    provider: str = ""
    place: str = ""
    host_key: str = ""
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
    job_outputs: str = ""
    job_into: str = ""
    job_started: float = 0.0
    fetched: str = ""
    into: str = ""
    discarded: bool = False
    kept_builder: str = ""
    arrived: bool = True
    unknown: Mapping[str, Any] = field(default_factory=dict)


class BoxStore:
    """
    The state of one box name of one project, in one directory.

    Args:
        tell: Is given a sentence when something here turns out to be damaged.
    """

    _locks: ClassVar[dict[Path, int]] = {}

    def __init__(
        self, directory: Path, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self.directory = directory
        self._path = directory / "state.json"
        self._tell = tell

    @property
    def record(self) -> Record:
        """
        Read the record: empty if there is none, or none that can be understood.

        A damaged one is set aside. One of a newer version stays as it is: what
        only looks works without it, and what would change it is refused.
        """
        data = self._read()
        return Record() if _newer(data) else _understood(data)

    def update(self, **changes: Any) -> Record:
        """
        Change the record and return it; it is on the disk when this returns.

        Raises:
            StateError: A newer version has written it, or it cannot be written.
        """
        self._check_format()
        record = replace(self.record, **changes)
        data = asdict(record)
        data.update(data.pop("unknown"))
        with _usable(self._path):
            private_dir(self.directory)
            write_atomically(
                self._path, json.dumps({"format": FORMAT, **data}, indent=1).encode()
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

            StateError: A newer version has written the state.
        """
        # A task may work on one box through several notebooks: `run(c)`, then
        # `run(c, name="main")`. They must not wait for each other.
        if self.directory in self._locks:
            return
        self._check_format()
        # Nothing may come between the lock and its note: it would stay for good.
        with _usable(self.directory / "lock"), held():
            private_dir(self.directory)
            fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _take(fd, command)
            except BaseException:
                os.close(fd)
                raise
            self._locks[self.directory] = fd
            # What commands that were killed while writing have left.
            for draft in self.directory.glob(".*.json-*"):
                draft.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Give the box free for other processes."""
        fd = self._locks.pop(self.directory, None)
        if fd is not None:
            os.close(fd)

    def _journal(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":"))
        whole = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        path = self.directory / "journal"
        with _usable(path), held():
            private_dir(self.directory)
            new = not path.exists()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # A line torn by a crash must not swallow this one.
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    whole = b"\n" + whole
                # On a disk that is filling up, the first write may be a short one.
                write_all(fd, whole)
                os.fsync(fd)
            finally:
                os.close(fd)
            if new:
                sync_dir(self.directory)

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.directory / "journal"
        with _usable(path):
            raw = path.read_bytes() if path.exists() else b""
        for line in raw.split(b"\n"):
            crc, _, text = line.partition(b" ")
            if crc == b"%08x" % zlib.crc32(text) and text:
                yield json.loads(text)

    def _read(self) -> dict[str, Any]:
        """Return what state.json holds, nothing if it is damaged or not there."""
        with _usable(self._path):
            try:
                data = json.loads(self._path.read_bytes())
            except FileNotFoundError:
                return {}
            except (ValueError, RecursionError):
                data = None
            if _is_whole(data):
                return dict(data)
            self._set_aside()
        return {}

    def _check_format(self) -> None:
        if _newer(self._read()):
            raise StateError(
                f"{self._path} was written by a newer onebox",
                next="update onebox; `inv status` and `inv sweep` work without it",
            )

    def _set_aside(self) -> None:
        for n in range(1, 1000):
            superseded = self._path.with_name(f"{self._path.name}.corrupt-{n}")
            if superseded.exists():
                continue
            # Another process may have been quicker.
            with contextlib.suppress(FileNotFoundError):
                self._path.replace(superseded)
                self._tell(
                    f"{self._path} was damaged: it is kept as {superseded.name}, and "
                    "what "
                    "is there is looked up by its tags"
                )
            return


def _take(fd: int, command: str) -> None:
    """Lock a file and write into it who we are. Raises Busy, or OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 500).decode("utf-8", "replace") or "unknown"
        raise Busy(
            f"busy: {holder}",
            next="wait for it; `inv status`, `inv logs`, `inv cancel` work now",
        ) from None
    since = time.strftime("%H:%M:%S")
    text = f'pid {os.getpid()} "{command}" since {since}'
    os.truncate(fd, 0)
    os.pwrite(fd, text.encode("utf-8", "replace"), 0)


def _is_whole(data: Any) -> bool:
    """Tell whether every value has the type that a record's has."""
    if not isinstance(data, dict):
        return False
    version = data.get("format", FORMAT)
    if not isinstance(version, int) or isinstance(version, bool):
        return False
    return _newer(data) or all(
        _fits(data[name], default) for name, default in _KNOWN.items() if name in data
    )


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if default is None:
        return value is None or isinstance(value, (int, float))
    return isinstance(value, (int, float) if isinstance(default, float) else str)


def _newer(data: Mapping[str, Any]) -> bool:
    return bool(data.get("format", FORMAT) > FORMAT)


def _understood(data: dict[str, Any]) -> Record:
    data.pop("format", None)
    unknown = {name: value for name, value in data.items() if name not in _KNOWN}
    known = {name: value for name, value in data.items() if name in _KNOWN}
    return Record(**known, unknown=unknown)


_KNOWN = {f.name: f.default for f in fields(Record) if f.name != "unknown"}


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error that names the file."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{error.filename or path}: {error.strerror}",
            next="make room, or mend its permissions; then the same command again",
        ) from error


def _directory(environ: Mapping[str, str], own: str, xdg: str, home: str) -> Path:
    if own and environ.get(own):
        return Path(environ[own]).absolute()
    # A relative one is to be ignored, says XDG: it would mean another folder in each.
    if Path(environ.get(xdg, "")).is_absolute():
        return Path(environ[xdg]) / "onebox"
    return _home(environ) / home / "onebox"


def _home(environ: Mapping[str, str]) -> Path:
    """Return the user's home: HOME, or the account's if that is not absolute."""
    if Path(environ.get("HOME", "")).is_absolute():
        return Path(environ["HOME"])
    with contextlib.suppress(KeyError):
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    raise StateError(
        "HOME is not an absolute path, and this account has no home",
        next="export HOME=/an/absolute/path",
    )
