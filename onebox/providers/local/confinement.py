"""
Confine the machine process, and describe in words what its jobs can reach.

The process is confined by a mount namespace and by Landlock, and in a rehearsal also by
a small disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import mounts, sandbox
from .layout import Layout, MachineConfig

# This is the first version of Landlock that confines signals and abstract sockets.
_SCOPES_ABI = 6
_SHARED = "/tmp, /var/tmp and /dev/shm"  # noqa: S108 - text for the user, not a path
_OWN = "/tmp, /var/tmp, /dev/shm, /run"  # noqa: S108 - text for the user, not a path


class RefusedError(Exception):
    """The box cannot be confined as configured; the message says why."""


def confine(layout: Layout, boot: MachineConfig) -> Sequence[str]:
    """
    Confine this process and its children; return notes that the user will see.

    Raises:
        RefusedError: The configured `disk` is impossible on this system, or too small
            for the box's home.
    """
    limits = sandbox.Limits(
        box=layout.path,
        homes=tuple(Path(home) for home in boot.homes),
        write=(layout.disk, layout.power),
        read=(layout.bin, *(Path(path) for path in boot.read)),
    )
    no_view = mounts.enter(_view(layout, limits))
    if "disk" in boot.faults:
        _small_disk(layout.home, int(boot.faults["disk"]), no_view)
    if not no_view:
        mounts.drop_capabilities()
        limits = replace(limits, own_tmp=True)
    abi = sandbox.apply(limits)
    note = Protection(abi, no_view).note
    notes = [note] if note else []
    if abi and no_view and mounts.holds(mounts.SCRATCH[0], layout.path):
        # The text is a sentence for the user. It does not use the path /tmp.
        notes.append("/tmp is out of reach, because the boxes themselves lie in it")  # noqa: S108
    return notes


def _view(layout: Layout, limits: sandbox.Limits) -> mounts.View:
    """Return the view of the file system that the box will get."""
    # These directories are hidden. An exception is a directory that the box may read
    # because [local] read, for example, names it or a folder above it.
    hidden = (Path("/home"), Path("/root"), Path("/run"), *sandbox.hidden(limits))
    scratch = dict(zip(mounts.SCRATCH, (layout.tmp, layout.var_tmp)))
    return mounts.View(
        writable=(layout.disk,),
        readable=(layout.power, *limits.read, *sandbox.RESOLVER),
        hidden=tuple(
            place
            for place in hidden
            if not any(mounts.holds(path, place) for path in limits.read)
        ),
        scratch={
            place: own for place, own in scratch.items() if place not in limits.read
        },
    )


def _small_disk(home: Path, size: int, no_view: str) -> None:
    """
    Move the home directory to a disk in memory of *size* bytes.

    Raises RefusedError if there is no mount namespace, or if the home does not fit.
    """
    if no_view:
        raise RefusedError(
            "this system does not let a box have a disk of its own, so `disk` "
            f"cannot be rehearsed here: {no_view}"
        )
    before = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mounts.mount_memory(home, f"size={size},mode=755")
        shutil.copytree(
            f"/proc/self/fd/{before}", home, symlinks=True, dirs_exist_ok=True
        )
    except shutil.Error as error:
        raise RefusedError(
            f"the image does not fit on a disk of {size} bytes"
        ) from error
    finally:
        os.close(before)


@dataclass(frozen=True)
class Protection:
    """
    The kinds of confinement that a box has.

    *landlock* is the version of Landlock's ABI, 0 if the box is confined without
    Landlock. *no_view* is the reason why the box has no mount namespace, "" if it has
    one.
    """

    landlock: int
    no_view: str

    @property
    def complete(self) -> bool:
        """Whether the box is confined as much as onebox can confine a box."""
        return self.landlock >= _SCOPES_ABI and not self.no_view

    @property
    def note(self) -> str:
        """A note for the user of a new box; "" if the box is confined completely."""
        if self.complete:
            return ""
        return "a job is confined only in part here: inv doctor lists what it reaches"

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        """The things that a job cannot read, change or signal."""
        view, files = not self.no_view, self.landlock >= sandbox.OLDEST_ABI
        phrases = (
            ("your home folder", view or files),
            ("the content of files outside the box", files and not view),
            ("files outside the box, their modes and times", view),
            (f"{_OWN} (has its own)", view),
            ("your terminals", view),
            ("your processes", self.landlock >= _SCOPES_ABI),
        )
        return tuple(phrase for phrase, holds in phrases if holds)

    @property
    def in_reach(self) -> tuple[str, ...]:
        """The things that a job can still read, change, signal or connect to."""
        view, files = not self.no_view, self.landlock >= sandbox.OLDEST_ABI
        phrases = (
            ("all your files", not view and not files),
            (f"files in {_SHARED}", not view and files),
            ("modes and times of your files", not view and files),
            ("your terminals", not view),
            ("your processes", self.landlock < _SCOPES_ABI),
            ("Unix sockets such as Docker's", not view),
            ("Unix sockets elsewhere", view),
            ("the network", True),
        )
        return tuple(phrase for phrase, holds in phrases if holds)

    def describe(self) -> str:
        """Return the lines that `inv doctor` shows about this confinement."""
        lines = [f"of jobs: {self._namespace}; {self._landlock}"]
        lines += [f"out of reach: {phrase}" for phrase in self.out_of_reach]
        lines += [f"in reach:     {phrase}" for phrase in self.in_reach]
        return "\n".join(lines)

    @property
    def _namespace(self) -> str:
        if self.no_view:
            return f"no mount namespace: {self.no_view}"
        return "mount namespace"

    @property
    def _landlock(self) -> str:
        if self.landlock < sandbox.OLDEST_ABI:
            return "no Landlock (Linux 5.19 or later)"
        if self.landlock < _SCOPES_ABI:
            return f"Landlock's ABI is {self.landlock} (6: Linux 6.12)"
        return f"Landlock (ABI {self.landlock})"


def here() -> Protection:
    """Return the confinement that a box on this machine would have."""
    return Protection(sandbox.landlock_abi(), mounts.why_not())
