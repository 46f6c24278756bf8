"""
Copy the home of a box, and find the files that contain a path.

A job can put anything into its home, and a link in the place of it. So entries are used
by the descriptor of their folder (see `entries`), and no link is followed. Each folder
is opened by its path again, so that a copy fails if its source or target is renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import (
    Callable,
    Dict,
    Generator,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from ..folders.entries import named, open_file, open_folder, opened, set_mode
from ..folders.root import Refusal
from ..home_entries import LEFT_OUT
from .entry_copy import BLOCK, Entry

# A folder with one of these entries is an environment of Python or of conda.
ENVIRONMENT = ("pyvenv.cfg", "conda-meta")
# A larger file is not searched for a path: the scripts of an environment are small.
SEARCHED = 64 << 20


def nothing() -> None:
    """Do nothing: the function that a copy calls if it is given none."""


class Listing(NamedTuple):
    """
    A folder of a home, and what an image has of its *entries*.

    *below* is its path below the home, and *fd* its descriptor.
    """

    below: str
    fd: int
    entries: List[Tuple[str, os.stat_result]]


def copy(
    source: str,
    target: str,
    *,
    share: bool = False,
    paths: Sequence[str] = (),
    old: str = "",
    new: str = "",
    beat: Callable[[], None] = nothing,
) -> None:
    """
    Copy a home, without what an image leaves out, and without pipes and sockets.

    Args:
        share: Make other files hard links too, because the source is not used again.
            Otherwise only installed packages are shared.

        paths: The entries in which the path *old* is replaced by *new*.

        beat: Is called again and again while the copy goes on.

    Raises:
        Refusal: The home is not a folder.
    """
    needle, path, changed = os.fsencode(old), os.fsencode(new), set(paths)
    os.mkdir(target, 0o700)
    is_package = _packages(source)
    with contextlib.closing(walk(source)) as folders:
        for below, there, entries in folders:
            with opened(target) as top, opened(below, top) as here:
                for name, st in entries:
                    entry = os.path.join(below, name)
                    with named(os.path.join(source, entry)):
                        one = Entry(name, st, there, here, beat)
                        if entry in changed:
                            one.copy(needle, path)
                        elif is_package(entry):
                            one.share_or_copy()
                        elif share:
                            one.link_or_copy()
                        else:
                            one.copy()
                    beat()
    # The last entries may be missing if the source was removed meanwhile.
    os.lstat(source)


def walk(home: str) -> Generator[Listing, None, None]:
    """
    Yield the folders of a home, each before those in it.

    A folder that this user may not list gets other permissions for a while.

    Raises:
        Refusal: The home is not a folder.
    """
    left, modes = [""], []
    try:
        while left:
            below = left.pop()
            fd, mode = _open_listable(home, below)
            if mode is not None:
                modes.append((below, mode))
            try:
                with os.scandir(fd) as found:
                    entries = [
                        (entry.name, entry.stat(follow_symlinks=False))
                        for entry in sorted(found, key=lambda entry: entry.name)
                        if os.path.join(below, entry.name) not in LEFT_OUT
                    ]
                yield Listing(below, fd, entries)
            finally:
                os.close(fd)
            for name, st in entries:
                if stat.S_ISDIR(st.st_mode):
                    left.append(os.path.join(below, name))
    finally:
        for below, mode in reversed(modes):
            with contextlib.suppress(FileNotFoundError):
                _set_folder_mode(home, below, mode)


def find_paths(
    home: str, path: str, beat: Callable[[], None] = nothing
) -> Tuple[List[str], int]:
    """
    Return the entries of a home that contain *path*, and the bytes of all files.

    Files of more than `SEARCHED` bytes are not searched.
    """
    needle = os.fsencode(path)
    found, total = [], 0
    with contextlib.closing(walk(home)) as folders:
        for below, fd, entries in folders:
            for name, st in entries:
                entry = os.path.join(below, name)
                with named(os.path.join(home, entry)):
                    if _contains(name, st, fd, needle):
                        found.append(entry)
                total += st.st_size if stat.S_ISREG(st.st_mode) else 0
                beat()
    return found, total


def _open_listable(home: str, below: str) -> Tuple[int, Optional[int]]:
    """Open a folder for `walk`; also return its mode if that had to be changed."""
    path = os.path.join(home, below)
    with named(path):
        try:
            fd = _open_below(home, below)
        except PermissionError:
            mode = _folder_mode(home, below)
            _set_folder_mode(home, below, mode | 0o500)
            return _open_below(home, below), mode
        except OSError as error:
            if below or error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise Refusal("home", "%s is not a folder" % home) from error
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o500 == 0o500:
            return fd, None
        os.close(fd)
        _set_folder_mode(home, below, mode | 0o500)
        return _open_below(home, below), mode


def _open_below(home: str, below: str) -> int:
    with opened(home) as top:
        return open_folder(below, top)


@contextlib.contextmanager
def _folder_above(home: str, below: str) -> Iterator[Tuple[str, Optional[int]]]:
    """Open the folder that contains a folder of the home; yield the latter's name."""
    if not below:
        yield home, None
        return
    above, name = os.path.split(below)
    with opened(home) as top, opened(above, top) as fd:
        yield name, fd


def _folder_mode(home: str, below: str) -> int:
    with _folder_above(home, below) as (name, fd):
        return stat.S_IMODE(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def _set_folder_mode(home: str, below: str, mode: int) -> None:
    with _folder_above(home, below) as (name, fd):
        set_mode(name, mode, fd)


def _contains(name: str, st: os.stat_result, folder: int, needle: bytes) -> bool:
    """Return whether a link, or a file that is not too large, contains *needle*."""
    if stat.S_ISLNK(st.st_mode):
        return needle in os.fsencode(os.readlink(name, dir_fd=folder))
    if not stat.S_ISREG(st.st_mode) or st.st_size > SEARCHED:
        return False
    # No program uses a file that its owner cannot read.
    with contextlib.suppress(PermissionError), open_file(name, folder) as file:
        end = b""
        while True:
            block = file.read(BLOCK)
            if needle in end + block:
                return True
            if not block:
                return False
            end = (end + block)[-len(needle) :]
    return False


def _packages(source: str) -> Callable[[str], bool]:
    """
    Return a function that tells whether an entry belongs to an installed package.

    pip, uv and conda replace the files of packages, and never change them in place. So
    these can be hard links, which are read-only: a program that writes to one in place
    fails. Other files of an environment are written in place: `python -m venv` writes
    its scripts again, and users change configuration files.
    """
    known: Dict[str, bool] = {}

    def is_environment(name: str) -> bool:
        if name not in known:
            marks = [os.path.join(source, name, mark) for mark in ENVIRONMENT]
            known[name] = any(map(os.path.lexists, marks))
        return known[name]

    def is_package(name: str) -> bool:
        parts = name.split(os.sep)[:-1]
        if "site-packages" not in parts:
            return False
        last = parts.index("site-packages")
        above = [n for n in range(1, last) if parts[n] in ("lib", "lib64")]
        return any(is_environment(os.sep.join(parts[:n])) for n in above)

    return is_package
