"""Make the work folder equal to the client's manifest."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import sys
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional

from .. import protocol
from ..box import BoxConfig, disk_space, read
from ..file_names import text
from . import manifest
from .content_stream import FileOffer
from .folder_writer import FolderWriter
from .hash_index import Index
from .manifest import Entry
from .push_record import UNKNOWN, PushRecord, mark, own_file, read_record, write_record
from .receiver import WORTH_KEEPING, Landed, Receiver
from .striping import Frame

LOCK_SECONDS = 20.0


class PushPlan(NamedTuple):
    """
    The changes that make the work folder equal to *entries*.

    *offers* maps the path of each file whose contents must be received to the offer
    that the agent sends for it. *without_contents* are the entries whose change needs
    no contents: folders and links that are missing or differ, and files whose mode
    differs. *gone* are the paths on the box that must be removed.
    """

    entries: List[Entry]
    offers: Dict[bytes, FileOffer]
    without_contents: List[Entry]
    gone: List[bytes]

    def rows(self) -> Iterator[List[Any]]:
        """Yield one row of JSON values for each change, as it is sent to the client."""
        for path in self.gone:
            yield [text(path), "gone"]
        for entry in self.without_contents:
            yield [text(entry.path), "change"]
        for path, offer in self.offers.items():
            yield [text(path), "lack", *offer.to_json()]


class IncomingPush:
    """
    A push that this box receives.

    *kind* is "pushed" or "restored" (see `file_ops`), and *record* is the record of the
    last push of that kind. *before* maps each path in *record* to the entry that is in
    the work folder now, or to None if nothing is there.
    """

    def __init__(self, box: BoxConfig, kind: str, alive: Callable[[], None]) -> None:
        self.record = read_record(box, kind)
        self._box = box
        self._kind = kind
        self._alive = alive
        self._work = os.fsencode(box.work)
        self._index = Index(own_file(box, kind + ".index"))
        scanned = self._scan(self.record.marks)
        self.before: Dict[bytes, Optional[Entry]] = {
            **dict.fromkeys(self.record.marks),
            **{entry.path: entry for entry in scanned},
        }

    @property
    def present(self) -> List[Entry]:
        """
        Return the entries that are now at the paths of the last push, changed or not.
        """
        return [entry for entry in self.before.values() if entry is not None]

    def plan(self, entries: List[Entry], receiver: Receiver) -> PushPlan:
        """Return the changes that make the work folder equal to *entries*."""
        plan = PushPlan(entries, {}, [], [])
        paths = {entry.path for entry in entries}
        other_entries = self._scan(paths.difference(self.before))
        here = {**self.before, **{entry.path: entry for entry in other_entries}}
        plan.gone.extend(
            path for path in self.before if path not in paths and here[path]
        )
        for entry in entries:
            mine = here.get(entry.path)
            if entry.kind == "f":
                offer = receiver.needed(entry, mine, self._index, self._alive)
                if offer is not None:
                    plan.offers[entry.path] = offer
                # A file whose contents are received gets its mode when it is put in
                # its place.
                same_content = offer is None or offer.whole
                if mine is not None and same_content and mine.mode != entry.mode:
                    plan.without_contents.append(entry)
            elif mine is None or not manifest.same(mine, entry):
                plan.without_contents.append(entry)
        return plan

    def check_space(self, plan: PushPlan, receiver: Receiver) -> None:
        """Raise `Refused` if the disk has too little space for the push."""
        need = sum(receiver.disk_needed(offer) for offer in plan.offers.values())
        free = disk_space(self._box.work)[0]
        if need > free:
            raise protocol.Refused(
                "disk",
                "the box's disk has %d bytes free, %d are needed" % (free, need),
            )

    def apply(
        self, plan: PushPlan, receiver: Receiver, frames: Callable[[], Frame]
    ) -> Dict[str, Any]:
        """
        Receive the files in *plan* and make its changes; return the answer to the
        client.
        """
        # A push that is interrupted leaves files in the work folder. So the record
        # lists all paths before the push changes the first of them.
        paths = sorted({entry.path for entry in plan.entries}.union(self.before))
        record = PushRecord(dict.fromkeys(paths, UNKNOWN), "")
        write_record(self._box, self._kind, record)
        writer = FolderWriter(self._work)
        try:
            hashes = self._change(writer, plan, receiver, frames)
        finally:
            writer.close()
        bad = [text(path) for path in receiver.bad]
        digest = ""
        if not bad:
            entries = manifest.with_hashes(plan.entries, hashes)
            digest = manifest.digest(entries)
            marks = {entry.path: mark(entry) for entry in entries}
            write_record(self._box, self._kind, PushRecord(marks, digest))
            self._index.retain(entry.path for entry in plan.entries)
            receiver.clean()
        return {"equal": False, "digest": digest, "bad": bad, "deleted": len(plan.gone)}

    def save_index(self) -> None:
        """Save the file hashes that this push has computed."""
        self._index.save()

    def _scan(self, paths: Iterable[bytes]) -> List[Entry]:
        """Return the entries at *paths*, without reading the files' contents."""
        scanned = manifest.scan(
            self._work, paths, self._index, hashing=False, alive=self._alive
        )
        return scanned.entries

    def _change(
        self,
        writer: FolderWriter,
        plan: PushPlan,
        receiver: Receiver,
        frames: Callable[[], Frame],
    ) -> Dict[bytes, bytes]:
        """
        Make the changes in *plan*; return the hash of each received file by its path.
        """
        hashes: Dict[bytes, bytes] = {}

        def land(landed: Landed) -> None:
            st = _install(writer, landed, receiver.fd)
            sha = landed.entry.sha
            assert sha is not None
            hashes[landed.entry.path] = sha
            self._index.put(landed.entry.path, st, sha, landed.blocks)

        def move_to_staging(path: bytes, name: bytes) -> None:
            folder, here = writer.parent(path, make=False)
            os.rename(here, name, src_dir_fd=folder, dst_dir_fd=receiver.fd)

        for path in reversed(plan.gone):
            writer.remove(path)
        _change_without_contents(writer, plan, receiver.fd)
        receiver.receive(frames, plan.offers, land, take=move_to_staging)
        for entry in reversed(plan.entries):
            if entry.kind == "d":
                writer.chmod(entry.path, entry.mode)
        return hashes


def receiver_for(box: BoxConfig, *, write: bool) -> Receiver:
    """Return a receiver whose staging directory is on the disk of the work folder."""
    staging = box.path("files", "incoming")
    if os.stat(box.root).st_dev != os.stat(box.work).st_dev:
        staging = os.path.join(box.work, ".onebox", "incoming")
    # Without *write* this push receives nothing. The partial files in the staging
    # directory may belong to another push that is under way. The receiver looks for a
    # partial file only if the file to receive is bigger than *keep*. With the highest
    # possible *keep*, it leaves all partial files alone.
    keep = WORTH_KEEPING if write else sys.maxsize
    return Receiver(os.fsencode(staging), os.fsencode(box.work), keep)


@contextlib.contextmanager
def push_lock(box: BoxConfig) -> Iterator[None]:
    """
    Allow one push to this box at a time; the newest connection wins.

    A broken connection can leave an agent that waits for frames forever and holds the
    lock. That agent is killed, because no client reads its answers any more.
    """
    fd = os.open(
        box.path("files", "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        end = time.monotonic() + LOCK_SECONDS
        while not _lock(fd):
            pid = os.pread(fd, 20, 0)
            if pid.isdigit() and os.fsencode(box.root) in read(
                "/proc/%d/cmdline" % int(pid)
            ):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if time.monotonic() > end:
                raise protocol.Refused("busy", "another push to this box is under way")
            time.sleep(0.05)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d" % os.getpid(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _change_without_contents(
    writer: FolderWriter, plan: PushPlan, staging: int
) -> None:
    """
    Create the folders and links in *plan*, and set the modes of the files in
    `plan.without_contents`.
    """
    for entry in plan.entries:
        if entry.kind == "d":
            fd = writer.folder(entry.path)
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            # The push writes files to the folder, and the agent needs permission to do
            # so. `_change` sets the final mode of the folder at the end.
            if mode & 0o700 != 0o700:
                os.fchmod(fd, mode | 0o700)
    for entry in plan.without_contents:
        if entry.kind == "l":
            writer.link(entry.path, entry.target, staging)
        elif entry.kind == "f":
            writer.chmod(entry.path, entry.mode)


def _install(writer: FolderWriter, landed: Landed, staging: int) -> os.stat_result:
    """
    Move a received file to its place, set its mode and times, and return its `stat`.
    """
    entry = landed.entry
    times = (entry.mtime_ns, entry.mtime_ns)
    if landed.name is not None:
        os.fchmod(landed.fd, entry.mode)
        os.utime(landed.fd, ns=times)
        writer.place(entry.path, staging, landed.name)
        return os.fstat(landed.fd)
    writer.chmod(entry.path, entry.mode)
    folder, name = writer.parent(entry.path, make=False)
    os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
    return writer.stat(entry.path)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
