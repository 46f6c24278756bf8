"""Check the request for a job, and make a plan of it."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Dict, List

from ..box import BoxConfig, cpus
from ..protocol import Refused
from ..units import plan as unit_plan
from ..units import threads
from . import exec, job_state

# A job inherits these variables from the agent's own environment.
INHERITED = re.compile(
    r"(HOME|USER|LOGNAME|LANG|PATH|TERM|SHELL|TMPDIR|ONEBOX_.*|LC_.*"
    r"|(?i:(https?|ftp|all|no)_proxy))",
    re.DOTALL,
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def plan(box: BoxConfig, job: str, request: Dict[str, Any]) -> exec.JobPlan:
    """
    Return the plan of the job that is requested.

    Raises `Refused` if the request is invalid.
    """
    env = strings(request, "env")
    secrets = strings(request, "secrets")
    grace = request.get("cancel_grace", job_state.GRACE)
    max_log = request.get("max_log", 0)
    notify = request.get("notify", "")
    if not isinstance(grace, (int, float)) or grace < 0:
        raise Refused("argument", "cancel_grace cannot be %r" % grace)
    if not isinstance(max_log, int) or max_log < 0:
        raise Refused("argument", "max_log cannot be %r" % max_log)
    if not isinstance(notify, str):
        # The message must not contain the URL: it may hold a secret.
        raise Refused("argument", "notify is not a URL")
    count = int(box.scheduler.get("cpus", 0)) or cpus()
    commands, defaults = _commands(request), threads.job_variables(count)
    units = b""
    if not commands:
        # The pool sets these variables for each unit.
        commands, defaults = [_pool(box, job)], {}
        # The request may be large, and every process forked from here has a copy.
        units = unit_plan.encode(request.pop("units"))
    spec = {
        "job": job,
        "argv": request.get("argv"),
        "shell": request.get("shell"),
        "env": env,
        "secrets": sorted(secrets),
        "outputs": request.get("outputs", []),
        "roots": _texts(request, "roots"),
        "cancel_grace": grace,
        "max_log": max_log,
        "packages": _texts(request, "packages"),
    }
    # On a node of a Ray cluster, the variables are those of the node.
    base = {} if box.engine == "ray" else base_environment(box)
    environment = {**defaults, **base, **env}
    environment.update(secrets, ONEBOX_JOB=job, ONEBOX_BOX=box.id)
    return exec.JobPlan(
        job=job,
        commands=[[_bytes(word) for word in words] for words in commands],
        environment={_bytes(key): _bytes(environment[key]) for key in environment},
        grace=float(grace),
        max_log=max_log,
        spec=spec,
        notify=notify,
        units=units,
    )


def _commands(request: Dict[str, Any]) -> List[List[str]]:
    """
    Return the commands of which the first that exists is the job; [] if it has units.

    Raises `Refused` if the request has not exactly one of shell, argv and units.
    """
    shell, argv = request.get("shell"), request.get("argv")
    units = request.get("units")
    if isinstance(shell, str) and argv is None and units is None:
        return [["bash", "-c", shell], ["sh", "-c", shell]]
    if isinstance(argv, list) and argv and shell is None and units is None:
        return [[str(word) for word in argv]]
    if units is None or argv is not None or shell is not None:
        raise Refused("argument", "a job has either argv, shell or units")
    return []


def _pool(box: BoxConfig, job: str) -> List[str]:
    """Return the command that runs the units of a job."""
    agent = os.path.abspath(sys.argv[0])
    python = sys.executable or "python3"
    return [python, "-I", "-S", agent, "pool", box.path("jobs", job)]


def own_environment() -> Dict[bytes, bytes]:
    """Return the variables of this process."""
    return dict(os.environb)


def base_environment(box: BoxConfig) -> Dict[str, str]:
    """
    Return the variables that every job gets.

    They are the variables that the system sets for logins, and those of the agent that
    match `INHERITED`. If ~/.venv exists, they are set so that the job uses it.
    """
    base = exec.system_environment()
    base.update(
        (name, os.environ[name]) for name in os.environ if INHERITED.fullmatch(name)
    )
    base.setdefault("HOME", box.home)
    base.setdefault("PATH", PATH)
    venv = os.path.join(base["HOME"], ".venv")
    if os.path.isdir(os.path.join(venv, "bin")):
        base["VIRTUAL_ENV"] = venv
        base["PATH"] = os.path.join(venv, "bin") + ":" + base["PATH"]
    if os.path.isfile(os.path.join(venv, "pyvenv.cfg")):
        # `uv run` then uses this environment, instead of a new one in the project.
        base["UV_PROJECT_ENVIRONMENT"] = venv
    return base


def strings(request: Dict[str, Any], name: str) -> Dict[str, str]:
    """
    Return the environment variables in the part *name* of the request.

    Raises `Refused` if they are invalid.
    """
    values = request.get(name, {})
    if not isinstance(values, dict):
        raise Refused("argument", "%s is not a table" % name)
    for key, value in values.items():
        # The message must not contain the value: it may be a secret.
        if not key or "=" in key or not isinstance(value, str):
            raise Refused("argument", "%s: %r cannot be set" % (name, key))
    return values


def _texts(request: Dict[str, Any], name: str) -> List[str]:
    """
    Return the list *name* of the request.

    `roots` are the paths of all outputs. `packages` are Python packages, as pip takes
    them, that an engine installs for the job. Raises `Refused` if it is invalid.
    """
    found = request.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Refused("argument", "%s is not a list of texts" % name)
    return found


def _bytes(text: str) -> bytes:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Refused("argument", "the command or env is not text") from error
    if b"\0" in data:
        raise Refused("argument", "the command or env contains a NUL byte")
    return data
