"""How a process becomes a supervisor, and how another one becomes the job."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import Any, Dict, List, NamedTuple, Tuple

from .. import box, processes

SET_CHILD_SUBREAPER = 36
# Set-up and jobs are no logins, but need what it says, of proxies for example.
ENVIRONMENT = "/etc/environment"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Plan(NamedTuple):
    """
    What to run: *commands* are tried in turn until one can be found.

    Of its log *max_log* bytes are kept, all if that is 0.
    """

    job: str
    commands: List[List[bytes]]
    environment: Dict[bytes, bytes]
    grace: float
    max_log: int
    spec: Dict[str, Any]


def system_environment(path: str = ENVIRONMENT) -> Dict[str, str]:
    """Return the variables that the box's system sets for every login."""
    found = {}
    for line in box.read(path).decode("utf-8", "surrogateescape").splitlines():
        text = line.strip()
        if text.startswith("export "):
            text = text[len("export ") :].lstrip()
        name, equals, value = text.partition("=")
        if equals and VARIABLE.fullmatch(name):
            if value[:1] in ("'", '"'):
                value = value[1:].partition(value[0])[0]
            else:
                value = value.partition("#")[0].rstrip()
            found[name] = value
    return found


def leave_connection(keep: Tuple[int, ...], errors: str) -> None:
    """Let go of the client's pipes, or its ssh would wait for us."""
    null = os.open(os.devnull, os.O_RDWR)
    trouble = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(trouble, 1)
    os.dup2(trouble, 2)
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the one that /dev/fd was listed with


def become_job(plan: Plan, work: str, log: int) -> None:
    """Turn this process into the job; 127 if there is no such command."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    everything = set(signal.valid_signals())
    for signum in everything - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    processes.adjust_oom_score(200)
    os.dup2(log, 1)
    os.dup2(log, 2)
    name = os.fsdecode(plan.commands[0][0])
    code, why = 127, "command not found"
    try:
        os.chdir(work)
        for words in plan.commands:
            try:
                os.execvpe(words[0], words, plan.environment)  # noqa: S606 (no shell wanted)
            except (FileNotFoundError, NotADirectoryError):
                continue
    except OSError as error:
        code, why = 126, error.strerror or str(error)
    os.write(2, os.fsencode("onebox: %s: %s\n" % (name, why)))
    os._exit(code)


def become_subreaper() -> bool:
    """Have the job's orphans given to us and not to init; False if that fails."""
    if sys.platform != "linux":
        return False
    try:
        # Here and not at the top: it takes long to load, and is not everywhere.
        import ctypes

        return bool(ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False
