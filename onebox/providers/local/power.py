"""Start and stop a box, and wait until it is up or has stopped."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from pathlib import Path

from onebox.errors import ProviderError, Unclear

from ...agent.box import is_locked
from . import box_processes, instances
from .layout import MARK, Layout, read_json

# A box may take this many seconds to start.
UP_SECONDS = 90.0
# A box stops within the time that its processes get to end themselves. The additional
# seconds are for a slow machine.
_DOWN_SECONDS = box_processes.GRACE_SECONDS + 15.0


def start(layout: Layout, lock: int) -> None:
    """
    Start the supervisor of a box, which inherits the lock that this process holds.
    """
    box = layout.marker.read_text("ascii")
    layout.state.unlink(missing_ok=True)
    with layout.log.open("ab") as log:
        # The supervisor moves to the background at once, and this call waits only for
        # that.
        subprocess.run(
            box_processes.command("box_supervisor", [], str(layout.path), str(lock)),
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
    Wait until the box has come up; it may have stopped again since.

    Raises:
        ProviderError: The box did not start.

        Unclear: The box is still starting after `UP_SECONDS`.
    """
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        alive = is_locked(str(layout.lock))
        # The state is read after the lock is tested. A supervisor writes its final
        # state before it ends, so the state of a box that is not locked is final.
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
    """
    If the box is stopping, wait until it has stopped, at most for `_DOWN_SECONDS`.
    """
    deadline = time.monotonic() + _DOWN_SECONDS
    while instances.box(layout).state == "stopping" and time.monotonic() < deadline:
        time.sleep(0.005)


def stop(layout: Layout, box: str, why: str) -> None:
    """
    Stop a box, and wait until none of its processes runs.

    Raises Unclear if another command still holds the box's lock.
    """
    _send_order(layout.control, why)
    deadline = time.monotonic() + _DOWN_SECONDS
    pause = 0.002
    while is_locked(str(layout.lock)) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
        _send_order(layout.control, why)
    # A supervisor ends all processes of the box before it ends itself. If it was
    # killed, the machine process ends them within GRACE_SECONDS. So this call waits
    # twice as long before it kills processes.
    box_processes.end(
        lambda: box_processes.marked(box), grace=2 * box_processes.GRACE_SECONDS
    )
    if is_locked(str(layout.lock)):
        raise Unclear(f"another onebox command is using box {box}")


def console(layout: Layout, lines: int) -> str:
    """Return the last *lines* lines of the box's console, "" if it has none."""
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
        # No supervisor has the pipe open: it is not up yet, or has ended.
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return
        raise
    try:
        # If the pipe is full, it contains orders already. If it is broken, the
        # supervisor has ended just now. So both errors are ignored.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(handle, f"{order}\n".encode())
    finally:
        os.close(handle)
