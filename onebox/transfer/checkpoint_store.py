"""
Keep the last two pulls of a running job's checkpoints.

A pull is made beside the ones that are there, and takes its place among them
only when every file of it is here and verified: one that breaks off, or that
the client is killed in, harms none. Files that have not changed are shared by
the pulls, and are not sent again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from onebox.agent.files import manifest, tree
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.errors import Busy
from onebox.remote.channel import AgentChannel
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.transfer import fetch_outputs
from onebox.transfer.fsync import sync_folder
from onebox.transfer.progress import Progress

KEPT = 2
ABOUT = "pull.json"
# Not under its final name yet.
DRAFT = "next"


@dataclass(frozen=True)
class Pull:
    """
    One complete pull.

    *run* is the id of the first job of its run, *job* that of the attempt it is
    from; *at* is when it was last seen to be what the box has.
    """

    number: int
    run: str
    job: str
    box: str
    at: float
    files: int
    bytes: int
    digest: str
    kept_out: tuple[str, ...] = ()


class Pulls:
    """The pulls of one box name, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Pull]:
        """Return the complete pulls, oldest first."""
        found = [_read(self.directory / name / ABOUT) for name in self._numbers()]
        return sorted((pull for pull in found if pull), key=lambda pull: pull.number)

    def latest(self, run: str) -> Pull | None:
        """Return the newest pull of a run, whichever of its attempts it is from."""
        mine = [pull for pull in self.all() if pull.run == run]
        return mine[-1] if mine else None

    def folder(self, pull: Pull) -> Path:
        """Return where the files of a pull are, under the same paths as on the box."""
        return self.directory / str(pull.number) / "files"

    def take(
        self,
        channel: AgentChannel,
        roots: Sequence[str],
        progress: Progress,
        *,
        run: str,
        job: str,
        box: str,
        wait: float = 0.0,
    ) -> Pull | None:
        """
        Bring what is below *roots* on the box here, and return the newest pull.

        A file that is written to meanwhile stays as it was in the pull before,
        or is left out. A pull that finds nothing takes the place of none. None
        is returned if there is no pull yet.

        Args:
            wait: How many seconds another pull under way may take to end.

        Raises:
            Busy: Another one is under way.

            OutputsHeld: Not all could be brought; the pulls are as they were.

            ConnectionLost: The same; what had come is not sent again.
        """
        with fetch_outputs.holding(), self._alone(wait):
            before = self.all()
            last = before[-1] if before else None
            draft = self.directory / DRAFT
            self._remove(DRAFT)
            private_dir(draft / "files")
            if last is not None:
                self._share(last, draft / "files")
            done = fetch_outputs.fetch(
                channel,
                roots,
                draft / "files",
                private_dir(self.directory / "memory"),
                progress,
                while_written=True,
            )
            # Another run's file is no earlier state of this one's.
            as_before = done.unstable if last is not None and last.run == run else []
            _settle(draft / "files", done.entries, as_before)
            pull = Pull(
                number=last.number + 1 if last else 1,
                run=run,
                job=job,
                box=box,
                at=time.time(),
                files=done.files,
                bytes=done.bytes,
                digest=done.digest,
                kept_out=tuple(os.fsdecode(path) for path in sorted(done.unstable)),
            )
            if not done.files:
                self._remove(DRAFT)
                return last if last is not None and last.run == run else None
            if last is not None and _same(pull, last):
                # As it was: it must not push out the one before it.
                pull = Pull(**{**asdict(pull), "number": last.number})
                _write(self.directory / str(last.number), pull)
                self._remove(DRAFT)
                return pull
            _write(draft, pull)
            draft.rename(self.directory / str(pull.number))
            sync_folder(self.directory)
            for number in self._numbers()[:-KEPT]:
                self._remove(number)
            return pull

    def _share(self, last: Pull, into: Path) -> None:
        """Have the files of the last pull in another folder, without a copy."""
        base, known = self.folder(last), self._index()
        for path in sorted(manifest.below(os.fsencode(base), b"")):
            old, new = base / os.fsdecode(path), into / os.fsdecode(path)
            st = old.lstat()
            if stat.S_ISDIR(st.st_mode):
                new.mkdir(0o700)
                continue
            if stat.S_ISLNK(st.st_mode):
                new.symlink_to(old.readlink())
                continue
            sha = known.get(path, st)
            try:
                os.link(old, new)
            except OSError:
                # Not every disk can have one file under two names.
                shutil.copy2(old, new)
            if sha is not None:
                known.put(path, new.lstat(), sha)
        known.save()

    def _index(self) -> Index:
        memory = private_dir(self.directory / "memory")
        return Index(os.fsencode(memory / fetch_outputs.INDEX))

    @contextlib.contextmanager
    def _alone(self, wait: float) -> Iterator[None]:
        private_dir(self.directory)
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + wait
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise Busy("checkpoints are being pulled already") from None
                time.sleep(0.05)
            yield
        finally:
            os.close(fd)

    def _numbers(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        names = [path.name for path in self.directory.iterdir()]
        return sorted((name for name in names if name.isdigit()), key=int)

    def _remove(self, name: str) -> None:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            tree.remove(fd, os.fsencode(name))
        finally:
            os.close(fd)


def _settle(base: Path, entries: Sequence[Entry], as_before: Sequence[bytes]) -> None:
    """Leave exactly what the box has, with its modes, and some files as they were."""
    wanted = {entry.path for entry in entries}.union(as_before)
    root = os.fsencode(base)
    holder = tree.Tree(root)
    try:
        for path in sorted(manifest.below(root, b""), reverse=True):
            if path not in wanted:
                holder.forget()
                folder, name = holder.parent(path, make=False)
                tree.remove(folder, name)
        for entry in reversed(entries):
            if entry.kind == "d":
                holder.chmod(entry.path, entry.mode)
    finally:
        holder.close()


def _same(one: Pull, other: Pull) -> bool:
    return (one.run, one.job, one.digest, one.kept_out) == (
        other.run,
        other.job,
        other.digest,
        other.kept_out,
    )


def _write(folder: Path, pull: Pull) -> None:
    write_atomically(folder / ABOUT, json.dumps(asdict(pull), indent=1).encode())


def _read(path: Path) -> Pull | None:
    try:
        told = json.loads(path.read_bytes())
        return Pull(**{**told, "kept_out": tuple(told["kept_out"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
