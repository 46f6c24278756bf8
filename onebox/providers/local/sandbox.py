"""
Confine the processes of a box with Landlock: no access to the user's files.

This protects against accidents (`rm -rf ~`, `pkill python`, `sudo poweroff`), not
against hostile code. It also makes a local box more like a cloud machine: a job that
depends on a file of this machine fails here too. Where the kernel allows it, the
process enters the mount namespace of `mounts` first, which covers what Landlock does
not.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .mounts import SCRATCH, holds

_NO_NEW_PRIVS = 38
_CAPBSET_DROP = 24

# These are the numbers of Landlock's system calls, the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_QUESTION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE = 1 << 4 | 1 << 5
# This is the right to create files of all kinds, except device files.
_MAKE = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12
_MAKE_DEVICE = 1 << 6 | 1 << 11
# The right to rename files across directories exists since ABI 2.
_REFER = 1 << 13
# The right to truncate files exists since ABI 3.
_TRUNCATE = 1 << 14

_READ = _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _REMOVE | _MAKE | _REFER | _TRUNCATE
_ALL = _EXECUTE | _READ | _WRITE | _MAKE_DEVICE
# Of all rights, only these can be given for a path that is not a directory.
_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

# These scopes exist since ABI 6. With them, the box cannot signal outside processes, or
# connect to their abstract sockets.
_SCOPE_SIGNALS_AND_SOCKETS = 0b11

# ABI 1 is not used, because it forbids to rename files across directories, and pip and
# git do not work without that.
OLDEST_ABI = 2

# These directories in / belong to the system and can be read. If a home lies in one of
# them (as /var/lib/jenkins does), only that home is hidden.
_SYSTEM = ("bin", "etc", "lib", "lib32", "lib64", "opt", "sbin", "usr", "var")
_NEVER = ("home", "root", "run", "dev", "tmp", "lost+found")
# /etc/resolv.conf may be a link to one of these paths in /run, so the box can read
# them. Everything else in /run is out of reach, such as sockets of the system.
_RUN = ("systemd/resolve", "resolvconf", "NetworkManager/resolv.conf", "connman")
RESOLVER = tuple(Path("/run", name) for name in _RUN)
# The box cannot use these devices: memory, the kernel's log, and terminals other than
# pseudo-terminals.
_DEVICES_NEVER = re.compile("mem|kmem|port|kmsg|initctl|console|log|tty.+|vcs.*|hvc.*")

# The box cannot execute these programs. A job could call them by their absolute path,
# and so bypass the box's own commands. If root or the user of a desktop session calls
# them, they power the machine off.
_POWER_PROGRAMS = ("halt", "poweroff", "reboot", "shutdown", "systemctl", "telinit")

# Root in the box loses these capabilities, by their number in the kernel, because a box
# does not need them: NET_ADMIN, SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT,
# SYS_TIME, MKNOD, MAC_OVERRIDE, MAC_ADMIN, SYSLOG, PERFMON (which reads other
# processes' memory past Landlock), BPF, CHECKPOINT_RESTORE.
_CAPABILITIES = (12, 16, 17, 19, 21, 22, 25, 27, 32, 33, 34, 38, 39, 40)


@dataclass(frozen=True)
class Limits:
    """
    The paths that limit the access of a box to the file system.

    The box may read and write the paths in *write*, and may only read those in *read*.
    *box* is the directory of the box, and *homes* are the user's home directories. If
    *own_tmp* is true, the box has its own /tmp and /var/tmp.
    """

    box: Path
    homes: tuple[Path, ...]
    write: tuple[Path, ...]
    read: tuple[Path, ...]
    own_tmp: bool = False


def landlock_abi() -> int:
    """
    Return the ABI version of Landlock in this kernel, 0 if the kernel has no Landlock.
    """
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _syscall(_CREATE_RULESET, 0, 0, _VERSION_QUESTION))


def apply(limits: Limits) -> int:
    """
    Confine this process and all that it will start; return the ABI of Landlock.

    On Linux without a usable Landlock (an old kernel, gVisor), only capabilities and
    set-uid programs are disabled, and 0 is returned. On other systems such as macOS
    nothing is confined, and 0 is returned.
    """
    if not sys.platform.startswith("linux"):
        return 0
    libc = _libc()
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")
    for capability in _CAPABILITIES:
        # A failure is ignored. Only root may drop these capabilities, and other users
        # do not have them.
        libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    abi = landlock_abi()
    if abi < OLDEST_ABI:
        return 0
    handled = _ALL if abi >= 3 else _ALL & ~_TRUNCATE
    scoped = _SCOPE_SIGNALS_AND_SOCKETS if abi >= 6 else 0
    attributes = struct.pack("=QQQ", handled, 0, scoped)
    ruleset = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused the rules")
    try:
        for path, rights in _rules(limits):
            _allow(ruleset, path, rights & handled)
        if _syscall(_RESTRICT_SELF, ruleset, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "Landlock refused to confine")
    finally:
        os.close(ruleset)
    return abi


def hidden(limits: Limits) -> tuple[Path, ...]:
    """Return the directories to hide: the user's homes, and the root of all boxes."""
    homes = (home for home in limits.homes if not _is_system(home))
    return (*homes, limits.box.parent.parent)


def _rules(limits: Limits) -> Iterator[tuple[str | Path, int]]:
    """Yield each path that the box may use, with its rights."""
    yield from _system_rules(limits)
    yield from _device_rules(limits)
    for path in RESOLVER:
        yield path, _READ
    for path in SCRATCH:
        if limits.own_tmp or not holds(path, limits.box):
            yield path, _EXECUTE | _READ | _WRITE
    for path in limits.read:
        yield path, _EXECUTE | _READ
    for path in limits.write:
        yield path, _EXECUTE | _READ | _WRITE


def _system_rules(limits: Limits) -> Iterator[tuple[str, int]]:
    """
    Yield the rules to read and run the system.

    They leave out the user's homes and the root of all boxes. The programs that power a
    machine off may be read but not run.
    """
    invisible, blocked = hidden(limits), _power_programs()
    for top in _entries(Path("/")):
        if top.name in _NEVER or top.is_symlink():
            continue
        if top.name not in _SYSTEM and any(holds(top, home) for home in limits.homes):
            continue
        for path in _around(str(top), invisible):
            yield path, _READ
        for path in _around(str(top), (*invisible, *blocked)):
            yield path, _EXECUTE


def _device_rules(limits: Limits) -> Iterator[tuple[str | Path, int]]:
    """
    Yield the rules to use devices, except disks and the devices in _DEVICES_NEVER.
    """
    yield Path("/dev"), _READ_DIR
    for device in _entries(Path("/dev")):
        if not _DEVICES_NEVER.fullmatch(device.name) and not _is_disk(device):
            for path in _around(str(device), hidden(limits)):
                yield path, _READ | _WRITE | _EXECUTE


def _around(path: str, hidden: Iterable[str | Path]) -> Iterator[str]:
    """
    Yield *path* if nothing in it is hidden, else the visible paths in it.

    A directory that contains a hidden path gets no rule itself, because a rule of
    Landlock cannot take back a right that the rule of a parent directory gives. The
    other entries of the directory get rules instead. There may be thousands, so they
    are not handled as `Path`, which would take ten times as long.
    """
    names = [str(each) for each in hidden]
    if path in names:
        return
    inside = [name for name in names if name.startswith(path + "/")]
    if not inside:
        yield path
        return
    try:
        with os.scandir(path) as entries:
            visible = [entry.path for entry in entries if not entry.is_symlink()]
    except OSError:
        return
    for entry in visible:
        yield from _around(entry, inside)


def _is_system(home: Path) -> bool:
    """
    Return whether a home directory belongs to the system.

    For example, some systems use / as the home directory of the user `nobody`.
    """
    if home == Path("/"):
        return True
    inside = len(home.parts) > 1 and home.parts[1] in _SYSTEM
    try:
        return inside and home.stat().st_uid != os.getuid()
    except OSError:
        return True


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _is_disk(path: Path) -> bool:
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return True


def _power_programs() -> tuple[Path, ...]:
    """
    Return the files, with links resolved, of the programs that power a machine off.
    """
    found = set()
    for name in _POWER_PROGRAMS:
        for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
            program = shutil.which(name, path=folder)
            # The file of busybox stays executable, because this one file contains all
            # commands.
            if program and "busybox" not in os.path.realpath(program):
                found.add(Path(program).resolve())
    return tuple(found)


def _allow(ruleset: int, path: str | Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        # The path does not exist, so it needs no rule.
        return
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _FILE
        rule = struct.pack("=Qi", rights, handle)
        if rights and _syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), f"Landlock refused a rule for {path}")
    finally:
        os.close(handle)


def _syscall(number: int, *arguments: int | bytes) -> int:
    passed = [
        ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_long(value)
        for value in arguments
    ]
    return int(_libc().syscall(ctypes.c_long(number), *passed))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
