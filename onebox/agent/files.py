"""
The box's side of push and fetch.

====  ==============================  =======================================
op    arguments                       answer
====  ==============================  =======================================
push  digest, write                   equal, digest, bad, deleted
scan  roots, hashing                  missing, special, unreadable, unstable
send  --                              --
====  ==============================  =======================================

`push` is a conversation. If the work folder holds what *digest* says, the answer
comes at once. Otherwise an S frame says no (unless *digest* is empty: then it
goes without saying), the client sends its manifest, the agent what it lacks of
it, and the client, if *write* is set, the contents. `scan` answers with a
manifest before its answer; `send` takes rows of what is wanted and answers with
the contents. Files of our own are kept under `files/` in the agent's directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import stat
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Set, Tuple

from . import manifest, wire
from .box import Box, disk, read, touch
from .manifest import Entry, Hostile, Index, show
from .stream import Landed, Offer, Receiver, Sender
from .tree import Tree

LOCK_SECONDS = 20.0
Frame = Tuple[bytes, bytes]


class Plan(NamedTuple):
    """
    What is to be done to make the work folder equal to a manifest.

    *settle* are entries that need no contents: folders, links, modes.
    """

    entries: List[Entry]
    offers: Dict[bytes, Offer]
    settle: List[Entry]
    gone: List[bytes]


def push(channel: wire.Channel, box: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """Make what was pushed equal to the client's manifest, or say how it is not."""
    with _refusing(), contextlib.ExitStack() as stack:
        os.makedirs(box.path("files"), exist_ok=True)
        if request["write"]:
            stack.enter_context(_alone(box))
        index = Index(_own(box, "pushed.index"))
        stack.callback(index.save)
        alive = _Alive(channel, box)
        paths, digest = _pushed(box)
        if request["digest"]:
            if digest == request["digest"] == _digest(box, paths, index, alive):
                return {"equal": True, "digest": digest, "bad": [], "deleted": 0}
            channel.send_json(b"S", {"equal": False})
        frames = _frames(channel, box)
        entries = [manifest.unpack_entry(row) for row in manifest.receive_rows(frames)]
        manifest.check(entries)
        receiver = stack.enter_context(contextlib.closing(_receiver(box)))
        plan = _plan(box, entries, paths, index, receiver, alive)
        if request["write"]:
            _check_space(box, plan)
        manifest.send_rows(channel.send, _lacking(plan))
        if not request["write"]:
            return {"equal": False, "digest": "", "bad": [], "deleted": 0}
        return _carry_out(box, plan, paths, index, receiver, frames)


def scan(channel: wire.Channel, box: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """Send the manifest of everything below some folders."""
    with _refusing():
        os.makedirs(box.path("files"), exist_ok=True)
        index = Index(_own(box, "outputs.index"))
        work = os.fsencode(box.work)
        paths: Set[bytes] = set()
        missing = []
        for name in request["roots"]:
            root = _root(name)
            try:
                paths.update(manifest.below(work, root))
            except (FileNotFoundError, NotADirectoryError):
                missing.append(name)
        found = manifest.scan(
            work,
            paths,
            index,
            hashing=bool(request["hashing"]),
            alive=_Alive(channel, box),
        )
        index.save()
        manifest.send_rows(channel.send, map(manifest.pack_entry, found.entries))
        return {
            "missing": missing,
            "special": [manifest.text(path) for path in found.special],
            "unreadable": [manifest.text(path) for path in found.unreadable],
            "unstable": [manifest.text(path) for path in found.unstable],
        }


def send(channel: wire.Channel, box: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """Send the contents of the files that the client names."""
    with _refusing():
        offers = []
        for row in manifest.receive_rows(_frames(channel, box)):
            path, size, mtime_ns, offset, sha = row
            entry = Entry(manifest.raw(path), "f", 0, size, mtime_ns)
            manifest.check_path(entry.path)
            offers.append(Offer(entry, offset, bytes.fromhex(sha)))
        index = Index(_own(box, "outputs.index"))
        alive = _Alive(channel, box)
        sender = Sender(
            os.fsencode(box.work),
            lambda payload: channel.send(b"D", payload),
            lambda count: alive(),
        )
        for offer in offers:
            sent = sender.send(offer)
            if sent is not None:
                index.put(offer.entry.path, *sent)
        sender.flush()
        channel.send(b"Z")
        index.save()
        return {}


OPS: Dict[str, Callable[[wire.Channel, Box, Dict[str, Any]], Dict[str, Any]]] = {
    "push": push,
    "scan": scan,
    "send": send,
}


def _plan(
    box: Box,
    entries: List[Entry],
    paths: List[bytes],
    index: Index,
    receiver: Receiver,
    alive: Callable[[], None],
) -> Plan:
    work = os.fsencode(box.work)
    plan = Plan(entries, {}, [], [])
    wanted = {entry.path for entry in entries}
    here = manifest.scan(work, wanted.union(paths), index, hashing=False, alive=alive)
    have = {entry.path: entry for entry in here.entries}
    plan.gone.extend(path for path in paths if path not in wanted and path in have)
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
            plan.offers[entry.path] = receiver.offer(entry, alive)
            continue
        if entry.sha is None:
            plan.offers[entry.path] = Offer(entry, entry.size, sha, whole=True)
        if mine is not None and mine.mode != entry.mode:
            plan.settle.append(entry)
    return plan


def _check_space(box: Box, plan: Plan) -> None:
    need = sum(o.entry.size - o.offset for o in plan.offers.values())
    free = disk(box.work)[0]
    if need > free:
        raise wire.Refused(
            "disk", "the box's disk has %d bytes free, %d are needed" % (free, need)
        )


def _lacking(plan: Plan) -> Iterator[List[Any]]:
    """Yield what the client has to know: paths gone, settled, and contents lacking."""
    for path in plan.gone:
        yield [manifest.text(path), "gone"]
    for entry in plan.settle:
        yield [manifest.text(entry.path), "settle"]
    for path, offer in plan.offers.items():
        yield [
            manifest.text(path),
            "lack",
            offer.offset,
            offer.sha.hex(),
            offer.whole,
        ]


def _carry_out(
    box: Box,
    plan: Plan,
    paths: List[bytes],
    index: Index,
    receiver: Receiver,
    frames: Callable[[], Frame],
) -> Dict[str, Any]:
    # From here on whatever breaks off leaves files of ours that this list names.
    _remember(box, sorted({entry.path for entry in plan.entries}.union(paths)), "")
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
            index.put(landed.entry.path, st, sha)

        receiver.receive(frames, plan.offers, land)
        for entry in reversed(plan.entries):
            if entry.kind == "d":
                tree.chmod(entry.path, entry.mode)
    finally:
        tree.close()
    bad = [manifest.text(path) for path in receiver.bad]
    digest = ""
    if not bad:
        digest = manifest.digest(
            entry._replace(sha=hashes.get(entry.path, entry.sha))
            for entry in plan.entries
        )
        _remember(box, [entry.path for entry in plan.entries], digest)
        index.keep(entry.path for entry in plan.entries)
        receiver.clean()
    return {"equal": False, "digest": digest, "bad": bad, "deleted": len(plan.gone)}


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


def _digest(
    box: Box, paths: List[bytes], index: Index, alive: Callable[[], None]
) -> str:
    """Return the digest of what was pushed, as it is now."""
    found = manifest.scan(
        os.fsencode(box.work), paths, index, hashing=True, alive=alive
    )
    if len(found.entries) != len(paths) or found.unstable:
        return ""
    return manifest.digest(found.entries)


def _hash(
    work: bytes, path: bytes, index: Index, alive: Callable[[], None]
) -> "bytes | None":
    full = os.path.join(work, path)
    try:
        st, sha = manifest.read_hash(full, alive)
    except (OSError, manifest.Unstable):
        return None
    index.put(path, st, sha)
    return sha


def _pushed(box: Box) -> Tuple[List[bytes], str]:
    """Return the paths that are there because we pushed them, and their digest."""
    data = read(box.path("files", "pushed"))
    if not data.endswith(b"\0end"):
        return [], ""
    digest, *paths = data.split(b"\0")[:-1]
    return paths, digest.decode("ascii")


def _remember(box: Box, paths: List[bytes], digest: str) -> None:
    file = box.path("files", "pushed")
    with open(file + ".new", "wb") as out:
        out.write(b"\0".join([digest.encode("ascii"), *paths, b"end"]))
        out.flush()
        os.fsync(out.fileno())
    os.replace(file + ".new", file)


def _receiver(box: Box) -> Receiver:
    staging = box.path("files", "incoming")
    if os.stat(box.root).st_dev != os.stat(box.work).st_dev:
        staging = os.path.join(box.work, ".onebox", "incoming")
    return Receiver(os.fsencode(staging))


def _own(box: Box, name: str) -> bytes:
    return os.fsencode(box.path("files", name))


def _root(name: str) -> bytes:
    root = manifest.raw(name).rstrip(b"/")
    if root in (b"", b"."):
        return b""
    manifest.check_path(root)
    return root


@contextlib.contextmanager
def _alone(box: Box) -> Iterator[None]:
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
                raise wire.Refused("busy", "another push to this box is under way")
            time.sleep(0.05)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d" % os.getpid(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn what can go wrong with files into a refusal that says so."""
    try:
        yield
    except Hostile as error:
        raise wire.Refused("hostile", str(error)) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        name = error.filename
        where = show(os.fsencode(name)) if isinstance(name, (str, bytes)) else ""
        raise wire.Refused(
            "disk" if full else "files",
            "%s %s" % (error.strerror, where) if where else str(error.strerror),
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise wire.Refused("request", "not understood: %r" % error) from error


def _frames(channel: wire.Channel, box: Box) -> Callable[[], Frame]:
    """Return what waits for the next frame that is more than "still here"."""

    def frames() -> Frame:
        while True:
            kind, payload = channel.receive()
            if kind != b"P":
                return kind, payload
            touch(box.path("lease"))

    return frames


class _Alive:
    """Takes in the client's "still here" during work that reads nothing."""

    def __init__(self, channel: wire.Channel, box: Box) -> None:
        self._channel = channel
        self._lease = box.path("lease")
        self._next = time.monotonic() + 1

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1
        while select.select([self._channel.read_fd], [], [], 0)[0]:
            self._channel.fill()
        frame = self._channel.ready()
        while frame is not None:
            if frame[0] != b"P":
                raise wire.Refused("order", "a %r frame too early" % frame[0])
            touch(self._lease)
            frame = self._channel.ready()
