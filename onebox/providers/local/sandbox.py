"""
Confine the processes of a box with Landlock: no access to the user's files.

This protects against accidents (`rm -rf ~`, `pkill python`, `sudo poweroff`), not
against hostile code. It is also fidelity: a job that depends on a file of this machine
fails here, as it would in the cloud. Where the kernel allows it, the mount namespace of
`mounts` is entered first, which covers what Landlock does not.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .mounts import SCRATCH, holds

_NO_NEW_PRIVS = 38
_CAPBSET_DROP = 24

# These numbers are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_QUESTION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE = 1 << 4 | 1 << 5
_MAKE = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12  # all but device files
_MAKE_DEVICE = 1 << 6 | 1 << 11
_REFER = 1 << 13  # rename across directories: ABI 2
_TRUNCATE = 1 << 14  # ABI 3

_READ = _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _REMOVE | _MAKE | _REFER | _TRUNCATE
_ALL = _EXECUTE | _READ | _WRITE | _MAKE_DEVICE
# The rights that a path can have if it is no directory.
_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

# ABI 6: the box cannot signal outside processes, or use their abstract sockets.
_SCOPE_SIGNALS_AND_SOCKETS = 0b11

# Without rename across directories (ABI 1) pip and git do not work.
OLDEST_ABI = 2

# Directories that belong to the system. Where a home lies in one of them
# (/var/lib/jenkins), only that home is hidden.
_SYSTEM = ("bin", "etc", "lib", "lib32", "lib64", "opt", "sbin", "usr", "var")
_NEVER = ("home", "root", "run", "dev", "tmp", "lost+found")
# Targets of /etc/resolv.conf. The rest of /run is sockets of the system.
_RUN = ("systemd/resolve", "resolvconf", "NetworkManager/resolv.conf", "connman")
RESOLVER = tuple(Path("/run", name) for name in _RUN)
# Memory, the kernel's log, and terminals other than pseudo-terminals.
_DEVICES_NEVER = re.compile("mem|kmem|port|kmsg|initctl|console|log|tty.+|vcs.*|hvc.*")

# A job could call these by their absolute path, past the box's own commands. Run by
# root, or in a desktop session, they power the machine off.
_POWER_PROGRAMS = ("halt", "poweroff", "reboot", "shutdown", "systemctl", "telinit")

# Capabilities that root in the box does not need, as numbered by the kernel: NET_ADMIN,
# SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, SYS_TIME, MKNOD, MAC_OVERRIDE,
# MAC_ADMIN, SYSLOG, PERFMON (which reads other processes' memory past Landlock), BPF,
# CHECKPOINT_RESTORE.
_CAPABILITIES = (12, 16, 17, 19, 21, 22, 25, 27, 32, 33, 34, 38, 39, 40)


@dataclass(frozen=True)
class Limits:
    """
    The directories that a box may *write* (and read) or only *read*.

    With *own_tmp*, /tmp and /var/tmp are the box's own.
    """

    box: Path
    homes: tuple[Path, ...]
    write: tuple[Path, ...]
    read: tuple[Path, ...]
    own_tmp: bool = False


def landlock_abi() -> int:
    """Return the version of Landlock in this kernel, 0 if it has none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _syscall(_CREATE_RULESET, 0, 0, _VERSION_QUESTION))


def apply(limits: Limits) -> int:
    """
    Confine this process and all that it will start; return the Landlock ABI.

    Without Landlock (an old kernel, macOS, gVisor) only capabilities and set-uid
    programs are disabled, and 0 is returned.
    """
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")
    for capability in _CAPABILITIES:
        # Only root may drop these; other users do not have them.
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


def _rules(limits: Limits) -> Iterator[tuple[Path, int]]:
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


def _system_rules(limits: Limits) -> Iterator[tuple[Path, int]]:
    """Yield the rules to read and run the system: no homes, boxes or power commands."""
    invisible, blocked = hidden(limits), _power_programs()
    for top in _entries(Path("/")):
        if top.name in _NEVER or top.is_symlink():
            continue
        if top.name not in _SYSTEM and any(holds(top, home) for home in limits.homes):
            continue
        for path in _around(top, invisible):
            yield path, _READ
        for path in _around(top, (*invisible, *blocked)):
            yield path, _EXECUTE


def _device_rules(limits: Limits) -> Iterator[tuple[Path, int]]:
    """Yield the rules for devices, except disks, memory and the system's terminals."""
    yield Path("/dev"), _READ_DIR
    for device in _entries(Path("/dev")):
        if not _DEVICES_NEVER.fullmatch(device.name) and not _is_disk(device):
            for path in _around(device, hidden(limits)):
                yield path, _READ | _WRITE | _EXECUTE


def _around(path: Path, hidden: Sequence[Path]) -> Iterator[Path]:
    """
    Yield *path*, or its visible entries if it contains a hidden path.

    Landlock rules only add rights: a rule cannot take back what a parent's rule allows.
    """
    if path in hidden:
        return
    if not any(holds(path, inner) for inner in hidden):
        yield path
        return
    for entry in _entries(path):
        if not entry.is_symlink():
            yield from _around(entry, hidden)


def _is_system(home: Path) -> bool:
    """Return whether a "home" is a system directory, such as / for the user nobody."""
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
    """Return the real files of the commands that power a machine off."""
    found = set()
    for name in _POWER_PROGRAMS:
        for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
            program = shutil.which(name, path=folder)
            # In busybox one file is every command, so it must stay usable.
            if program and "busybox" not in os.path.realpath(program):
                found.add(Path(program).resolve())
    return tuple(found)


def _allow(ruleset: int, path: Path, rights: int) -> None:
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
    libc = ctypes.CDLL(None, use_errno=True)
    passed = [
        ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_long(value)
        for value in arguments
    ]
    return int(libc.syscall(ctypes.c_long(number), *passed))
