"""Copy files and links into a folder on another disk, to which they cannot be moved."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from onebox.agent.files.folder_writer import remove
from onebox.store.atomic_files import read_regular, write_atomically

# This file in the folder of the fetch memory has the name of copies under way.
NAME = "copy-name"


def copy_name(memory: Path) -> bytes:
    """
    Return the name that copies under way have in their folders.

    It is random, so that no output and no file of the user has it, but always the same
    for a *memory*. So a copy that a crash has cut off is replaced by the next one.
    """
    with suppress(OSError):
        kept = read_regular(memory / NAME)
        if len(kept) == 16 and kept.isalnum():
            return b".onebox-" + kept
    fresh = secrets.token_hex(8).encode()
    write_atomically(memory / NAME, fresh)
    return b".onebox-" + fresh


def copy_into(folder: int, source: int, name: bytes, copy: bytes) -> None:
    """
    Copy a file into an open folder, with its mode and times, under the name *copy*.

    When this returns, the contents are safely on the disk.

    Args:
        source: The open folder of the file; *name* is its name there.

    Raises:
        OSError: The file cannot be copied. No copy is left.
    """
    remove(folder, copy)
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with (
            os.fdopen(os.open(name, os.O_RDONLY | flags, dir_fd=source), "rb") as old,
            os.fdopen(os.open(copy, made | flags, 0o600, dir_fd=folder), "wb") as new,
        ):
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            st = os.fstat(old.fileno())
            os.fchmod(new.fileno(), stat.S_IMODE(st.st_mode))
            os.utime(new.fileno(), ns=(st.st_mtime_ns, st.st_mtime_ns))
            os.fsync(new.fileno())
    except BaseException:
        remove(folder, copy)
        raise


def link_into(folder: int, target: bytes, copy: bytes) -> None:
    """Create a link in an open folder under the name *copy*. Raises OSError."""
    remove(folder, copy)
    os.symlink(target, copy, dir_fd=folder)
