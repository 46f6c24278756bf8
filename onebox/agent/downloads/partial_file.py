"""A file that is downloaded in parts, some of them perhaps by an earlier download."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import Any, Dict, List, Tuple

from ..box import BoxConfig
from .record import Wanted

# An object that is larger than this is read in parts, by several threads.
PART_BYTES = 16 << 20
# The finished parts of a larger file are stored, so that a download goes on after a
# connection was lost.
WORTH_KEEPING = 2 * PART_BYTES
MOST_PARTS = 4096
# The list of finished parts is stored at this interval, in seconds.
STORE_SECONDS = 1.0

Span = Tuple[int, int]


class PartialFile:
    """
    The file *name* in the staging folder, and which parts of it are complete.

    The parts of an earlier boot do not count, because the data may not have reached the
    disk when the machine went down.

    Attributes:
        done: The finished parts, with the MD5 sums of their pieces.

    Args:
        folder: The descriptor of the staging folder.

        piece: The size of the pieces whose sums the store knows, 0 if there are none.
            A part begins and ends with a piece.
    """

    def __init__(
        self, box: BoxConfig, folder: int, wanted: Wanted, piece: int, whole: bool
    ) -> None:
        self.wanted = wanted
        self.name = name_of(wanted)
        self.done: Dict[Span, List[str]] = {}
        self.comparable = True
        self.piece = piece
        self._boot = box.boot_id
        self._folder = folder
        size = wanted.size
        step = PART_BYTES
        while size / step > MOST_PARTS:
            step *= 2
        if piece:
            step = max(step // piece, 1) * piece
        self._step = size if whole else step
        keep = not whole and size > WORTH_KEEPING
        self._keep = keep
        self._stored = time.monotonic()
        if keep:
            self._load()
        if not self.done:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self.name, flags, 0o600, dir_fd=folder)
            try:
                os.ftruncate(fd, size)
            finally:
                os.close(fd)

    def missing(self) -> List[Span]:
        """Return the parts that are missing, in order."""
        size = self.wanted.size
        spans = [
            (start, min(start + self._step, size))
            for start in range(0, size, max(self._step, 1))
        ]
        return [span for span in spans if span not in self.done]

    def finish(self, span: Span, sums: List[str]) -> None:
        """Note that a part is complete."""
        self.done[span] = sums
        if time.monotonic() > self._stored + STORE_SECONDS:
            self.store()

    def sums(self) -> List[str]:
        """Return the MD5 sums of all pieces, in order."""
        return [one for span in sorted(self.done) for one in self.done[span]]

    def forget(self) -> None:
        """Remove the file and what is stored about its parts."""
        for name in (self.name, self.name + b".parts"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)

    def forget_parts(self) -> None:
        """Remove what is stored about the parts, because the file is in its place."""
        if self._keep:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.name + b".parts", dir_fd=self._folder)

    def _load(self) -> None:
        try:
            fd = os.open(
                self.name + b".parts", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._folder
            )
            with open(fd, "rb") as file:
                stored = json.loads(file.read())
            size = os.stat(self.name, dir_fd=self._folder).st_size
            if stored[:3] != [self._boot, self._step, self.piece]:
                return
            if size == self.wanted.size:
                self.comparable = bool(stored[3])
                self.done = {(int(a), int(b)): list(sums) for a, b, sums in stored[4]}
        except (OSError, ValueError, TypeError, IndexError):
            self.done = {}

    def store(self) -> None:
        """Store which parts are complete, if the file is worth it."""
        self._stored = time.monotonic()
        if not self._keep:
            return
        rows: List[Any] = [[*span, sums] for span, sums in self.done.items()]
        head = [self._boot, self._step, self.piece, self.comparable]
        data = json.dumps([*head, rows]).encode("ascii")
        fresh = self.name + b".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600, dir_fd=self._folder), "wb") as file:
            file.write(data)
        os.rename(
            fresh,
            self.name + b".parts",
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
        )


def name_of(wanted: Wanted) -> bytes:
    """Return the name of a partial file: that of another version is another one."""
    identity = b"%d %s\0%s" % (wanted.size, wanted.version, wanted.path)
    return hashlib.sha256(identity).hexdigest()[:40].encode("ascii")
