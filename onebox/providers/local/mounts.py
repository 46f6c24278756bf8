"""
A view of the file system for one box: read-only, with directories of its own.

The box's processes get a mount namespace, and an ordinary user a user namespace
around it. Everything is mounted read-only there, which also covers what Landlock
does not: modes, owners and times of files. /tmp, /var/tmp, /dev/shm and the
terminals are the box's own; homes, other boxes and /run are empty. Without
namespaces (macOS, many containers, Ubuntu's AppArmor rule) there is no such view,
and Landlock alone confines the box.
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

from .layout import command

# What a box has of its own, mounted over the machine's.
SCRATCH = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - the real ones
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the real one
_TERMINALS = Path("/dev/pts")
# ssh refuses a file that it includes from here and that is not root's. In a user
# namespace of an ordinary user, root's files seem to be nobody's.
_SSH_INCLUDES = Path("/etc/ssh/ssh_config.d")

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_NOSUID, _NODEV, _NOEXEC, _BIND, _RECURSIVE = 1 << 1, 1 << 2, 1 << 3, 1 << 12, 1 << 14
_FROM_HOST_ONLY = 1 << 19  # MS_SLAVE: what the host unmounts goes here as well

# Linux 5.12; the same number on every architecture.
_MOUNT_SETATTR = 442
_HERE, _AT_RECURSIVE, _READ_ONLY = -100, 0x8000, 1
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True)
class View:
    """
    What a box sees: *writable* and *readable* directories also in *hidden* ones.

    *scratch* are directories of the box that appear at the paths they stand for.
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...]
    hidden: tuple[Path, ...]
    scratch: Mapping[Path, Path]


def enter(view: View) -> str:
    """
    Give this process, which has one thread, that view; return why it could not.

    It is tried in a child first: nobody leaves a user namespace again.
    """
    return _in_child(lambda: _enter(view)) or _done(lambda: _enter(view))


def why_not() -> str:
    """Return why this system gives a box no view of its own, "" if it does."""
    # In a process of its own: the one that asks may have several threads.
    done = subprocess.run(
        command("mounts", []), capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if not done.returncode else "it cannot be tried out"


def main(arguments: Sequence[str]) -> None:
    """Print why a box would get no view of its own here, nothing if it would."""
    sys.stdout.write(_in_child(lambda: _enter(View((), (), (), {}))))


def mount_memory(place: Path, options: str) -> None:
    """Mount an empty file system that lives in memory. Raises `OSError`."""
    _mount(b"onebox", place, b"tmpfs", _NOSUID | _NODEV, options)


def drop_capabilities() -> None:
    """Give up what a user namespace has given to this process."""
    if os.getuid() == 0:
        # Root's are its own; `confine.apply` takes most of them from its jobs.
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
    # Opened before something is mounted over them.
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
    """Return what has to be mounted again, what lies further up first."""
    named = {*view.writable, *view.readable}
    # A program may know a directory by the one name or by the other.
    wanted = {*named, *(Path(os.path.realpath(path)) for path in named)}
    return sorted(
        path
        for path in wanted
        if _stat(path) is not None
        and (path in view.writable or any(holds(one, path) for one in covered))
    )


def _mount_devices() -> None:
    """Mount shared memory and terminals of the box's own."""
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
    """Return the real directories among these that lie in no other one of them."""
    real = {Path(os.path.realpath(path)) for path in paths if _is_directory(path)}
    return {
        path
        for path in real
        if not any(path != one and holds(one, path) for one in real)
    }


def holds(path: Path, inner: Path) -> bool:
    """Tell whether *inner* is *path* or lies in it."""
    return path == inner or path in inner.parents


def _open(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _stat(path: Path) -> os.stat_result | None:
    """Return what a path leads to; None if nothing, or nothing that we may see."""
    try:
        return path.stat()
    except OSError:
        return None


def _is_directory(path: Path) -> bool:
    found = _stat(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _make_point(path: Path, source: int) -> None:
    """Make what *source* can be mounted on, unless it is there."""
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
    """Return why *attempt* fails, which is made in a child of this process."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        why = "it ended at once"
        try:
            why = _done(attempt)
        finally:
            os.write(write_end, why.encode("utf-8", "replace")[:4000])
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        why = pipe.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return why


def _done(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except OSError as error:
        return error.strerror or str(error)
    return ""
