"""Download many objects at once, and put each complete file in its place."""

from __future__ import annotations

import collections
import hashlib
import itertools
import os
import select
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple

from ..box import BoxConfig
from ..files.folder_writer import remove
from .http_source import Part
from .limits import LINKS, MOST_LINKS
from .partial_file import PART_BYTES, PartialFile, Span
from .placing import Placing
from .record import Wanted
from .worker import THREADS, Worker, count_for

# The marks of finished files are stored after so many of them.
SAVE_EVERY = 2000


class Link(NamedTuple):
    """
    How one object is read now.

    *ranges* is whether the server can send a part. *md5* is the store's checksum, ""
    if it has none: the MD5 sum of the contents, or, if *piece* is set, the MD5 sum of
    the sums of its pieces of that size. *etag* and *modified* are the headers of the
    listed version, "" if they are not known.
    """

    url: str
    headers: Dict[str, str]
    ranges: bool
    md5: str
    piece: int
    etag: str
    modified: str


class Problem(Exception):
    """The download cannot go on; *index* is that of the object that shows why."""

    def __init__(self, kind: str, index: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.index = index
        self.message = message


class _Active:
    """An object that is being downloaded."""

    def __init__(self, index: int, link: Link, file: PartialFile) -> None:
        self.index = index
        self.link = link
        self.file = file
        # The tasks that are not finished, given to a worker or not.
        self.left = 0
        # The bytes that an earlier download has brought.
        self.earlier = 0


class Engine:
    """
    Downloads the objects *missing* of *wanted*.

    Attributes:
        changed: The objects that were not as they had been listed.

        done, moved: How many files are complete, and how many bytes have arrived.

        count, total: How many files are downloaded, and how many bytes arrive; parts
            that an earlier download has left are not among these.

        checked: How many of the files were compared with a checksum of the store.
    """

    def __init__(
        self,
        box: BoxConfig,
        staging: bytes,
        wanted: List[Wanted],
        missing: List[int],
        placing: Placing,
    ) -> None:
        self.changed: List[int] = []
        self.done = self.moved = self.checked = 0
        self.count = len(missing)
        self.total = sum(wanted[at].size for at in missing)
        self._box = box
        self._wanted = wanted
        self._placing = placing
        self._waiting: Deque[int] = collections.deque(missing)
        self._asked: Dict[int, bool] = {}
        self._links: Dict[int, int] = {}
        self._without_ranges: Dict[int, bool] = {}
        self._denied: Dict[int, bool] = {}
        self._placed = False
        self._active: Dict[int, _Active] = {}
        self._tasks: Deque[Dict[str, Any]] = collections.deque()
        # The object of each task, and the part that it reads; a task without a part
        # computes the checksum.
        self._owners: Dict[int, Tuple[_Active, Optional[Span]]] = {}
        self._ids = itertools.count()
        os.makedirs(staging, 0o700, exist_ok=True)
        self._folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # The sum that an object had whose checksum was wrong.
        self._wrong_sums: Dict[int, str] = {}
        for at in missing:
            placing.begin(wanted[at])
        placing.save()
        self._workers: List[Worker] = []
        for _ in range(count_for(box) if missing else 0):
            self._workers.append(Worker(self._folder))

    @property
    def is_finished(self) -> bool:
        """Return whether every object is complete or has changed."""
        return not (self._waiting or self._asked or self._active)

    def to_ask(self) -> List[int]:
        """Return the objects whose links are needed next; each is returned once."""
        free = LINKS - len(self._active) - len(self._asked)
        if free < LINKS // 2 and (self._active or self._asked):
            return []
        asked = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        self._asked.update(dict.fromkeys(asked, True))
        return asked

    def take(self, index: int, link: Link) -> None:
        """
        Begin the download of an object.

        Raises:
            KeyError: The link was not asked for.
        """
        del self._asked[index]
        wanted = self._wanted[index]
        whole = index in self._without_ranges or not link.ranges
        file = PartialFile(self._box, self._folder, wanted, link.piece, whole)
        active = self._active[index] = _Active(index, link, file)
        active.earlier = sum(end - start for start, end in file.done)
        self.total -= active.earlier
        single = whole or wanted.size <= PART_BYTES
        for start, end in file.missing():
            every = link.piece or (wanted.size if single and link.md5 else 0)
            part = Part(
                *(link.url, link.headers, start, end, wanted.size, single, every),
                *(link.etag, link.modified),
            )
            self._add(active, (start, end), {"part": part})
        if not active.left:
            self._parts_done(active)

    def skip(self, index: int) -> None:
        """Take an object as changed, whose link was asked for."""
        del self._asked[index]
        self.changed.append(index)

    def step(self, also: List[int], seconds: float) -> List[int]:
        """
        Give tasks to the workers, and take their results.

        Args:
            also: Further descriptors that end the wait when they can be read.

        Returns:
            Those of *also* that can be read.

        Raises:
            Problem: The download cannot go on.
        """
        for worker in self._workers:
            while self._tasks and len(worker.tasks) < THREADS + 2:
                worker.send(self._tasks.popleft())
        by_fd = {worker.socket.fileno(): worker for worker in self._workers}
        ready = select.select([*by_fd, *also], [], [], seconds)[0]
        for fd in ready:
            if fd in by_fd:
                self._take_messages(by_fd[fd])
        return [fd for fd in ready if fd in also]

    def finish(self) -> None:
        """Write everything to the disk, and remove partial files of other versions."""
        self._save()
        for name in os.listdir(self._folder):
            remove(self._folder, os.fsencode(name))

    def close(self) -> None:
        """End the processes, and store what is complete."""
        for worker in self._workers:
            worker.close()
        try:
            for active in self._active.values():
                active.file.store()
            self._save()
        finally:
            self._placing.close()
            os.close(self._folder)

    def _save(self) -> None:
        """Store which files are complete, when their contents are on the disk."""
        if self._placed:
            os.sync()
            self._placed = False
        self._placing.save()

    def _add(self, active: _Active, span: Optional[Span], task: Dict[str, Any]) -> None:
        number = next(self._ids)
        name = active.file.name.decode("ascii")
        self._tasks.append({"id": number, "name": name, **task})
        self._owners[number] = active, span
        active.left += 1

    def _take_messages(self, worker: Worker) -> None:
        try:
            messages = worker.receive()
        except EOFError:
            raise Problem("worker", 0, "a process of the download was killed") from None
        for message in messages:
            number = message["id"]
            if "so_far" in message:
                self.moved += message["so_far"] - worker.tasks[number]
                worker.tasks[number] = message["so_far"]
                continue
            self.moved += message["moved"] - worker.tasks.pop(number)
            active, span = self._owners.pop(number)
            active.left -= 1
            self._take_result(active, span, message)

    def _take_result(
        self, active: _Active, span: Optional[Span], message: Dict[str, Any]
    ) -> None:
        if self._active.get(active.index) is not active:
            # Another part of this object has failed, so it was begun again.
            self.moved -= message["moved"]
            return
        kind = message.get("kind")
        if kind is not None:
            self.moved -= message["moved"]
            self._fail(active, kind, message["message"])
            return
        file = active.file
        if span is None:
            self._compare(active, message["sums"][0])
            return
        file.comparable = file.comparable and message["comparable"]
        file.finish(span, message["sums"])
        if not active.left:
            self._parts_done(active)

    def _parts_done(self, active: _Active) -> None:
        link, file = active.link, active.file
        sums = file.sums()
        if not (link.md5 and file.comparable) or "" in sums:
            self._place(active)
        elif link.piece:
            total = hashlib.md5()  # noqa: S324 - the checksum that stores keep
            for one in sums:
                total.update(bytes.fromhex(one))
            self._compare(active, total.hexdigest())
        elif len(sums) == 1:
            self._compare(active, sums[0])
        else:
            self._add(active, None, {"size": file.wanted.size})

    def _compare(self, active: _Active, found: str) -> None:
        if not found:
            self._place(active)
        elif found == active.link.md5:
            self.checked += 1
            self._place(active)
        elif active.link.piece and self._wrong_sums.get(active.index) == found:
            # The same bytes have come twice: the store has got parts of several sizes,
            # so its checksum is another one.
            self._place(active)
        else:
            self._wrong_sums[active.index] = found
            self._begin_again(active, "checksum", "its checksum is wrong")

    def _place(self, active: _Active) -> None:
        wanted, file = active.file.wanted, active.file
        os.chmod(file.name, 0o644, dir_fd=self._folder)
        if wanted.mtime_ns:
            times = (wanted.mtime_ns, wanted.mtime_ns)
            os.utime(file.name, ns=times, dir_fd=self._folder, follow_symlinks=False)
        self._placing.place(wanted, self._folder, file.name)
        file.forget_parts()
        del self._active[active.index]
        self.done += 1
        self._placed = True
        if self.done % SAVE_EVERY == 0:
            self._save()

    def _fail(self, active: _Active, kind: str, message: str) -> None:
        index = active.index
        if kind == "changed":
            self._drop(active)
            self.changed.append(index)
        elif kind == "no-ranges":
            self._without_ranges[index] = True
            self._begin_again(active, kind, message)
        elif kind == "expired" or (kind == "denied" and index not in self._denied):
            # A link that another server has made may be too old, and not say so.
            self._denied[index] = True
            active.file.store()
            self._ask_again(active, kind, message)
        else:
            raise Problem(kind, index, message)

    def _begin_again(self, active: _Active, kind: str, message: str) -> None:
        """Download an object again from its beginning."""
        self._drop(active)
        self._ask_again(active, kind, message)

    def _drop(self, active: _Active) -> None:
        done = sum(end - start for start, end in active.file.done)
        self.moved -= done - active.earlier
        self.total += active.earlier
        active.file.forget()
        self._active.pop(active.index, None)

    def _ask_again(self, active: _Active, kind: str, message: str) -> None:
        index = active.index
        self._active.pop(index, None)
        self._links[index] = self._links.get(index, 0) + 1
        most = 2 if kind == "checksum" else MOST_LINKS
        if self._links[index] >= most:
            raise Problem(kind, index, message)
        self._waiting.appendleft(index)
