"""
Sessions of ssh in the job's folder and environment: a shell, or a command.

A client first prepares a session over its channel: the variables, among them secrets,
wait in a FIFO, so in memory only. Then the client starts `agent.pyz session NAME` in a
second session of the same ssh connection, which reads the FIFO once and becomes the
shell, or runs the command. sshd ends a command only if it has a terminal, so this
process does it.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import pwd
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, NoReturn, Optional, Sequence

from .. import processes
from ..box import BoxConfig
from ..protocol import Channel, Refused
from . import job_request

NAME = re.compile(r"session-[0-9a-f]{16}")
# The variables of a session have at most this many bytes: the largest pipe that Linux
# gives to an ordinary user.
MOST = 1 << 20
# A guarded command ends if its client sends nothing for SILENCE seconds. It then has
# GRACE seconds to end after SIGTERM.
SILENCE = 120.0
GRACE = 10.0
# If memory runs out, the kernel ends a command before the job, whose score is 200.
OOM_SCORE = 400


def prepare(
    channel: Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """
    Prepare a session, and return its name, which is valid while this client stays.

    A request has the variables `env` and `secrets`, and `command` for the login shell;
    "" means an interactive shell. If `guard` is set, the command ends when its client
    closes its input, or sends nothing for `SILENCE` seconds.
    """
    variables = dict(job_request.strings(request, "env"))
    variables.update(job_request.strings(request, "secrets"))
    plan = {
        "env": variables,
        "command": str(request.get("command", "")),
        "guard": request.get("guard") is True,
    }
    payload = json.dumps(plan).encode("ascii") + b"\n"
    name = "session-" + os.urandom(8).hex()
    path = box.path("files", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.mkfifo(path, 0o600)
    atexit.register(_remove, path)
    # The descriptor stays open until this process ends, which keeps the data.
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), MOST)
    try:
        written = os.write(fd, payload)
    except BlockingIOError:
        written = 0
    if written < len(payload):
        os.close(fd)
        raise Refused("argument", "the command and its variables are too long")
    return {"session": name}


OPS = {"session": prepare}


def enter(box: BoxConfig, name: str) -> NoReturn:
    """
    Become the shell or the command of a prepared session.

    Raises `SystemExit` if there is no such session.
    """
    plan = _take(box, name)
    environment = dict(os.environ)
    environment.update(job_request.base_environment(box))
    environment.update(plan["env"], ONEBOX_BOX=box.id)
    os.makedirs(box.work, exist_ok=True)
    os.chdir(box.work)
    shell = environment.get("SHELL") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    # Python ignores these signals, and a program would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if plan["guard"]:
        raise SystemExit(_guard([shell, "-c", plan["command"]], environment))
    if plan["command"]:
        os._exit(_run([shell, "-c", plan["command"]], environment))
    if not os.isatty(0):
        words = [shell]
    else:
        words = _interactive(shell, environment, plan["env"])
    try:
        os.execve(shell, words, environment)  # noqa: S606 - no shell wanted
    except OSError as error:
        raise SystemExit("onebox: %s: %s" % (shell, error.strerror)) from error


def _take(box: BoxConfig, name: str) -> Dict[str, Any]:
    """Read the plan of a session and remove its FIFO."""
    data = b""
    if NAME.fullmatch(name):
        path = box.path("files", name)
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            _remove(path)
            with contextlib.suppress(BlockingIOError):
                while not data.endswith(b"\n"):
                    part = os.read(fd, MOST)
                    if not part:
                        break
                    data += part
            os.close(fd)
    if not data.endswith(b"\n"):
        raise SystemExit("onebox: the connection that prepared this session has ended")
    plan: Dict[str, Any] = json.loads(data)
    return plan


def _interactive(
    shell: str, environment: Dict[str, str], given: Dict[str, str]
) -> List[str]:
    """
    Return the words that start an interactive shell.

    The start-up file of bash may change PATH, or end the shell. So bash reads a text of
    ours, which reads that file, then sets the job's variables again. If that file ends
    the shell, another one starts without it.
    """
    if os.path.basename(shell) != "bash":
        return [shell, "-i"]
    exports = ["export %s=%s" % (key, shlex.quote(given[key])) for key in given]
    venv = environment.get("VIRTUAL_ENV", "")
    if venv and "PATH" not in given:
        exports[:0] = [
            "export VIRTUAL_ENV=%s" % shlex.quote(venv),
            'case $PATH in "$VIRTUAL_ENV/bin":*) ;; '
            '*) export PATH="$VIRTUAL_ENV/bin:$PATH" ;; esac',
        ]
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    text = _BASHRC % {"fd": read_end, "exports": "\n".join([":", *exports])}
    data = os.fsencode(text)
    with contextlib.suppress(OSError):
        fcntl.fcntl(write_end, getattr(fcntl, "F_SETPIPE_SZ", 1031), MOST)
    os.set_blocking(write_end, False)
    if os.write(write_end, data) < len(data):
        return [shell, "-i"]
    os.close(write_end)
    return [shell, "--rcfile", "/dev/fd/%d" % read_end, "-i"]


_BASHRC = """\
exec %(fd)d<&-
__onebox_job() {
%(exports)s
}
__onebox_again() {
trap - EXIT
__onebox_job
echo "onebox: ~/.bashrc ended the shell, so this shell starts without it" >&2
exec "$BASH" --norc -i
}
trap __onebox_again EXIT
[ ! -r ~/.bashrc ] || . ~/.bashrc
case $(trap -p EXIT) in *__onebox_again*) trap - EXIT ;; esac
__onebox_job
unset -f __onebox_job __onebox_again
"""


def _run(words: List[str], environment: Dict[str, str]) -> int:
    """
    Run a command, and return its exit code, or 128 + the signal that ended it.

    Without a terminal, the command is ended when the client closes its output.
    """
    on_terminal = os.isatty(0)
    wake, woken = os.pipe()
    for fd in (wake, woken):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    if on_terminal:
        # Ctrl-C is meant for the command. A closed terminal ends this process, which
        # is the first one of the terminal, and so the kernel ends the command.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        try:
            _become(words, environment, own_group=not on_terminal)
        finally:
            os._exit(126)
    if not on_terminal:
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
    status = _wait(child, wake, () if on_terminal else (1, 2))
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def _become(words: List[str], environment: Dict[str, str], *, own_group: bool) -> None:
    if own_group:
        os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    processes.adjust_oom_score(OOM_SCORE)
    os.execve(words[0], words, environment)  # noqa: S606 - no shell wanted


def _wait(child: int, wake: int, outputs: Sequence[int]) -> int:
    """
    Wait for a command and return its wait status.

    When the client has closed one of *outputs*, all processes of the command's group
    receive SIGTERM, and SIGKILL `GRACE` seconds later.
    """
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    for fd in outputs:
        # Without events, poll reports only that the other end is closed.
        poll.register(fd, 0)
    kill_at = 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        closed = [fd for fd, _ in poll.poll(200 if kill_at else None) if fd != wake]
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 512)
        for fd in closed:
            poll.unregister(fd)
        if closed and not kill_at:
            processes.terminate(processes.group(child))
            kill_at = time.monotonic() + GRACE
        if kill_at and time.monotonic() > kill_at:
            processes.send(signal.SIGKILL, processes.group(child))


def _guard(words: List[str], environment: Dict[str, str]) -> int:
    """
    Run a command until it ends or its client is gone, and return its exit code.

    All processes of the command's group receive SIGTERM when the client closes our
    input or is silent, and SIGKILL if they still run `GRACE` seconds later.
    """
    child = subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
    # A child that ends writes to this pipe, by its signal.
    wake, alarm = os.pipe()
    os.set_blocking(alarm, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    # The connection may end before the command does, so a write must not end us.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while child.poll() is None:
        ready, _, _ = select.select([0, wake], [], [], SILENCE)
        if wake in ready:
            os.read(wake, 512)
        elif not ready or not os.read(0, 512):
            break
    code: Optional[int] = child.poll()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        code = child.wait(GRACE)
    except subprocess.TimeoutExpired:
        code = None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    sys.stdout.flush()
    return code if code >= 0 else 128 - code


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
