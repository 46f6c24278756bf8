"""
Read what Packer says with -machine-readable, from the file that it writes it to.

A file, and not a pipe: Packer goes on when we are killed, and what it has built is
found there by the next command. Whoever holds the lock on that file is at work.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from onebox.errors import Busy

MANIFEST = "packer-manifest.json"
POLL = 0.1

# Packer names what it could not remove, and asks to have that done by hand.
_LEFT = re.compile(r"manually|could not be (?:deleted|removed)|leftover", re.IGNORECASE)
_NO_IMAGES = ("fnoeding.null", "packer.file")
_ESCAPES = {r"\n": "\n", r"\r": "\r", "%!(PACKER_COMMA)": ","}
_ESCAPED = re.compile("|".join(map(re.escape, _ESCAPES)))


@dataclass(frozen=True)
class PackerLine:
    """One line: whom it is about ("" if nobody), of what *kind*, and its *data*."""

    target: str
    kind: str
    data: tuple[str, ...]

    @property
    def text(self) -> str:
        """What a person is to read of it, "" if nothing."""
        return self.data[1] if self.kind == "ui" and len(self.data) > 1 else ""


def parse(text: str) -> list[PackerLine]:
    """Read whole lines; what is none of Packer's is passed on as text to read."""
    found = []
    for line in text.splitlines():
        parts = line.split(",")
        if len(parts) < 3 or not parts[0].isdigit():
            found.append(PackerLine("", "ui", ("say", line)))
            continue
        data = tuple(_ESCAPED.sub(lambda m: _ESCAPES[m[0]], one) for one in parts[3:])
        found.append(PackerLine(parts[1], parts[2], data))
    return found


def read(path: Path) -> list[PackerLine]:
    """Return all that a finished Packer has said."""
    with suppress(FileNotFoundError):
        return parse(path.read_text("utf-8", "replace"))
    return []


class Tail:
    """Reads what is added to the file; goes on where it was when interrupted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0

    def lines(self, running: Callable[[], bool]) -> Iterator[PackerLine]:
        """Yield the lines as they come, until Packer no longer runs."""
        with self._path.open("rb") as file:
            file.seek(self._place)
            while True:
                # Asked first: what it says before its end is read after that.
                last = not running()
                for line in file:
                    if not line.endswith(b"\n") and not last:
                        break
                    self._place += len(line)
                    yield from parse(line.decode("utf-8", "replace"))
                if last:
                    return
                file.seek(self._place)
                time.sleep(POLL)


def artifact(lines: list[PackerLine]) -> str:
    """
    Return the id of the last image that was built, "" if none was.

    The `null` and `file` builders' artifacts are no images.
    """
    ids: dict[tuple[str, str], str] = {}
    builders: dict[tuple[str, str], str] = {}
    for line in lines:
        if line.kind == "artifact" and len(line.data) >= 3:
            key = (line.target, line.data[0])
            if line.data[1] == "id":
                ids[key] = line.data[2]
            elif line.data[1] == "builder-id":
                builders[key] = line.data[2]
    found = [
        id
        for key, id in ids.items()
        if id not in ("", "Null", "File") and builders.get(key) not in _NO_IMAGES
    ]
    return found[-1] if found else ""


def artifact_of_manifest(path: Path, since: float) -> str:
    """Return the id that a manifest written after *since* (epoch) tells of, or ""."""
    try:
        if path.stat().st_mtime < since:
            return ""
        told = json.loads(path.read_bytes())
        latest = told["last_run_uuid"]
        built = [b for b in told["builds"] if b["packer_run_uuid"] == latest]
        return str(built[-1]["artifact_id"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return ""


def leftovers(lines: list[PackerLine]) -> list[str]:
    """Return the sentences in which Packer names what it has left behind."""
    texts = [line.text for line in lines if line.text]
    return list(dict.fromkeys(text for text in texts if _LEFT.search(text)))


def errors(lines: list[PackerLine]) -> list[str]:
    """Return what went wrong, in Packer's own words."""
    told = [line.data[0] for line in lines if line.kind == "error" and line.data]
    # What scripts write to stderr is told like Packer's own errors.
    said = [line.text for line in lines if line.text and line.data[0] == "error"]
    return [" ".join(text.split()) for text in told or said[-1:]]


def lock(path: Path) -> int:
    """
    Open a file for Packer to write to; the lock goes to it with the descriptor.

    Raises:
        Busy: Another Packer has just begun to write to it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(fd, 0)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise Busy(
                "busy: another onebox command has begun to build this image",
                next="inv image, once that one has ended",
            ) from None
        raise
    return fd


def wait_for_end(path: Path, waiting: Callable[[], None]) -> None:
    """Wait until no Packer writes to the file any more; say once that we wait."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)
