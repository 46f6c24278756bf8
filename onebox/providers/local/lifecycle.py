"""Furnish a box's directory, bring the box up and down, and hear what it says."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from pathlib import Path

from onebox.errors import ProviderError, Unclear

from . import path_shims, processes, records
from .layout import (
    MARK,
    Layout,
    command,
    is_locked,
    make_fifo,
    read_json,
)

# How long a box may take to come up.
UP_SECONDS = 90.0
# A box stops within the grace that its processes get; this is for a slow machine.
_DOWN_SECONDS = processes.GRACE_SECONDS + 15.0

# A login shell's /etc/profile sets a PATH of its own, and would lose the box's.
_PROFILE = 'PATH="{bin}:$PATH"\n[ -r ~/.bashrc ] && . ~/.bashrc\n'


def furnish(new: Layout, final: Layout, agent: bytes) -> None:
    """Make a box's directories, commands and pipes at *new*, for use at *final*."""
    for directory in (new.disk, new.home, new.tmp, new.var_tmp, new.agent):
        directory.mkdir(mode=0o700)
    (new.home / ".profile").write_text(_PROFILE.format(bin=final.bin), "utf-8")
    (new.agent / "agent.pyz").write_bytes(agent)
    path_shims.write(new.bin, final.power)
    make_fifo(new.control)
    make_fifo(new.power)


def start(layout: Layout, lock: int) -> None:
    """Start the supervisor, which keeps the lock that this process holds now."""
    box = layout.marker.read_text("ascii")
    layout.state.unlink(missing_ok=True)
    with layout.log.open("ab") as log:
        # It goes into the background itself: what we wait for is only that.
        subprocess.run(
            command("supervisor", [], str(layout.path), str(lock)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            cwd=layout.path,
            env={MARK: box},
            check=False,
        )


def wait_until_up(layout: Layout) -> None:
    """
    Wait until the box runs, or has stopped again.

    Raises:
        ProviderError: It did not come up.

        Unclear: It is still starting after more than a minute.
    """
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        alive = is_locked(layout.lock)
        # Read after the lock: a supervisor writes its last word before it ends.
        state = read_json(layout.state) or {}
        if "port" in state:
            return
        if state.get("state") == "failed":
            raise ProviderError(f"box {layout.path.name} did not start: {state['why']}")
        if not alive:
            why = console(layout, 3).strip() or "it was killed, or removed"
            raise ProviderError(f"box {layout.path.name} did not start: {why}")
        time.sleep(0.005)
    raise Unclear(f"box {layout.path.name} has not started within {UP_SECONDS:g} s")


def wait_while_stopping(layout: Layout) -> None:
    """Wait until a box that goes down has, but not for long."""
    deadline = time.monotonic() + _DOWN_SECONDS
    while records.box(layout).state == "stopping" and time.monotonic() < deadline:
        time.sleep(0.005)


def stop(layout: Layout, box: str, why: str) -> None:
    """Stop a box and wait until nothing of it runs, however it got here."""
    _order(layout.control, why)
    deadline = time.monotonic() + _DOWN_SECONDS
    pause = 0.002
    while is_locked(layout.lock) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
        _order(layout.control, why)
    # With the supervisor alive nothing is left. It may have been killed, though:
    # then the machine ends everything, and needs the usual grace to do so.
    processes.end(lambda: processes.marked(box), grace=2 * processes.GRACE_SECONDS)
    if is_locked(layout.lock):
        raise Unclear(f"another onebox command is using box {box}")


def console(layout: Layout, lines: int) -> str:
    """Return the last lines that the box's processes have said."""
    try:
        text = layout.log.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "".join(text.splitlines(keepends=True)[-lines:])


def _order(pipe: Path, order: str) -> None:
    try:
        handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        # Nobody reads: not up yet, or not any more.
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return
        raise
    try:
        # Full of orders: one of them will do. Broken: its reader has just ended.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(handle, f"{order}\n".encode())
    finally:
        os.close(handle)
