"""
Give the processes of a box their own read-only view of the machine's file system.

The processes get a mount namespace. If they do not run as root, they also get a user
namespace, without which they could not create the mount namespace. In the mount
namespace all files are read-only except those in the box's own directories. This also
protects the modes, owners and times of files, which Landlock does not protect. The box
has its own /tmp, /var/tmp, /dev/shm and terminals. Homes, the root of all boxes and
/run show only the files that the box may use. Where namespaces are not available
(macOS, many containers, Ubuntu's AppArmor rule), only Landlock confines the box.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .box_processes import command

# A box mounts its own directories over these directories of the machine.
SCRATCH = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - mount points
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a mount point
_TERMINALS = Path("/dev/pts")
# An ordinary user's box mounts an empty directory over this one. In the user namespace
# the files of root have an unknown owner. ssh would refuse to include them from this
# directory, because they must belong to root.
_SSH_INCLUDES = Path("/etc/ssh/ssh_config.d")

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_NOSUID, _NODEV, _NOEXEC, _BIND, _RECURSIVE = 1 << 1, 1 << 2, 1 << 3, 1 << 12, 1 << 14
# This is MS_SLAVE. With it, the host's mounts and unmounts take effect in the box too,
# but those of the box do not take effect on the host.
_FROM_HOST_ONLY = 1 << 19

# The system call mount_setattr exists since Linux 5.12. It has the same number on every
# architecture.
_MOUNT_SETATTR = 442
_HERE, _AT_RECURSIVE, _READ_ONLY = -100, 0x8000, 1
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True)
class View:
    """
    The file system as a box sees it.

    *writable* paths can be changed. *hidden* directories look empty, except for the
    *writable* and *readable* paths in them. *scratch* maps a directory of the machine
    to the directory of the box that is mounted in its place.
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...]
    hidden: tuple[Path, ...]
    scratch: Mapping[Path, Path]


def enter(view: View) -> str:
    """
    Give this process the view; return the reason why that failed, or "".

    This process must have only one thread. A child process tries all steps first. If
    this process failed at a late step, it could not leave the user namespace again.
    """
    return _in_child(lambda: _enter(view)) or _failure_of(lambda: _enter(view))


def why_not() -> str:
    """Return why boxes on this system get no mount namespace, "" if they get one."""
    # The test runs in a separate process, because the calling process may have several
    # threads.
    done = subprocess.run(
        command("mounts", []), capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if not done.returncode else "the test failed"


def main(arguments: Sequence[str]) -> None:
    """
    Print why boxes on this system get no mount namespace; nothing if they get one.
    """
    sys.stdout.write(_in_child(lambda: _enter(View((), (), (), {}))))


def mount_memory(place: Path, options: str) -> None:
    """Mount an empty file system in memory. Raises `OSError`."""
    _mount(b"onebox", place, b"tmpfs", _NOSUID | _NODEV, options)


def drop_capabilities() -> None:
    """Drop the capabilities that the user namespace gave to this process."""
    if os.getuid() == 0:
        # Root has capabilities without a user namespace. `sandbox.apply` drops those
        # that a box does not need.
        return
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _check(_libc().capset(header, bytes(24)), "capset")


def _enter(view: View) -> None:
    _unshare()
    _mount(None, Path("/"), None, _FROM_HOST_ONLY | _RECURSIVE)
    scratch = {
        Path(os.path.realpath(place)): own
        for place, own in view.scratch.items()
        if _is_directory(place)
    }
    hidden = _outermost([*view.hidden, *scratch]) - set(scratch)
    # These paths are opened before other file systems are mounted over them, so that
    # they can still be reached.
    own = {place: _open(path) for place, path in scratch.items()}
    sources = {path: _open(path) for path in _kept(view, {*hidden, *scratch})}
    _set_read_only(Path("/"), on=True, below=True)
    for place in hidden:
        mount_memory(place, "mode=755")
    for place, source in own.items():
        _bind(source, place)
        _set_read_only(place, on=False)
    _mount_devices()
    for path, source in sources.items():
        _make_point(path, source)
        _bind(source, path)
        if path in view.writable:
            _set_read_only(path, on=False)
    for place in hidden:
        _set_read_only(place, on=True)
    for handle in (*own.values(), *sources.values()):
        os.close(handle)


def _kept(view: View, covered: Iterable[Path]) -> list[Path]:
    """
    Return the existing paths to mount again in the view, parents before children.

    These are the writable paths, and the readable paths that lie in one of the
    *covered* directories. Without a mount of its own, such a readable path would be
    hidden.
    """
    named = {*view.writable, *view.readable}
    # A program may use a directory's path with symbolic links or without, so both are
    # kept.
    candidates = {*named, *(Path(os.path.realpath(path)) for path in named)}
    return sorted(
        path
        for path in candidates
        if _stat(path) is not None
        and (path in view.writable or any(holds(cover, path) for cover in covered))
    )


def _mount_devices() -> None:
    """
    Mount the box's own shared memory and terminals.

    For an ordinary user also mount an empty directory over _SSH_INCLUDES.
    """
    if _is_directory(_SHARED_MEMORY):
        mount_memory(_SHARED_MEMORY, "mode=1777")
    if _is_directory(_TERMINALS):
        options = "newinstance,ptmxmode=0666,mode=620"
        _mount(b"devpts", _TERMINALS, b"devpts", _NOSUID | _NOEXEC, options)
    if os.getuid() != 0 and _is_directory(_SSH_INCLUDES):
        mount_memory(_SSH_INCLUDES, "mode=755")


def _unshare() -> None:
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _check(_libc().unshare(_NEW_MOUNTS), "unshare")
        return
    _check(_libc().unshare(_NEW_MOUNTS | _NEW_USER), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _outermost(paths: Iterable[Path]) -> set[Path]:
    """
    Return the directories in *paths* that lie in no other directory of *paths*.

    Symbolic links are resolved, and missing directories are left out.
    """
    real = {Path(os.path.realpath(path)) for path in paths if _is_directory(path)}
    return {
        path
        for path in real
        if not any(path != other and holds(other, path) for other in real)
    }


def holds(path: Path, inner: Path) -> bool:
    """Return whether *inner* is *path* or lies in it."""
    return path == inner or path in inner.parents


def _open(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _stat(path: Path) -> os.stat_result | None:
    """Return the `stat` of the path, None if the path is missing or inaccessible."""
    try:
        return path.stat()
    except OSError:
        return None


def _is_directory(path: Path) -> bool:
    st = _stat(path)
    return st is not None and stat.S_ISDIR(st.st_mode)


def _make_point(path: Path, source: int) -> None:
    """
    Create an empty directory or file at *path*, on which *source* will be mounted.

    Do nothing if *path* exists.
    """
    if os.path.lexists(path):
        return
    if stat.S_ISDIR(os.fstat(source).st_mode):
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _bind(source: int, place: Path) -> None:
    _mount(b"/proc/self/fd/%d" % source, place, None, _BIND | _RECURSIVE)


def _mount(
    source: bytes | None, place: Path, kind: bytes | None, flags: int, options: str = ""
) -> None:
    done = _libc().mount(source, os.fsencode(place), kind, flags, options.encode())
    _check(done, f"mounting {place}")


def _set_read_only(place: Path, *, on: bool, below: bool = False) -> None:
    attributes = struct.pack("=QQQQ", _READ_ONLY * on, _READ_ONLY * (not on), 0, 0)
    done = _libc().syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_long(_HERE),
        ctypes.c_char_p(os.fsencode(place)),
        ctypes.c_long(_AT_RECURSIVE * below),
        ctypes.c_char_p(attributes),
        ctypes.c_long(len(attributes)),
    )
    _check(done, f"mounting {place} read-only")


def _check(done: int, what: str) -> None:
    if done != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _libc() -> ctypes.CDLL:
    if not sys.platform.startswith("linux"):
        raise OSError(0, "only Linux has mount namespaces")
    return ctypes.CDLL(None, use_errno=True)


def _in_child(attempt: Callable[[], None]) -> str:
    """Run *attempt* in a child process; return the reason why it failed, or ""."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        why = "the child process ended at once"
        try:
            why = _failure_of(attempt)
        finally:
            os.write(write_end, why.encode("utf-8", "replace")[:4000])
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        why = pipe.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return why


def _failure_of(attempt: Callable[[], None]) -> str:
    """Run *attempt*; return the reason why it failed, or ""."""
    try:
        attempt()
    except OSError as error:
        return error.strerror or str(error)
    return ""
