"""
Run a command of the user's beside the job: in its folder, with its environment.

The client asks for a session over its channel, and then starts the command with ssh
(`agent.pyz session NAME`), so that the command has the streams or the terminal of ssh.
The environment holds secrets, which must be neither in a file nor in a command line. It
waits in a named pipe, that is in memory, until the command reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import sys
import time
from typing import Any, Dict, List

from .. import processes
from ..box import BoxConfig
from ..protocol import Channel, Refused
from . import command, exec

NAME = re.compile(r"[0-9a-f]{32}")
PREFIX = ".session-"
# The size of a pipe in bytes, the largest size that every user may request, and the
# number of the call that sets it.
PIPE_SIZE = 1 << 16
LONGEST = 1 << 20
SET_PIPE_SIZE = 1031
# A pipe that was not read after this many seconds belongs to a session that never came.
UNUSED = 60.0
# If memory runs out, the command ends before the job, whose score is 200.
OOM_SCORE = 400
# After a broken connection, the command has this many seconds between SIGTERM and
# SIGKILL.
LAST_GRACE = 5.0
POLL = 200

# The pipes of this agent's sessions. What is in them is lost when the agent ends.
_pipes: List[int] = []


def prepare(
    channel: Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Keep a command and its environment in a named pipe; return the pipe's name."""
    plan = {
        "commands": [_texts(words) for words in command.commands(request)],
        "environment": _texts(
            word for pair in command.environment(box, request).items() for word in pair
        ),
    }
    data = json.dumps(plan).encode("ascii")
    if len(data) > LONGEST:
        raise Refused("argument", "the command and its environment are too long")
    os.makedirs(box.path("jobs"), mode=0o700, exist_ok=True)
    _remove_unused(box)
    name = os.urandom(16).hex()
    path = box.path("jobs", PREFIX + name)
    os.mkfifo(path, 0o600)
    # The pipe has to keep its contents while no command has it open yet, so this
    # process holds both ends.
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    _pipes.append(fd)
    try:
        if len(data) > PIPE_SIZE:
            fcntl.fcntl(fd, SET_PIPE_SIZE, len(data))
        sent = os.write(fd, data)
    except OSError as error:
        raise Refused("argument", "the environment is too long: %s" % error) from error
    if sent < len(data):
        raise Refused("argument", "the command and its environment are too long")
    return {"session": name}


OPS = {"session": prepare}


def run(root: str, name: str) -> None:
    """Run the command of a session, and exit with its exit code, or 128 + a signal."""
    box = BoxConfig.load(root)
    plan = _read_plan(box, name)
    on_terminal = os.isatty(0)
    wake, woken = os.pipe()
    for fd in (wake, woken):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    if on_terminal:
        # Ctrl-C is meant for the command. A closed terminal sends SIGHUP, which ends
        # this process and then the command.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:
        if not on_terminal:
            os.setpgid(0, 0)
        processes.adjust_oom_score(OOM_SCORE)
        exec.become_command(
            [[os.fsencode(word) for word in words] for words in plan["commands"]],
            _pairs([os.fsencode(word) for word in plan["environment"]]),
            box.work,
        )
    if not on_terminal:
        # The command does the same. Whoever is first, its group exists from here on.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
    status = _wait(pid, wake, () if on_terminal else (1, 2))
    if os.WIFSIGNALED(status):
        os._exit(128 + os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _read_plan(box: BoxConfig, name: str) -> Dict[str, Any]:
    if not NAME.fullmatch(name):
        sys.exit("onebox: %r is not a session" % name)
    path, data = box.path("jobs", PREFIX + name), b""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.unlink(path)
        with contextlib.suppress(BlockingIOError):
            while True:
                part = os.read(fd, LONGEST)
                if not part:
                    break
                data += part
        os.close(fd)
        plan: Dict[str, Any] = json.loads(data)
    except (OSError, ValueError):
        # 255 is also what ssh exits with if its connection breaks.
        os.write(2, b"onebox: the connection that asked for this command is gone\n")
        os._exit(255)
    return plan


def _wait(pid: int, wake: int, outputs: Any) -> int:
    """
    Wait for the command and return its wait status.

    When the client has closed one of *outputs*, it has gone, and the command is ended.
    """
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    for fd in outputs:
        # Without events, poll reports that the other end is closed.
        poll.register(fd, 0)
    killed_at = 0.0
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        ready = poll.poll(POLL if killed_at else None)
        gone = [fd for fd, events in ready if fd != wake]
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 64)
        if gone and not killed_at:
            processes.terminate(processes.group(pid))
            killed_at = time.monotonic() + LAST_GRACE
        for fd in gone:
            poll.unregister(fd)
        if killed_at and time.monotonic() > killed_at:
            processes.send(signal.SIGKILL, processes.group(pid))


def _remove_unused(box: BoxConfig) -> None:
    """Remove the pipes of sessions that never came."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(box.path("jobs")):
            path = box.path("jobs", entry)
            if entry.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    if time.time() - os.lstat(path).st_mtime > UNUSED:
                        os.unlink(path)


def _texts(words: Any) -> List[str]:
    return [os.fsdecode(word) for word in words]


def _pairs(words: List[bytes]) -> Dict[bytes, bytes]:
    return dict(zip(words[::2], words[1::2]))
