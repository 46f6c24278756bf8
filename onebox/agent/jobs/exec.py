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


class JobPlan(NamedTuple):
    """
    What a job runs, and how.

    The first of *commands* that exists is run. The job has *grace* seconds between
    SIGTERM and SIGKILL. The log is limited to *max_log* bytes; 0 means no limit.
    *spec* is the part of the request that is stored in the job's directory. *notify* is
    the URL that the supervisor tells of the job's end, "" for none; it may contain a
    secret and is never stored.
    """

    job: str
    commands: List[List[bytes]]
    environment: Dict[bytes, bytes]
    grace: float
    max_log: int
    spec: Dict[str, Any]
    notify: str = ""


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
    """
    Replace this process with the job.

    Exit with 127 if the command is missing, or 126 if it cannot be run.
    """
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
