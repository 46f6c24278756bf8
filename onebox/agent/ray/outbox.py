"""
Hand the output of a job to the client, in files of a folder that it can read.

Nothing else leads from a node to the client: Ray has no store for outputs. The folder
is in the log folder of the node, which the head serves, or in a storage that the client
sees too. Every file is complete as soon as it has its name, and is never changed,
except for the status.

=================  ===================================================================
status.json        the progress, and the numbers of parts; it is replaced each time
log.N              the Nth part of the job's log
pack.N.json        the number of parts, the size and the hash of the Nth pack
pack.N.P           the Pth part of the Nth pack, which is an archive of outputs
=================  ===================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import IO, Any, Dict, Iterable, List, Tuple, cast

from ..box import replace_file
from ..file_names import show
from . import archive

STATUS = "status.json"
# A part of a log or of a pack has at most so many bytes. A reader keeps one in memory.
PART = 8 << 20
# An entry of an archive has about this many bytes beside its path and contents.
OVERHEAD = 120


class TooLarge(Exception):
    """The packs have more bytes than the client accepts."""


class Outbox:
    """
    The folder of a job's output on its node.

    Args:
        folder: Its path; it exists.

        most: The most bytes of all packs together; 0 means no limit.

        most_log: The most bytes of the log; 0 means no limit.
    """

    def __init__(self, folder: str, most: int = 0, most_log: int = 0) -> None:
        self.folder = folder
        self._most = most
        self._most_log = most_log
        # The range of the log that is not handed over.
        self.gap = [0, 0]
        self._bytes = 0
        self.packs = 0
        self.log_parts = 0
        self.log_bytes = 0

    def add_log(self, log: int, *, has_ended: bool = False) -> None:
        """
        Hand over what a log has got since the last call; *log* is open for that.

        Of a log that is too long, the first half of its limit is handed over while the
        job runs, and the last quarter at its end.
        """
        limit = self._most_log
        if has_ended and limit and not self.gap[1]:
            start = os.fstat(log).st_size - limit // 4
            if start > self.log_bytes >= limit // 2:
                self.gap = [self.log_bytes, start]
                self.log_bytes = start
        while not limit or has_ended or self.log_bytes < limit // 2:
            data = os.pread(log, PART, self.log_bytes)
            if not data:
                return
            _place(self.folder, "log.%d" % self.log_parts, data)
            self.log_parts += 1
            self.log_bytes += len(data)

    def add_pack(self, work: bytes, paths: Iterable[bytes]) -> List[bytes]:
        """
        Hand over the outputs *paths* of the folder *work*.

        Return those that cannot be read, or are too large: the smallest files go first
        if all packs together would have too many bytes.

        Raises:
            OSError: A file became shorter, or the disk of the outbox is full. Nothing
                of the pack is handed over.
        """
        left, kept = within(work, paths, self._left())
        parts = _Parts(self.folder, self.packs, 1 << 62)
        try:
            # It has all the methods that the writer of an archive needs.
            left += archive.write(cast("IO[bytes]", parts), work, kept)
            self._end_pack(parts)
        except BaseException:
            parts.remove()
            raise
        return left

    def add_archives(self, archives: Iterable[bytes]) -> None:
        """Hand over archives that nodes have sent, as one pack. Raises TooLarge."""
        parts = _Parts(self.folder, self.packs, self._left())
        try:
            for data in archives:
                parts.write(data)
            self._end_pack(parts)
        except BaseException:
            parts.remove()
            raise

    def write_status(self, status: Dict[str, Any]) -> None:
        """Replace the status, with the numbers of the parts that there are."""
        log = {"log_parts": self.log_parts, "log_gap": self.gap}
        whole = {**status, **log, "packs": self.packs}
        path = os.path.join(self.folder, STATUS)
        replace_file(path, json.dumps(whole).encode("ascii"), sync=False)

    def _left(self) -> int:
        return self._most - self._bytes if self._most else 1 << 62

    def _end_pack(self, parts: _Parts) -> None:
        parts.flush()
        digest = parts.hash.hexdigest()
        about = {"parts": parts.count, "size": parts.size, "sha256": digest}
        data = json.dumps(about).encode("ascii")
        _place(self.folder, "pack.%d.json" % self.packs, data)
        self._bytes += parts.size
        self.packs += 1


class _Parts:
    """A file that is written in parts of a folder."""

    def __init__(self, folder: str, number: int, left: int) -> None:
        self._folder = folder
        self._name = "pack.%d" % number
        self._left = left
        self._buffer = bytearray()
        self.count = 0
        self.size = 0
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write bytes. Raises TooLarge, OSError."""
        self.size += len(data)
        if self.size > self._left:
            raise TooLarge
        self.hash.update(data)
        self._buffer += data
        while len(self._buffer) >= PART:
            self._write_part(bytes(self._buffer[:PART]))
            del self._buffer[:PART]
        return len(data)

    def flush(self) -> None:
        """Write what is left as the last part."""
        if self._buffer:
            self._write_part(bytes(self._buffer))
            self._buffer.clear()

    def remove(self) -> None:
        """Remove the parts again."""
        for number in range(self.count):
            os.unlink(os.path.join(self._folder, "%s.%d" % (self._name, number)))

    def _write_part(self, data: bytes) -> None:
        _place(self._folder, "%s.%d" % (self._name, self.count), data)
        self.count += 1


def outputs(work: bytes, roots: Iterable[str]) -> List[bytes]:
    """
    Return the paths of the outputs *roots*, and of what links among them lead to.

    A link out of the folder *work*, or to nothing, leads to nothing here.
    """
    base = os.path.realpath(work)
    found: Dict[bytes, None] = {}
    unreadable: List[bytes] = []
    waiting = [os.path.normpath(os.fsencode(root)) for root in roots]
    while waiting:
        inner: List[bytes] = []
        for path in archive.walk(work, waiting, (), unreadable):
            if path in found:
                continue
            found[path] = None
            full = os.path.join(work, path)
            if os.path.islink(full):
                target = os.path.realpath(full)
                if target.startswith(base + b"/") and os.path.exists(target):
                    inner.append(os.path.relpath(target, base))
        waiting = [path for path in inner if path not in found]
    # The caller cannot read these either, and then names them.
    return [*found, *unreadable]


def within(
    work: bytes, paths: Iterable[bytes], most: int
) -> Tuple[List[bytes], List[bytes]]:
    """
    Return the paths to leave out, and the others, which have at most *most* bytes.

    The largest are left out, and those that cannot be read.
    """
    sizes, left, kept = [], [], set()
    for path in paths:
        try:
            st = os.lstat(os.path.join(work, path))
        except FileNotFoundError:
            continue
        except OSError:
            left.append(path)
            continue
        size = st.st_size if stat.S_ISREG(st.st_mode) else 0
        sizes.append((size + len(path) + OVERHEAD, path))
    if sum(size for size, _ in sizes) <= most:
        return left, [path for _, path in sizes]
    for size, path in sorted(sizes):
        most -= size
        if most >= 0:
            kept.add(path)
        else:
            left.append(path)
    return left, [path for _, path in sizes if path in kept]


def without_some(left: List[bytes], all: List[bytes]) -> str:
    """Return the sentence that names outputs that are not handed over, "" if none."""
    if not left:
        return ""
    names = ", ".join(show(path) for path in sorted(left)[:3])
    return (
        "%d of %d outputs are not here, such as %s: they cannot be read, or all have "
        "more than [ray] max_outputs" % (len(left), len(all), names)
    )


def _place(folder: str, name: str, data: bytes) -> None:
    """Create a file, which has another name until it is complete."""
    fresh = os.path.join(folder, ".new-" + name)
    with open(fresh, "wb") as file:
        file.write(data)
    os.rename(fresh, os.path.join(folder, name))
