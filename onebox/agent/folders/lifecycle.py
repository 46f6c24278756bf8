"""
Create and remove the folders of boxes and images, so that a crash leaves nothing half.

=============  =======================================================================
.new-ID~...    the folder is being created: no box uses it, and all in it is a copy
ID             the folder is complete
.deleted-ID... the folder is being removed: it was ID, or a try that was given up
=============  =======================================================================

The renames between these names decide, because they are atomic. What a command leaves
that dies between them is removed by later commands of the same owner.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from typing import Dict, List

from ..box import sync_folder
from .removal import permit, remove
from .root import RECORDS, Root

NEW, DELETED = ".new-", ".deleted-"
# A folder that is still being created after this many seconds is no longer worked on.
UNFINISHED = 3600.0
# The command that works on it shows that once in this many seconds.
HEARTBEAT = 60.0


class Heartbeat:
    """
    Show that the folder of a box or image is still being created.

    Its call raises FileNotFoundError if another command has given the folder up.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._last = time.monotonic()

    def __call__(self) -> None:
        """Renew the time of the folder, unless that was done a moment ago."""
        if time.monotonic() - self._last >= HEARTBEAT:
            os.utime(self._folder)
            self._last = time.monotonic()


def begin(root: Root, kind: str, id: str) -> str:
    """
    Create the folder of a new box or image, and return its path.

    What earlier tries have left is removed. A command that still works on such a try
    fails, because each try has a name of its own.
    """
    parent = os.path.join(root.path, kind)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    _remove_tries(root, kind, id)
    # No id contains "~".
    return tempfile.mkdtemp(prefix="%s%s~" % (NEW, id), dir=parent)


def complete(fresh: str, final: str) -> None:
    """Give a complete folder its name, unless another command was faster."""
    number = os.lstat(fresh).st_ino
    try:
        os.rename(fresh, final)
    except FileNotFoundError:
        # A client of NFS repeats a rename whose answer was lost.
        if not os.path.lexists(final) or os.lstat(final).st_ino != number:
            raise
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        remove(fresh)
    sync_folder(os.path.dirname(final))


def delete(root: Root, kind: str, id: str) -> None:
    """Remove the folder of a box or image, which the caller has found to be its own."""
    _remove_tries(root, kind, id)
    _remove_entry(root, kind, id)


def sweep(root: Root, kind: str, owner: str) -> List[Dict[str, str]]:
    """
    Remove what crashed commands of this owner have left.

    Return the folders that could not be removed, and why.
    """
    left = []
    for name in root.names(kind):
        path = os.path.join(root.path, kind, name)
        try:
            if not _is_left(path, name):
                continue
            # The record is the first entry that is created and the last one that is
            # removed. Without it, nothing else is there.
            if root.owner(kind, name) in (owner, None):
                _remove_entry(root, kind, name)
        except FileNotFoundError:
            # Another command has removed it.
            continue
        # One bad folder must not hide all boxes, whatever is wrong with it.
        except (OSError, RuntimeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            left.append({"folder": path, "why": why or repr(error)})
    return left


def _is_left(path: str, name: str) -> bool:
    """Return whether a folder is neither complete nor being created."""
    if name.startswith(NEW):
        return time.time() - os.lstat(path).st_mtime > UNFINISHED
    return name.startswith(DELETED)


def _remove_tries(root: Root, kind: str, id: str) -> None:
    """Remove all of a box or image but its complete folder."""
    for name in root.names(kind):
        if name.partition("~")[0] in (NEW + id, DELETED + id):
            _remove_entry(root, kind, name)


def _remove_entry(root: Root, kind: str, name: str) -> None:
    """
    Remove a folder.

    It is renamed first. So a command that still fills it or copies from it fails, and
    cannot complete it. Its record goes last, so that its owner is known until then.
    """
    parent = os.path.join(root.path, kind)
    path = os.path.join(parent, name)
    if not name.startswith(DELETED):
        id = name[len(NEW) :] if name.startswith(NEW) else name
        path = os.path.join(parent, DELETED + id)
        # If the name is gone, another command has renamed it. Or this one has: a client
        # of NFS repeats a rename whose answer was lost.
        with contextlib.suppress(FileNotFoundError):
            os.rename(os.path.join(parent, name), path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not os.path.islink(path):
            permit(path)
            for entry in os.listdir(path):
                if entry != RECORDS[kind]:
                    remove(os.path.join(path, entry))
    remove(path)
