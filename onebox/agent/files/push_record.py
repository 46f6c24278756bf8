"""Store the record of a push, and find the files on the box that have changed since."""

from __future__ import annotations

import itertools
import os
import re
import stat
from typing import Callable, Container, Dict, Iterator, List, NamedTuple, Tuple

from ..box import BoxConfig, read, replace_file
from ..downloads.record import DownloadRecord, is_as_downloaded
from ..jobs import job_state
from . import manifest
from .hash_index import Index, Unstable, hash_file
from .manifest import Entry

FORMAT = b"2"
# A path gets this mark if the contents of its file are not known. All paths have it
# while a push is under way.
UNKNOWN = b""
# At most this many names of changed files are sent to the client.
MOST_NAMES = 10
CACHE = b"__pycache__"
# Tools create files and folders of these names for their own use, in the folder in
# which they run. Other hidden files may be results: R keeps its whole workspace in
# `.RData`.
TOOL_FILES = re.compile(
    rb"(?i)\.[^/]*cache|__pycache__|[^/]*\.egg-info|\.(?:onebox|git|hg|jj|sl|ipynb_checkpoints|coverage"
    rb"|hypothesis|venv|tox|nox|eggs|rhistory|ds_store|nfs[0-9a-f]+|[^/]*\.sw[a-p])"
)


class PushRecord(NamedTuple):
    """
    What a push wrote: a mark for each path, and the digest of the whole manifest.

    A mark identifies the contents of a file or the target of a link (see `mark`). The
    *digest* is "" while a push is under way.
    """

    marks: Dict[bytes, bytes]
    digest: str


def read_record(box: BoxConfig, kind: str) -> PushRecord:
    """
    Return the record of the last push of this *kind*, or an empty one if there is none.
    """
    data = read(box.path("files", kind))
    if not data.endswith(b"\0end"):
        return PushRecord({}, "")
    first, *rest = data.split(b"\0")[:-1]
    if first != FORMAT:
        # An older agent stored only the paths. The next push also stores the marks.
        return PushRecord(dict.fromkeys(rest, UNKNOWN), "")
    digest, *rows = rest
    return PushRecord(dict(zip(rows[::2], rows[1::2])), digest.decode("ascii"))


def write_record(box: BoxConfig, kind: str, record: PushRecord) -> None:
    """Replace the record of this *kind*; return when the new one is on the disk."""
    rows = itertools.chain.from_iterable(record.marks.items())
    data = b"\0".join([FORMAT, record.digest.encode("ascii"), *rows, b"end"])
    replace_file(box.path("files", kind), data, sync=True)


def mark(entry: Entry) -> bytes:
    """Return the mark of an entry: size and hash of a file, or the target of a link."""
    if entry.kind == "f":
        return b"f%d %s" % (entry.size, (entry.sha or b"").hex().encode("ascii"))
    return entry.kind.encode("ascii") + entry.target


def own_file(box: BoxConfig, name: str) -> bytes:
    """Return the path of the file *name* in the agent's own folder `files`."""
    return os.fsencode(box.path("files", name))


class ChangesSincePush:
    """
    Compares the work folder with what was pushed, by content.

    Python's caches are ignored, and so are new files that tools write for themselves.
    """

    def __init__(self, box: BoxConfig, alive: Callable[[], None]) -> None:
        self._box = box
        self._alive = alive
        self._work = os.fsencode(box.work)
        self._marks: Dict[bytes, Tuple[bytes, ...]] = {}
        # The marks of downloaded files; they are among `_marks` too.
        self._downloaded: Dict[bytes, bytes] = {}
        self._index = Index()
        self._loaded = False

    def is_new(self, entry: Entry) -> bool:
        """
        Return whether an output is new or changed since the push; a folder never is.
        """
        if entry.kind == "d":
            return False
        self._load()
        marks = self._marks.get(entry.path)
        by_state = entry.path in self._downloaded
        if marks is not None and entry.kind == "f" and (by_state or entry.sha is None):
            return self._differs(entry.path)
        return marks is None or not (UNKNOWN in marks or mark(entry) in marks)

    def as_pushed(self, path: bytes) -> bool:
        """Return whether everything at and below *path* is as it was pushed."""
        self._load()
        if path not in self._marks:
            return False
        return not any(map(self._differs, manifest.below(self._work, path)))

    def changed_outside(
        self, places: Container[bytes], known: Dict[bytes, bytes]
    ) -> List[bytes]:
        """
        Return the paths of new and changed files that are not at or below *places*.

        A file is left out if *known* has its path and its mark: the client has it.

        New files that are in the home folder but outside of the work folder are
        included, as `~/name`.
        """
        if b"" in places:
            return []
        self._load()
        for path, known_mark in known.items():
            self._marks[path] = (*self._marks.get(path, ()), known_mark)
        unreadable: List[bytes] = []
        walked = manifest.walk(self._work, b"", skip=places, unreadable=unreadable)
        changed = {path for path in unreadable if not _is_tool_file(path)}
        changed.update(filter(self._differs, walked.paths))
        since = job_state.first_start(self._box)
        return [*sorted(changed), *sorted(self._new_in_home(since))]

    def changed_after(self, since: int) -> Dict[bytes, Tuple[bytes, ...]]:
        """
        Return the files that are new or changed since the push and since a time.

        Args:
            since: The time in nanoseconds since the epoch.

        Returns:
            The marks with which each path was pushed; none for a new file. New files
            of the home folder are included, as `~/name`.
        """
        self._load()
        walked = manifest.walk(self._work, b"", unreadable=[])
        found = {
            path: self._marks.get(path, ())
            for path in walked.paths
            if _is_newer(os.path.join(self._work, path), since) and self._differs(path)
        }
        found.update(dict.fromkeys(self._new_in_home(since), ()))
        return found

    def _new_in_home(self, since: int) -> Iterator[bytes]:
        """
        Yield the files in the home folder that have changed since a time.

        Files from the image of the box are older than the first job. If *since* is 0,
        no job has started.
        """
        home = os.fsencode(self._box.home)
        work = os.path.relpath(self._work, home)
        # Hidden folders are skipped, because they hold the settings and caches of
        # programs.
        for top in os.listdir(home) if since else []:
            if top.startswith(b".") or top == work:
                continue
            walked = manifest.walk(home, top, skip={work}, unreadable=[])
            for path in walked.paths:
                self._alive()
                newer = _is_newer(os.path.join(home, path), since)
                if newer and not _is_tool_file(path):
                    yield b"~/" + path

    def _differs(self, path: bytes) -> bool:
        self._alive()
        marks = self._marks.get(path)
        if marks is None and _is_tool_file(path):
            return False
        full = os.path.join(self._work, path)
        try:
            st = os.lstat(full)
            if stat.S_ISLNK(st.st_mode):
                entry = Entry(path, "l", 0o777, target=os.readlink(full))
            elif stat.S_ISREG(st.st_mode):
                entry = Entry(path, "f", 0, st.st_size)
            else:
                return False
            if marks is None:
                return True
            if UNKNOWN in marks or CACHE in path.split(b"/"):
                return False
            if is_as_downloaded(self._downloaded.get(path, UNKNOWN), st):
                return False
            # The entry has no hash yet. So its mark shows only the kind and size of a
            # file, or the target of a link. If the size differs, the file need not be
            # read.
            if not any(pushed.startswith(mark(entry)) for pushed in marks):
                return True
            if entry.kind == "f":
                sha = self._index.get(path, st) or hash_file(full, self._alive).sha
                entry = entry._replace(sha=sha)
        except FileNotFoundError:
            return False
        except (OSError, Unstable):
            return True
        return mark(entry) not in marks

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        self._index = Index(own_file(self._box, "pushed.index"))
        for kind in ("restored", "pushed"):
            for path, pushed in read_record(self._box, kind).marks.items():
                self._marks[path] = (*self._marks.get(path, ()), pushed)
        self._downloaded = DownloadRecord(self._box).marks
        for path, downloaded in self._downloaded.items():
            self._marks[path] = (*self._marks.get(path, ()), downloaded)


def _is_newer(full: bytes, since: int) -> bool:
    try:
        st = os.lstat(full)
    except OSError:
        return False
    # The ctime is compared, because a copy may have the mtime of its original.
    return st.st_ctime_ns >= since and not stat.S_ISDIR(st.st_mode)


def _is_tool_file(path: bytes) -> bool:
    return any(map(TOOL_FILES.fullmatch, path.split(b"/")))
