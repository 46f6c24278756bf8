"""
Read Packer's machine-readable output from the file to which Packer writes it.

The output goes to a file instead of a pipe: Packer continues if onebox is killed, and
the next onebox command finds the image that Packer has built. Packer's process holds a
lock on the file while it runs.
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
from onebox.store.atomic_files import open_file

MANIFEST = "packer-manifest.json"
POLL_SECONDS = 0.1

# This matches Packer's messages about resources that it could not remove.
_LEFT = re.compile(r"manually|could not be (?:deleted|removed)|leftover", re.IGNORECASE)
# The ids of the `null` and `file` builders, whose artifacts are not images.
_NO_IMAGES = ("fnoeding.null", "packer.file")
_ESCAPES = {r"\n": "\n", r"\r": "\r", "%!(PACKER_COMMA)": ","}
_ESCAPED = re.compile("|".join(map(re.escape, _ESCAPES)))


@dataclass(frozen=True)
class PackerLine:
    """
    One line of Packer's machine-readable output.

    *target* is the build that the line is about, "" if it is not about a single build.
    *kind* is the line's type, and *data* holds the columns after the type.
    """

    target: str
    kind: str
    data: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the line's text for the user, "" if the line has none."""
        return self.data[1] if self.kind == "ui" and len(self.data) > 1 else ""


def parse(text: str) -> list[PackerLine]:
    """
    Parse complete lines of Packer's machine-readable output.

    A line in any other format is returned as a line with text for the user.
    """
    lines = []
    for raw_line in text.splitlines():
        parts = raw_line.split(",")
        if len(parts) < 3 or not parts[0].isdigit():
            lines.append(PackerLine("", "ui", ("say", raw_line)))
            continue
        data = tuple(_ESCAPED.sub(lambda m: _ESCAPES[m[0]], part) for part in parts[3:])
        lines.append(PackerLine(parts[1], parts[2], data))
    return lines


def read(path: Path) -> list[PackerLine]:
    """Return all lines of the output of a Packer that has ended."""
    with suppress(FileNotFoundError):
        return parse(path.read_text("utf-8", "replace"))
    return []


class Tail:
    """
    A reader of the growing output file.

    Each call of `lines` continues where the previous call stopped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self, running: Callable[[], bool]) -> Iterator[PackerLine]:
        """Yield the lines as they are written, until Packer has ended."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while True:
                # The process is checked before the file is read. If it has ended by
                # then, the read below sees all lines that it has written.
                last = not running()
                for line in file:
                    if not line.endswith(b"\n") and not last:
                        break
                    self._offset += len(line)
                    yield from parse(line.decode("utf-8", "replace"))
                if last:
                    return
                file.seek(self._offset)
                time.sleep(POLL_SECONDS)


def artifact(lines: list[PackerLine]) -> str:
    """Return the id of the last image that was built, "" if there is no image."""
    ids: dict[tuple[str, str], str] = {}
    builders: dict[tuple[str, str], str] = {}
    for line in lines:
        if line.kind == "artifact" and len(line.data) >= 3:
            key = (line.target, line.data[0])
            if line.data[1] == "id":
                ids[key] = line.data[2]
            elif line.data[1] == "builder-id":
                builders[key] = line.data[2]
    images = [
        id
        for key, id in ids.items()
        if id not in ("", "Null", "File") and builders.get(key) not in _NO_IMAGES
    ]
    return images[-1] if images else ""


def artifact_of_manifest(path: Path, since: float) -> str:
    """
    Return the image's id from the manifest that Packer's post-processor wrote.

    The id is "" if there is no usable manifest.

    Args:
        since: A manifest that was written before this time is ignored (epoch seconds).
    """
    try:
        if path.stat().st_mtime < since:
            return ""
        manifest = json.loads(path.read_bytes())
        latest = manifest["last_run_uuid"]
        builds = [b for b in manifest["builds"] if b["packer_run_uuid"] == latest]
        return str(builds[-1]["artifact_id"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return ""


def leftovers(lines: list[PackerLine]) -> list[str]:
    """Return Packer's messages about resources that it could not remove."""
    texts = [line.text for line in lines if line.text]
    return list(dict.fromkeys(text for text in texts if _LEFT.search(text)))


def errors(lines: list[PackerLine]) -> list[str]:
    """Return Packer's error messages."""
    own = [line.data[0] for line in lines if line.kind == "error" and line.data]
    # Packer marks the stderr lines of scripts like its own errors. If Packer has no
    # error of its own, the last of these lines is the best guess.
    marked = [line.text for line in lines if line.text and line.data[0] == "error"]
    return [" ".join(text.split()) for text in own or marked[-1:]]


def lock(path: Path) -> int:
    """
    Create the output file and lock it; return its descriptor.

    Packer inherits the descriptor, and with it the lock.

    Raises:
        Busy: Another Packer writes to the file.
    """
    fd = open_file(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(fd, 0)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise Busy(
                "busy: another onebox command builds this image",
                next="inv image, after that one has ended",
            ) from None
        raise
    return fd


def wait_for_end(path: Path, waiting: Callable[[], None]) -> None:
    """
    Wait until no Packer writes to the file.

    If a wait is necessary, call *waiting* first.
    """
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
