"""The record of a push: which paths it wrote to the work folder, with what contents."""

from __future__ import annotations

import itertools
import os
from typing import Dict, NamedTuple

from ..box import Box, read
from .manifest import Entry

FORMAT = b"2"
# The mark of a path while a push is under way, when its contents are not known.
UNKNOWN = b""


class PushRecord(NamedTuple):
    """
    What a push wrote: a mark for each path, and the digest of the whole manifest.

    A mark identifies the contents of a file or the target of a link (see `mark`). The
    *digest* is "" while a push is under way.
    """

    marks: Dict[bytes, bytes]
    digest: str


def read_record(box: Box, kind: str) -> PushRecord:
    """Return the record of the last push of this kind; an empty one if none exists."""
    data = read(box.path("files", kind))
    if not data.endswith(b"\0end"):
        return PushRecord({}, "")
    first, *rest = data.split(b"\0")[:-1]
    if first != FORMAT:
        # An older agent stored paths alone. The next push stores the rest.
        return PushRecord(dict.fromkeys(rest, UNKNOWN), "")
    digest, *rows = rest
    return PushRecord(dict(zip(rows[::2], rows[1::2])), digest.decode("ascii"))


def write_record(box: Box, kind: str, record: PushRecord) -> None:
    """Replace the record of this kind; it is on the disk on return."""
    file = box.path("files", kind)
    rows = itertools.chain.from_iterable(record.marks.items())
    with open(file + ".new", "wb") as out:
        out.write(b"\0".join([FORMAT, record.digest.encode("ascii"), *rows, b"end"]))
        out.flush()
        os.fsync(out.fileno())
    os.replace(file + ".new", file)


def mark(entry: Entry) -> bytes:
    """Return the mark of an entry: size and hash of a file, or the target of a link."""
    if entry.kind == "f":
        return b"f%d %s" % (entry.size, (entry.sha or b"").hex().encode("ascii"))
    return entry.kind.encode("ascii") + entry.target


def own_file(box: Box, name: str) -> bytes:
    """Return the path of one of the agent's own files about files."""
    return os.fsencode(box.path("files", name))
