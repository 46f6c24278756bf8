"""
Create a box: its directory, its files, and its first start.

The directory has the prefix `.new-` until it is complete. A command that finds it
unlocked knows that its creator has died.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onebox.errors import ProviderError
from onebox.providers.values import Request

from . import box_files, disk, images, path_shims, power
from .layout import Layout, make_fifo
from .locks import locked

# The /etc/profile of a login shell sets its own PATH, without the box's folder.
_PROFILE = 'PATH="{bin}:$PATH"\n[ -r ~/.bashrc ] && . ~/.bashrc\n'


def make(
    new: Layout,
    final: Layout,
    request: Request,
    image: Path | None,
    now: float,
    faults: Mapping[str, float],
    read: Sequence[str],
) -> bool:
    """
    Create and start a box; return False if another command holds its lock.

    Args:
        new: Where the box is until it is complete.

        final: Where it will be.

        image: The folder of the image to create it from.

        read: Folders outside the box that jobs may read.
    """
    new.path.mkdir(mode=0o700, exist_ok=True)
    with locked(new.lock) as lock:
        if lock is None:
            return False
        try:
            _empty(new)
            box_files.write(new, final, request, now, faults, read)
            _furnish(new, final, request.boot_config.agent)
            if image is not None:
                _restore(image, final, new)
            new.path.rename(final.path)
        except BaseException:
            disk.remove(new.path)
            raise
        power.start(final, lock)
    return True


def _empty(new: Layout) -> None:
    """Remove what a crashed command left in the directory."""
    for entry in new.path.iterdir():
        # This process holds the lock of this very file.
        if entry != new.lock:
            disk.remove(entry) if entry.is_dir() else entry.unlink()


def _furnish(new: Layout, final: Layout, agent: bytes) -> None:
    """Create the directories, commands and pipes at *new*, for use at *final*."""
    for directory in (new.disk, new.home, new.tmp, new.var_tmp, new.agent):
        directory.mkdir(mode=0o700)
    (new.home / ".profile").write_text(_PROFILE.format(bin=final.bin), "utf-8")
    (new.agent / "agent.pyz").write_bytes(agent)
    path_shims.write(new.bin, final.power)
    make_fifo(new.control)
    make_fifo(new.power)


def _restore(image: Path, final: Layout, new: Layout) -> None:
    paths = images.paths(image)
    if paths is None:
        raise ProviderError(f"there is no image {image.name} here")
    images.restore(image / "home", paths, final.path, new.home)
