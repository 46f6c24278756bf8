"""What a client may ask about jobs: start one, see it, follow it, cancel it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from .. import processes
from ..box import Box
from ..protocol import Channel, Refused
from . import exec, log_stream, metrics, state, supervisor

# What a job inherits of the agent's own environment.
KEPT = re.compile(
    r"(HOME|USER|LOGNAME|LANG|PATH|TERM|SHELL|TMPDIR|ONEBOX_.*|LC_.*"
    r"|(?i:(https?|ftp|all|no)_proxy))",
    re.DOTALL,
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def start(channel: Channel, at: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """Start a job, unless it has been started before or another one runs."""
    job = str(request.get("job"))
    if not state.JOB.fullmatch(job):
        raise Refused("argument", "a job cannot be called %r" % job)
    plan = _plan(at, job, request)
    os.makedirs(at.path("jobs"), mode=0o700, exist_ok=True)
    with _starting(at) as guard:
        known = state.jobs(at)
        if job not in known:
            _make_room(channel, at, known)
            _make_directories(at, request)
            trouble = supervisor.detach(at, plan, guard)
            if trouble:
                raise Refused("start", "job %s did not start: %s" % (job, trouble))
    return {"job": job, "state": state.state(at, job)[0]}


def look(channel: Channel, at: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """Say how a job is doing, the latest one if none is named."""
    asked = request.get("job")
    return _describe(at, state.latest(at) if asked is None else str(asked))


def follow(channel: Channel, at: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """Send the log from an offset on, as it grows, until the job is over."""
    job = _known(at, request)
    offset = request.get("offset", 0)
    fd = os.open(at.path("jobs", job, "log"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        # What a power cut has taken from a log came to the client before.
        most = size if state.state(at, job)[0] == "running" else sys.maxsize
        if not isinstance(offset, int) or not 0 <= offset <= most:
            raise Refused("offset", "the log ends at %d, not at %r" % (size, offset))
        os.lseek(fd, min(offset, size), os.SEEK_SET)
        log_stream.stream(channel, at, job, fd)
    finally:
        os.close(fd)
    return _describe(at, job)


def cancel(channel: Channel, at: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """End a job and all that it has started; answer when it is over."""
    job = _known(at, request)
    state.tell(at, job, {"cause": str(request.get("cause", "cancel"))})
    while state.state(at, job)[0] == "running":
        log_stream.listen(channel, at, 0.02)
    # Its supervisor may have died since it was told, and have ended nothing.
    if state.state(at, job)[0] == "lost":
        _end_strays(channel, at, job, state.grace(at, job))
    return _describe(at, job)


def _describe(at: Box, job: Optional[str]) -> Dict[str, Any]:
    """Return all that is known about a job."""
    now, record, why = state.state(at, job) if job else ("none", None, "")
    directory = at.path("jobs", job or "")
    return {
        "job": job,
        "state": now,
        "record": record,
        "why": why,
        "alive": now == "lost" and bool(state.strays(at, str(job))),
        "started": state.started(directory).get("at"),
        "log_bytes": _stat(directory, "log")[0],
        "sample": metrics.latest(directory),
        "heartbeat_age": _stat(directory, "heartbeat")[1],
    }


def _stat(directory: str, name: str) -> Tuple[int, Optional[float]]:
    """Return a file's size and age; (0, None) if it is not there."""
    try:
        stat = os.stat(os.path.join(directory, name))
    except OSError:
        return 0, None
    return stat.st_size, max(0.0, time.time() - stat.st_mtime)


OPS = {"start": start, "job": look, "follow": follow, "cancel": cancel}


def _known(at: Box, request: Dict[str, Any]) -> str:
    job = request.get("job")
    if job is None:
        job = state.latest(at)
    if job is None or state.state(at, str(job))[0] == "none":
        raise Refused("job", "there is no job %s on this box" % (job or "yet"))
    return str(job)


# Starting


def _plan(at: Box, job: str, request: Dict[str, Any]) -> exec.Plan:
    env = _strings(request, "env")
    secrets = _strings(request, "secrets")
    grace = request.get("cancel_grace", state.GRACE)
    max_log = request.get("max_log", 0)
    shell, argv = request.get("shell"), request.get("argv")
    if not isinstance(grace, (int, float)) or grace < 0:
        raise Refused("argument", "cancel_grace cannot be %r" % grace)
    if not isinstance(max_log, int) or max_log < 0:
        raise Refused("argument", "max_log cannot be %r" % max_log)
    if isinstance(shell, str) and argv is None:
        commands = [["bash", "-c", shell], ["sh", "-c", shell]]
    elif isinstance(argv, list) and argv and shell is None:
        commands = [[str(word) for word in argv]]
    else:
        raise Refused("argument", "a job is either argv or shell")
    spec = {
        "job": job,
        "argv": argv,
        "shell": shell,
        "env": env,
        "secrets": sorted(secrets),
        "outputs": request.get("outputs", []),
        "cancel_grace": grace,
        "max_log": max_log,
    }
    environment = dict(_base(at), **env)
    environment.update(secrets, ONEBOX_JOB=job, ONEBOX_BOX=at.id)
    return exec.Plan(
        job=job,
        commands=[[_bytes(word) for word in words] for words in commands],
        environment={_bytes(key): _bytes(environment[key]) for key in environment},
        grace=float(grace),
        max_log=max_log,
        spec=spec,
    )


def _base(at: Box) -> Dict[str, str]:
    """Return the environment of every job: the system's, little of ours, its venv."""
    base = exec.system_environment()
    base.update((name, os.environ[name]) for name in os.environ if KEPT.fullmatch(name))
    base.setdefault("HOME", at.home)
    base.setdefault("PATH", PATH)
    venv = os.path.join(base["HOME"], ".venv")
    if os.path.isdir(os.path.join(venv, "bin")):
        base["VIRTUAL_ENV"] = venv
        base["PATH"] = os.path.join(venv, "bin") + ":" + base["PATH"]
    return base


def _strings(request: Dict[str, Any], name: str) -> Dict[str, str]:
    values = request.get(name, {})
    if not isinstance(values, dict):
        raise Refused("argument", "%s is not a table" % name)
    for key, value in values.items():
        # The value is nobody's business: it may be a secret.
        if not key or "=" in key or not isinstance(value, str):
            raise Refused("argument", "%s: %r cannot be set" % (name, key))
    return values


def _bytes(text: str) -> bytes:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Refused("argument", "the command or env is not text") from error
    if b"\0" in data:
        raise Refused("argument", "the command or env holds a NUL byte")
    return data


@contextlib.contextmanager
def _starting(at: Box) -> Iterator[int]:
    """Hold the lock that lets one client at a time start a job."""
    fd = os.open(at.path("jobs", ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _make_room(channel: Channel, at: Box, known: List[str]) -> None:
    """See that no other job is in the way, nor what a lost one left running."""
    busy = state.running(at)
    if busy:
        raise Refused("busy", "job %s is running" % busy)
    for name in os.listdir(at.path("jobs")):
        if name.startswith(".new-"):
            _discard(at.path("jobs", name))
    for job in known:
        if state.state(at, job)[0] == "lost":
            _end_strays(channel, at, job, 0.0)


def _make_directories(at: Box, request: Dict[str, Any]) -> None:
    for name in [".", *request.get("outputs", [])]:
        path = os.path.normpath(str(name))
        if os.path.isabs(path) or path.split("/")[0] == "..":
            raise Refused("path", "%s is not inside the work directory" % name)
        try:
            os.makedirs(os.path.join(at.work, path), exist_ok=True)
        except OSError as error:
            raise Refused("path", "%s: %s" % (name, error.strerror)) from error


def _discard(directory: str) -> None:
    """Remove what a supervisor that died in its first moments has left."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def _end_strays(channel: Channel, at: Box, job: str, grace: float) -> None:
    """End what a job whose supervisor has died has left running."""
    end = time.monotonic() + grace
    left = state.strays(at, job)
    processes.ask_to_end(left)
    while left and time.monotonic() < end + supervisor.UNKILLABLE:
        if time.monotonic() >= end:
            processes.send(signal.SIGKILL, left)
        log_stream.listen(channel, at, 0.05)
        left = state.strays(at, job)
