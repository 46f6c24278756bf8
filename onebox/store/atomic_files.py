"""Write files atomically: after a crash, a file is the complete old or new one."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import secrets
import shlex
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from onebox.errors import StateError
from onebox.file_owners import is_foreign
from onebox.signals import signals_delayed

# Only drafts older than this many seconds are removed, because a younger draft may
# belong to a command that still runs.
OLD_SECONDS = 3600.0
NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC


def private_dir(path: Path) -> Path:
    """Create a directory, and its parents, with access for this user only."""
    if not path.is_dir():
        private_dir(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """
    Yield the descriptor of a private folder; create it if it does not exist.

    Raises:
        StateError: The path is a file, or a link, which could lead to another folder.
    """
    private_dir(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | NO_LINK)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise not_ours_error(path, "folder") from error
    try:
        yield fd
    finally:
        os.close(fd)


def open_in(folder: int, path: Path, flags: int) -> int:
    """
    Open the file *path* by its name in an open folder.

    Raises:
        StateError: The file is a link, through which another file would be read or
            written. Or it is no regular file; a read of a pipe may not end.
    """
    try:
        flags |= NO_LINK | os.O_NONBLOCK
        fd = os.open(path.name, flags, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise not_ours_error(path, "file") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise not_ours_error(path, "file")
    return fd


def open_file(path: Path, flags: int) -> int:
    """
    Open, and if necessary create, a file that only this user can read.

    Raises:
        StateError: The file is a link, through which another file would be written.
    """
    try:
        return os.open(path, flags | os.O_CREAT | NO_LINK, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise not_ours_error(path, "file") from error


def read_regular(path: Path) -> bytes:
    """
    Return the content of a regular file, also through a link.

    A project that was cloned may bring a pipe in the place of a file, on which an
    ordinary read waits forever.

    Raises:
        OSError: The path cannot be read, or is no regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return file.read()


def append_line(path: Path, line: str) -> None:
    """
    Append a line to a file; when this returns, the line is on the disk.

    Raises:
        StateError: The file is a link, through which another file would be written.
    """
    fd = open_file(path, os.O_WRONLY | os.O_APPEND)
    try:
        write_all(fd, line.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def not_ours_error(path: Path, what: str) -> StateError:
    """Return the error for a path that is not the expected file or folder itself."""
    return StateError(
        f"{path} is not a {what}, and onebox does not write through a link",
        next="remove it, then run the same command again",
    )


def refuse_links(folder: Path, depth: int) -> None:
    """
    Raise StateError if a folder is a link or a file, or holds a link to a folder.

    Pipes, devices and links to them are refused too, because a read of them may not
    end.

    Args:
        depth: How many levels below the folder are looked at.
    """
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise not_ours_error(folder, "folder")
        inside = list(os.scandir(folder)) if depth else []
    except OSError:
        return
    for entry in inside:
        path = Path(entry.path)
        if entry.is_dir():
            if entry.is_symlink():
                raise not_ours_error(path, "folder")
            refuse_links(path, depth - 1)
        elif not entry.is_file() and path.exists():
            raise StateError(
                f"{path} is neither a file nor a folder",
                next="remove it, then run the same command again",
            )


def refuse_foreign(folder: Path) -> None:
    """Raise StateError if another user owns a folder of onebox."""
    if is_foreign(folder):
        reason = "who could change what onebox keeps in it"
        raise foreign_error(folder, folder, reason)


def foreign_error(path: Path, folder: Path, reason: str) -> StateError:
    """
    Return the error for a path of another user.

    Args:
        folder: The folder that its user may give to this user.
    """
    command = shlex.join(["chown", "-R", _user(), str(folder)])
    return StateError(
        f"{path} belongs to another user, {reason}",
        next=f"{command}, if you trust it",
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def write_atomically(
    path: Path,
    data: bytes,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
) -> None:
    """
    Replace a file; after a crash it is either the complete old or new one.

    Args:
        owner: The ids of the file's user and group, if they are not this process's.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_in(folder, path.name, data, mode, owner)
    except OSError as error:
        # The error names the draft, which the user does not know.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        os.close(folder)


def write_in(
    folder: int,
    name: str,
    data: bytes,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
) -> None:
    """Replace a file in an open folder; see `write_atomically`."""
    with signals_delayed():
        draft = f".{name}-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK
        fd = os.open(draft, flags, 0o600, dir_fd=folder)
        try:
            try:
                st = os.fstat(fd)
                if owner is not None and owner != (st.st_uid, st.st_gid):
                    os.fchown(fd, *owner)
                os.fchmod(fd, mode)
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
            raise
        os.fsync(folder)


def clear_drafts(directory: Path, pattern: str) -> None:
    """
    Remove drafts that killed commands left behind.

    Drafts younger than `OLD_SECONDS` stay.
    """
    for path in directory.glob(pattern):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime > time.time() - OLD_SECONDS:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes, in as many calls as the system needs."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError that the body raises into a StateError that names the file."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{error.filename or path}: {error.strerror}",
            next="free some space, or fix the permissions; then run it again",
        ) from error


def sync_dir(path: Path) -> None:
    """Flush a directory's entries to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
