"""
Keep the last two pulls of a running job's checkpoints.

A pull is downloaded into a draft folder, which gets its final name when every file is
there and verified. A broken connection or a crash therefore damages no earlier pull. A
file that has not changed since the last pull is not sent again; both pulls share it by
a hard link.
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

from onebox.agent.files import folder_writer, manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.errors import Busy
from onebox.remote.channel import AgentChannel
from onebox.store.atomic_files import (
    open_file,
    private_dir,
    read_regular,
    sync_dir,
    write_atomically,
)
from onebox.transfer import fetch_outputs
from onebox.transfer.progress import Progress

MOST_PULLS = 2
DESCRIPTION = "pull.json"
# The name of a pull's folder until the pull is complete.
DRAFT = "next"


@dataclass(frozen=True)
class Pull:
    """
    One complete pull of the checkpoints of a run.

    *run* is the id of the first job of the run. *job* is the id of the attempt whose
    checkpoints these are. *seen_at* is the time (epoch seconds) when the box last had
    the same files. *unstable* lists the files that kept changing. The pull has an older
    state of such a file, or lacks the file.
    """

    number: int
    run: str
    job: str
    box: str
    seen_at: float
    files: int
    bytes: int
    digest: str
    unstable: tuple[str, ...] = ()


class CheckpointStore:
    """The pulls from boxes of one name, each in a numbered folder of *directory*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Pull]:
        """Return the complete pulls, oldest first."""
        pulls = [_read(self.directory / name) for name in self._numbers()]
        return sorted((pull for pull in pulls if pull), key=lambda pull: pull.number)

    def latest(self, run: str) -> Pull | None:
        """Return the newest pull from any attempt of a run; None if there is none."""
        pulls = [pull for pull in self.all() if pull.run == run]
        return pulls[-1] if pulls else None

    def folder(self, pull: Pull) -> Path:
        """
        Return the folder that contains a pull's files.

        In this folder they have the same paths as on the box.
        """
        return self.directory / str(pull.number) / "files"

    def pull(
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
        Pull the files below *roots* from the box; return the newest pull.

        A file that keeps changing is kept as it was in the last pull of the same run,
        or is left out. If the box has no files, this call makes no new pull. It then
        returns the last pull if that is of the same run, else None.

        Args:
            wait: How many seconds to wait if another pull is under way.

        Raises:
            Busy: Another pull is under way.

            OutputsHeld: Not all files could be fetched; earlier pulls are unchanged.

            ConnectionLost: The connection broke; earlier pulls are unchanged, and a new
                call continues the download.
        """
        with fetch_outputs.reporting_held(), self._lock(wait):
            pulls = self.all()
            last = pulls[-1] if pulls else None
            draft = self.directory / DRAFT
            self._remove(DRAFT)
            private_dir(draft / "files")
            if last is not None:
                self._link_files(last, draft / "files")
            fetched = fetch_outputs.fetch(
                channel,
                roots,
                draft / "files",
                private_dir(self.directory / "memory"),
                progress,
                skip_unstable=True,
            )
            # The last pull has an earlier state of a changing file only if it is of the
            # same run. A file of another run is not kept, although its path is equal.
            same_run = last is not None and last.run == run
            as_before = fetched.unstable if same_run else []
            _tidy(draft / "files", fetched.entries, as_before)
            pull = Pull(
                number=last.number + 1 if last else 1,
                run=run,
                job=job,
                box=box,
                seen_at=time.time(),
                files=fetched.files,
                bytes=fetched.bytes,
                digest=fetched.digest,
                unstable=tuple(os.fsdecode(path) for path in sorted(fetched.unstable)),
            )
            if not fetched.files:
                self._remove(DRAFT)
                return last if same_run else None
            if last is not None and _are_equal(pull, last):
                # The last pull has the same files, so only its description is updated.
                # A new pull with equal files would remove an older, different pull.
                pull = Pull(**{**asdict(pull), "number": last.number})
                _write(self.directory / str(last.number), pull)
                self._remove(DRAFT)
                return pull
            _write(draft, pull)
            draft.rename(self.directory / str(pull.number))
            sync_dir(self.directory)
            for number in self._numbers()[:-MOST_PULLS]:
                self._remove(number)
            return pull

    def _link_files(self, last: Pull, into: Path) -> None:
        """Fill the folder *into* with hard links to the files of the pull *last*."""
        base, index = self.folder(last), self._index()
        for path in sorted(manifest.below(os.fsencode(base), b"")):
            old, new = base / os.fsdecode(path), into / os.fsdecode(path)
            st = old.lstat()
            if stat.S_ISDIR(st.st_mode):
                new.mkdir(0o700)
                continue
            if stat.S_ISLNK(st.st_mode):
                new.symlink_to(old.readlink())
                continue
            sha = index.get(path, st)
            try:
                os.link(old, new)
            except OSError:
                # This disk does not support hard links.
                shutil.copy2(old, new)
            if sha is not None:
                index.put(path, new.lstat(), sha)
        index.save()

    def _index(self) -> Index:
        memory = private_dir(self.directory / "memory")
        return Index(os.fsencode(memory / fetch_outputs.INDEX))

    @contextlib.contextmanager
    def _lock(self, wait: float) -> Iterator[None]:
        private_dir(self.directory)
        fd = open_file(self.directory / "lock", os.O_RDWR)
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
            folder_writer.remove(fd, os.fsencode(name))
        finally:
            os.close(fd)


def _tidy(base: Path, entries: Sequence[Entry], as_before: Sequence[bytes]) -> None:
    """
    Remove all files and folders that are in neither *entries* nor *as_before*.

    Then set the modes of the folders in *entries*.
    """
    paths = {entry.path for entry in entries}.union(as_before)
    root = os.fsencode(base)
    writer = folder_writer.FolderWriter(root)
    try:
        for path in sorted(manifest.below(root, b""), reverse=True):
            if path not in paths:
                writer.forget()
                folder, name = writer.parent(path, make=False)
                folder_writer.remove(folder, name)
        for entry in reversed(entries):
            if entry.kind == "d":
                writer.chmod(entry.path, entry.mode)
    finally:
        writer.close()


def _are_equal(one: Pull, other: Pull) -> bool:
    return (one.run, one.job, one.digest, one.unstable) == (
        other.run,
        other.job,
        other.digest,
        other.unstable,
    )


def _write(folder: Path, pull: Pull) -> None:
    description = json.dumps(asdict(pull), indent=1).encode()
    write_atomically(folder / DESCRIPTION, description)


def _read(folder: Path) -> Pull | None:
    """Return the pull in a folder; None if the folder has no valid description."""
    try:
        values = json.loads(read_regular(folder / DESCRIPTION))
        return Pull(**{**values, "unstable": tuple(values["unstable"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
