"""Start and stop a box, and wait for it."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from pathlib import Path

from onebox.errors import ProviderError, Unclear

from ...agent.box import is_locked
from . import instances, processes
from .layout import MARK, Layout, read_json

# How long a box may take to start.
UP_SECONDS = 90.0
# A box stops within its processes' grace; the rest is for a slow machine.
_DOWN_SECONDS = processes.GRACE_SECONDS + 15.0


def start(layout: Layout, lock: int) -> None:
    """Start the supervisor, which inherits the lock of this process."""
    box = layout.marker.read_text("ascii")
    layout.state.unlink(missing_ok=True)
    with layout.log.open("ab") as log:
        # The supervisor daemonizes itself; this call waits only for that.
        subprocess.run(
            processes.command("supervisor", [], str(layout.path), str(lock)),
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
    Wait until the box is up, or has stopped again.

    Raises:
        ProviderError: It did not start.

        Unclear: It is still starting after `UP_SECONDS`.
    """
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        alive = is_locked(str(layout.lock))
        # Read after the lock: a supervisor writes its final state before it ends.
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
    """Wait until a box that is stopping has stopped, at most for `_DOWN_SECONDS`."""
    deadline = time.monotonic() + _DOWN_SECONDS
    while instances.box(layout).state == "stopping" and time.monotonic() < deadline:
        time.sleep(0.005)


def stop(layout: Layout, box: str, why: str) -> None:
    """Stop a box, and wait until none of its processes runs. Raises `Unclear`."""
    _send_order(layout.control, why)
    deadline = time.monotonic() + _DOWN_SECONDS
    pause = 0.002
    while is_locked(str(layout.lock)) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
        _send_order(layout.control, why)
    # A supervisor ends all processes before it ends itself. If it was killed, the
    # machine does so, within the usual grace.
    processes.end(lambda: processes.marked(box), grace=2 * processes.GRACE_SECONDS)
    if is_locked(str(layout.lock)):
        raise Unclear(f"another onebox command is using box {box}")


def console(layout: Layout, lines: int) -> str:
    """Return the last lines of the box's console."""
    try:
        text = layout.log.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "".join(text.splitlines(keepends=True)[-lines:])


def _send_order(pipe: Path, order: str) -> None:
    """Send an order to the supervisor, if it is running."""
    try:
        handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        # No supervisor reads the pipe: it is not up yet, or has ended.
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return
        raise
    try:
        # A full pipe already contains orders. A broken pipe lost its reader just now.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(handle, f"{order}\n".encode())
    finally:
        os.close(handle)
