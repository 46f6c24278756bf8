"""Confine the machine process: mount namespace, small disk, Landlock."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from . import mounts, protection, sandbox
from .boot_config import BootConfig
from .layout import Layout


class RefusedError(Exception):
    """The box cannot be confined as configured; the message says why."""


def confine(layout: Layout, boot: BootConfig) -> Sequence[str]:
    """
    Confine this process and its children; return notes for the user.

    Raises:
        RefusedError: The configured disk is impossible on this system.
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
        limits = dataclasses.replace(limits, own_tmp=True)
    abi = sandbox.apply(limits)
    note = protection.Protection(abi, no_view).note
    notes = [note] if note else []
    if abi and no_view and mounts.holds(mounts.SCRATCH[0], layout.path):
        # A sentence for the user, not a path that is used.
        notes.append("/tmp is out of reach, because the boxes themselves lie in it")  # noqa: S108
    return notes


def _view(layout: Layout, limits: sandbox.Limits) -> mounts.View:
    """Return the file system that the box will see."""
    # Folders in [local] read, and folders inside them, stay visible.
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
    """Move the home directory to a disk of this many bytes. Raises `RefusedError`."""
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
