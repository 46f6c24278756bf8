"""Read from a request which command to run, and with which environment variables."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List

from ..box import BoxConfig
from ..protocol import Refused
from . import exec

# A command inherits these variables from the agent's own environment.
INHERITED = re.compile(
    r"(HOME|USER|LOGNAME|LANG|PATH|TERM|SHELL|TMPDIR|ONEBOX_.*|LC_.*"
    r"|(?i:(https?|ftp|all|no)_proxy))",
    re.DOTALL,
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def commands(request: Dict[str, Any]) -> List[List[bytes]]:
    """
    Return the requested command; if there are several, the first that exists is meant.

    Raises `Refused` if the request has no command, or if the command is invalid.
    """
    shell, argv = request.get("shell"), request.get("argv")
    if isinstance(shell, str) and argv is None:
        found = [["bash", "-c", shell], ["sh", "-c", shell]]
    elif isinstance(argv, list) and argv and shell is None:
        found = [[str(word) for word in argv]]
    else:
        raise Refused("argument", "a job has either argv or shell")
    return [[_bytes(word) for word in words] for words in found]


def environment(
    box: BoxConfig, request: Dict[str, Any], **more: str
) -> Dict[bytes, bytes]:
    """
    Return the environment of the requested command: the box's, env, secrets, *more*.

    Raises `Refused` if the request is invalid.
    """
    variables = _base_environment(box)
    variables.update(_strings(request, "env"))
    variables.update(_strings(request, "secrets"))
    variables.update(more, ONEBOX_BOX=box.id)
    return {_bytes(name): _bytes(variables[name]) for name in variables}


def _base_environment(box: BoxConfig) -> Dict[str, str]:
    """
    Return the variables that every command gets.

    They are the variables that the system sets for logins, and those of the agent that
    match `INHERITED`. If ~/.venv exists, they are set so that the command uses it.
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
    return base


def _strings(request: Dict[str, Any], name: str) -> Dict[str, str]:
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


def _bytes(text: str) -> bytes:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Refused("argument", "the command or env is not text") from error
    if b"\0" in data:
        raise Refused("argument", "the command or env contains a NUL byte")
    return data
