"""What was pushed to this box, and how the next push makes it equal."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import signal
import stat
import sys
import time
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
)

from .. import protocol
from ..box import Box, disk, read
from ..file_names import text
from . import manifest
from .frames import Frame
from .hash_index import Index, Unstable, read_hash
from .manifest import Entry
from .receiver import WORTH_KEEPING, Landed, Receiver
from .stream import Offer
from .tree import Tree

LOCK_SECONDS = 20.0
FORMAT = b"2"
# What the record of a push has of a path whose contents are not known.
UNKNOWN = b""
Found = Dict[bytes, Optional[Entry]]


class Record(NamedTuple):
    """
    What a push has left: the mark of each path, and the digest of all of it.

    The *digest* is "" while a push is under way. A mark names the contents of a file
    or the target of a link; `mark` makes it.
    """

    marks: Dict[bytes, bytes]
    digest: str


class Plan(NamedTuple):
    """
    What is to be done to make the work folder equal to a manifest.

    *settle* are entries that need no contents: folders, links, modes.
    """

    entries: List[Entry]
    offers: Dict[bytes, Offer]
    settle: List[Entry]
    gone: List[bytes]


def plan_for(
    box: Box,
    entries: List[Entry],
    before: Found,
    index: Index,
    receiver: Receiver,
    alive: Callable[[], None],
) -> Plan:
    """
    Find out what the work folder lacks of a manifest.

    *before* are the paths that an earlier push has left, and what is there now.
    """
    work = os.fsencode(box.work)
    plan = Plan(entries, {}, [], [])
    wanted = {entry.path for entry in entries}
    fresh = wanted.difference(before)
    here = manifest.scan(work, fresh, index, hashing=False, alive=alive)
    have = {**before, **{entry.path: entry for entry in here.entries}}
    plan.gone.extend(path for path in before if path not in wanted and have[path])
    for entry in entries:
        mine = have.get(entry.path)
        if entry.kind != "f":
            if mine is None or not manifest.same(mine, entry):
                plan.settle.append(entry)
            continue
        sha = None
        if mine is not None and (mine.kind, mine.size) == ("f", entry.size):
            sha = mine.sha or _hash(work, entry.path, index, alive)
        if sha is None or (entry.sha is not None and entry.sha != sha):
            offer = receiver.offer(entry, alive)
            if mine is not None:
                offer = receiver.compared(offer, index)
            plan.offers[entry.path] = offer
            continue
        if entry.sha is None and mine is not None:
            offer = Offer(entry, entry.size, sha, whole=True)
            plan.offers[entry.path] = receiver.compared(offer, index)
        if mine is not None and mine.mode != entry.mode:
            plan.settle.append(entry)
    return plan


def lacking(plan: Plan) -> Iterator[List[Any]]:
    """Yield what the client has to know: paths gone, settled, and contents lacking."""
    for path in plan.gone:
        yield [text(path), "gone"]
    for entry in plan.settle:
        yield [text(entry.path), "settle"]
    for path, offer in plan.offers.items():
        yield [text(path), "lack", *offer.told()]


def check_space(box: Box, plan: Plan, receiver: Receiver) -> None:
    """Refuse a push that the disk cannot hold, before it starts."""
    need = sum(receiver.room(offer) for offer in plan.offers.values())
    free = disk(box.work)[0]
    if need > free:
        raise protocol.Refused(
            "disk", "the box's disk has %d bytes free, %d are needed" % (free, need)
        )


def carry_out(
    box: Box,
    plan: Plan,
    paths: Iterable[bytes],
    index: Index,
    receiver: Receiver,
    frames: Callable[[], Frame],
    what: str,
) -> Dict[str, Any]:
    """Receive what is lacking, put all in its place, and say what is there now."""
    # From here on whatever breaks off leaves files of ours that this list names.
    every = sorted({entry.path for entry in plan.entries}.union(paths))
    _remember(box, what, Record(dict.fromkeys(every, UNKNOWN), ""))
    tree = Tree(os.fsencode(box.work))
    try:
        for path in reversed(plan.gone):
            tree.remove(path)
        _settle(tree, plan, receiver.fd)
        hashes: Dict[bytes, bytes] = {}

        def land(landed: Landed) -> None:
            st = _land(tree, landed, receiver.fd)
            sha = landed.entry.sha
            assert sha is not None
            hashes[landed.entry.path] = sha
            index.put(landed.entry.path, st, sha, landed.blocks)

        def take(path: bytes, name: bytes) -> None:
            folder, here = tree.parent(path, make=False)
            os.rename(here, name, src_dir_fd=folder, dst_dir_fd=receiver.fd)

        receiver.receive(frames, plan.offers, land, take=take)
        for entry in reversed(plan.entries):
            if entry.kind == "d":
                tree.chmod(entry.path, entry.mode)
    finally:
        tree.close()
    bad = [text(path) for path in receiver.bad]
    digest = ""
    if not bad:
        entries = manifest.with_hashes(plan.entries, hashes)
        digest = manifest.digest(entries)
        marks = {entry.path: mark(entry) for entry in entries}
        _remember(box, what, Record(marks, digest))
        index.keep(entry.path for entry in plan.entries)
        receiver.clean()
    return {"equal": False, "digest": digest, "bad": bad, "deleted": len(plan.gone)}


def look(
    box: Box, paths: Iterable[bytes], index: Index, alive: Callable[[], None]
) -> Found:
    """Return what is now at each of these paths; read no file for it."""
    work = os.fsencode(box.work)
    here = manifest.scan(work, paths, index, hashing=False, alive=alive)
    found: Found = dict.fromkeys(paths)
    found.update((entry.path, entry) for entry in here.entries)
    return found


def pushed(box: Box, what: str) -> Record:
    """Return what a push has left in the work folder."""
    data = read(box.path("files", what))
    if not data.endswith(b"\0end"):
        return Record({}, "")
    first, *rest = data.split(b"\0")[:-1]
    if first == FORMAT:
        return Record(dict(zip(rest[1::2], rest[2::2])), rest[0].decode("ascii"))
    # An older agent's has paths alone: without a digest the next push renews it.
    return Record(dict.fromkeys(rest, UNKNOWN), "")


def mark(entry: Entry) -> bytes:
    """Return what tells the contents of an entry from others'."""
    if entry.kind == "f":
        return b"f%d %s" % (entry.size, (entry.sha or b"").hex().encode("ascii"))
    return entry.kind.encode("ascii") + entry.target


def receiver_for(box: Box, *, write: bool) -> Receiver:
    """Return a receiver that stages on the disk that the work folder is on."""
    staging = box.path("files", "incoming")
    if os.stat(box.root).st_dev != os.stat(box.work).st_dev:
        staging = os.path.join(box.work, ".onebox", "incoming")
    # What is staged there is another push's that may be under way, unless we write.
    keep = WORTH_KEEPING if write else sys.maxsize
    return Receiver(os.fsencode(staging), os.fsencode(box.work), keep)


@contextlib.contextmanager
def alone(box: Box) -> Iterator[None]:
    """
    Keep out other pushes to this box; the newest connection wins.

    A connection that broke can leave its agent behind, waiting for frames that
    will never come. Nobody reads its answers, so it is ended.
    """
    fd = os.open(
        box.path("files", "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        end = time.monotonic() + LOCK_SECONDS
        while not _locked(fd):
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


def own(box: Box, name: str) -> bytes:
    """Return the path of a file of ours."""
    return os.fsencode(box.path("files", name))


def _settle(tree: Tree, plan: Plan, staging: int) -> None:
    for entry in plan.entries:
        if entry.kind == "d":
            fd = tree.folder(entry.path)
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            # Files have to get in; the folder's own mode comes last.
            if mode & 0o700 != 0o700:
                os.fchmod(fd, mode | 0o700)
    for entry in plan.settle:
        if entry.kind == "l":
            tree.link(entry.path, entry.target, staging)
        elif entry.kind == "f":
            tree.chmod(entry.path, entry.mode)


def _land(tree: Tree, landed: Landed, staging: int) -> os.stat_result:
    entry = landed.entry
    times = (entry.mtime_ns, entry.mtime_ns)
    if landed.name is not None:
        os.fchmod(landed.fd, entry.mode)
        os.utime(landed.fd, ns=times)
        tree.place(entry.path, staging, landed.name)
        return os.fstat(landed.fd)
    tree.chmod(entry.path, entry.mode)
    folder, name = tree.parent(entry.path, make=False)
    os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
    return tree.stat(entry.path)


def _hash(
    work: bytes, path: bytes, index: Index, alive: Callable[[], None]
) -> "bytes | None":
    full = os.path.join(work, path)
    try:
        found = read_hash(full, alive)
    except (OSError, Unstable):
        return None
    index.put(path, *found)
    return found.sha


def _remember(box: Box, what: str, record: Record) -> None:
    file = box.path("files", what)
    rows = itertools.chain.from_iterable(record.marks.items())
    with open(file + ".new", "wb") as out:
        out.write(b"\0".join([FORMAT, record.digest.encode("ascii"), *rows, b"end"]))
        out.flush()
        os.fsync(out.fileno())
    os.replace(file + ".new", file)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
