"""Turn a forked process into a job's supervisor, or into the job itself."""

from __future__ import annotations

import os
import re
import signal
from typing import Any, Dict, List, NamedTuple, Tuple

from .. import processes
from ..box import read

# The system sets the variables in this file only for logins. The set-up of a box and a
# job are no logins, but need these variables too, for example those that name a proxy.
ENVIRONMENT = "/etc/environment"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# How early the kernel kills a job when memory runs out.
OOM_SCORE = 200


class JobPlan(NamedTuple):
    """
    What a job runs, and how.

    The first of *commands* that exists is run. The job has *grace* seconds between
    SIGTERM and SIGKILL. The log is limited to *max_log* bytes; 0 means no limit.
    *spec* is the part of the request that is stored in the job's directory. *notify* is
    the URL that the supervisor tells of the job's end, "" for none; it may contain a
    secret and is never stored. *units* are the contents of `units.json`, b"" if the job
    has no units.
    """

    job: str
    commands: List[List[bytes]]
    environment: Dict[bytes, bytes]
    grace: float
    max_log: int
    spec: Dict[str, Any]
    notify: str = ""
    units: bytes = b""


def system_environment(path: str = ENVIRONMENT) -> Dict[str, str]:
    """Return the variables that the system sets for every login."""
    found = {}
    for line in read(path).decode("utf-8", "surrogateescape").splitlines():
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
    """
    Close the pipes to the client, whose ssh waits until they are closed.

    All descriptors from 3 on are closed, except those in *keep*. From then on, this
    process reads an empty input and writes its output to the file *errors*.
    """
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                # This is listdir's own descriptor, which is closed already.
                continue


def become_job(plan: JobPlan, work: str, log: int) -> None:
    """Replace this process with the job; see `become_command`."""
    become_command(plan.commands, plan.environment, work, log, OOM_SCORE)


def become_command(
    commands: List[List[bytes]],
    environment: Dict[bytes, bytes],
    work: str,
    log: int,
    oom_score: int,
) -> None:
    """
    Replace this process with the first of *commands* that exists, in its own session.

    Exit with 127 if there is none, or 126 if it cannot be run.
    """
    os.setsid()
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if signal.getsignal(signum) not in (signal.SIG_DFL, None):
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    processes.adjust_oom_score(oom_score)
    os.dup2(log, 1)
    os.dup2(log, 2)
    name = os.fsdecode(commands[0][0])
    code, why = 127, "command not found"
    try:
        os.chdir(work)
        for words in commands:
            try:
                os.execvpe(words[0], words, environment)  # noqa: S606 (no shell wanted)
            except (FileNotFoundError, NotADirectoryError):
                continue
    except OSError as error:
        code, why = 126, error.strerror or str(error)
    os.write(2, os.fsencode("onebox: %s: %s\n" % (name, why)))
    os._exit(code)


def exit_code(status: int) -> int:
    """Return the exit code that a shell shows for the wait status *status*."""
    by_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return 128 + by_signal if by_signal else os.WEXITSTATUS(status)
