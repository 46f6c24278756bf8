"""Find what is new or changed on the box since the push: where jobs leave results."""

from __future__ import annotations

import os
import re
import stat
from typing import Callable, Container, Dict, Iterator, List, Tuple

from ..box import Box
from ..jobs import state
from . import manifest
from .apply_push import UNKNOWN, mark, own, pushed
from .hash_index import Index, Unstable, read_hash
from .manifest import Entry

# How many names of changed files travel to the client.
MOST_NAMES = 10
CACHE = b"__pycache__"
# Names of what tools write for themselves into the folder that they run in. Other
# hidden files may be results: R keeps its whole workspace in `.RData`.
TOOLS = re.compile(
    rb"(?i)\.[^/]*cache|__pycache__|\.(?:onebox|git|hg|jj|sl|ipynb_checkpoints|coverage"
    rb"|hypothesis|venv|tox|nox|eggs|rhistory|ds_store|nfs[0-9a-f]+|[^/]*\.sw[a-p])"
)


class Changes:
    """
    Compares the work folder with what was pushed, by content.

    Python's caches do not count, nor do new files that are, or lie in, what tools
    write for themselves.
    """

    def __init__(self, box: Box, alive: Callable[[], None]) -> None:
        self._box = box
        self._alive = alive
        self._work = os.fsencode(box.work)
        self._marks: Dict[bytes, Tuple[bytes, ...]] = {}
        self._index = Index()
        self._loaded = False

    def is_new(self, entry: Entry) -> bool:
        """Tell whether an output is not as it was pushed; no folder is new."""
        if entry.kind == "d":
            return False
        self._load()
        marks = self._marks.get(entry.path)
        if marks is not None and entry.kind == "f" and entry.sha is None:
            return self._differs(entry.path)
        return marks is None or not (UNKNOWN in marks or mark(entry) in marks)

    def as_pushed(self, path: bytes) -> bool:
        """Tell whether all that is at *path* is as it was pushed."""
        self._load()
        if path not in self._marks:
            return False
        return not any(map(self._differs, manifest.below(self._work, path)))

    def outside(self, places: Container[bytes]) -> List[bytes]:
        """
        Return what is new or changed, but for what is at or below *places*.

        What is new in the home folder, beside the work folder, is named `~/name`.
        """
        if b"" in places:
            return []
        self._load()
        unreadable: List[bytes] = []
        found = manifest.walk(self._work, b"", skip=places, unreadable=unreadable)
        changed = {path for path in unreadable if not _aside(path)}
        changed.update(filter(self._differs, found.paths))
        return [*sorted(changed), *sorted(self._in_home())]

    def _in_home(self) -> Iterator[bytes]:
        """
        Yield the files in the home folder that are younger than the first job.

        What an image has put there is older.
        """
        since = state.first_start(self._box)
        home = os.fsencode(self._box.home)
        work = os.path.relpath(self._work, home)
        # Programs keep their settings and caches in hidden folders there.
        for top in os.listdir(home) if since else []:
            if top.startswith(b".") or top == work:
                continue
            found = manifest.walk(home, top, skip={work}, unreadable=[])
            for path in [top, *found.paths]:
                self._alive()
                if not _aside(path) and _is_younger(os.path.join(home, path), since):
                    yield b"~/" + path

    def _differs(self, path: bytes) -> bool:
        self._alive()
        marks = self._marks.get(path)
        if marks is None and _aside(path):
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
            # A file of another size need not be read.
            if not any(one.startswith(mark(entry)) for one in marks):
                return True
            if entry.kind == "f":
                sha = self._index.get(path, st) or read_hash(full, self._alive).sha
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
        self._index = Index(own(self._box, "pushed.index"))
        for what in ("restored", "pushed"):
            for path, one in pushed(self._box, what).marks.items():
                self._marks[path] = (*self._marks.get(path, ()), one)


def _is_younger(full: bytes, since: int) -> bool:
    try:
        st = os.lstat(full)
    except OSError:
        return False
    # The time of the last change: a copy may bear that of its original.
    return st.st_ctime_ns >= since and not stat.S_ISDIR(st.st_mode)


def _aside(path: bytes) -> bool:
    parts = path.split(b"/")
    return any(map(TOOLS.fullmatch, parts))
