"""Send requests to a cluster's login node, over one shared connection of ssh."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from onebox import agent_bundle, bounded_process, formatting
from onebox.agent.file_names import printable
from onebox.errors import (
    ConfigError,
    Gone,
    NotAllowed,
    OneboxError,
    ProviderError,
    SetupError,
    Throttled,
    Unclear,
)
from onebox.providers.kernel.user_ssh import LoginFailed, UserSSH, last_messages
from onebox.providers.slurm.settings import SlurmSettings

# A request may take this many seconds, for example to remove many files. Saving an
# image counts all its files.
TIMEOUT = 600.0
# Requests that only look may take this many seconds.
LOOK_TIMEOUT = 60.0
# The answer of the login node has at most this many bytes.
LONGEST = 16 << 20
# The codes with which our command on the login node ends.
NO_AGENT, NO_PYTHON, BAD_ROOT, INCOMPLETE = 90, 91, 92, 93

# How Python ends its message about an error of the system.
_SYSTEM_ERROR = re.compile(r"[A-Za-z]*Error: \[Errno [0-9]+\] ([^:]*)(: .*)?")
# A variable in the path of the root.
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")

# What ssh says if it has not sent our command to the login node.
_NOT_SENT = re.compile(
    r"ssh: (connect to host|Could not resolve hostname) "
    r"|(kex|ssh)_exchange_identification: "
    r"|Connection timed out during banner exchange"
    r"|Host key verification failed"
    r"|Unable to negotiate with "
    r"|Bad owner or permissions on "
    r"|.*: Permission denied \("
    r"|.*: Too many authentication failures"
    r"|.*: terminating, [0-9]+ bad configuration options"
)
# These requests change nothing that could be done or not.
_LOOKS = ("facts", "find", "get", "images", "leftovers")

# These commands contain no quotes, "!" or line breaks, because the user's login shell,
# which may be any shell, gets them inside quotes.
_SHELL = (
    'for p in "$1" python3 python3.14 python3.13 python3.12 python3.11 python3.10 '
    "python3.9 python3.8 /usr/bin/python3; do "
    'if "$p" -c "import sys; sys.exit(sys.version_info < (3, 8))" >/dev/null 2>&1; '
    'then shift; exec "$p" -I -S -c "$@"; fi; [ -z "$1" ] || break; done; '
    f"exit {NO_PYTHON}"
)
_ROOT = (
    "import os,sys,shutil; a=sys.argv; e=os.path; "
    "p=e.join(e.expanduser(e.expandvars(a[1])),a[2]); "
)
# A path with a variable that is not set, or with an unknown user, is not absolute.
_CHECK = f"e.isabs(p) and chr(36) not in p or sys.exit({BAD_ROOT}); "
# An agent of another size is incomplete: a crash of the filesystem can leave one.
_CALL = (
    f"{_ROOT}{_CHECK}e.isfile(p) and e.getsize(p)==int(a[6]) or sys.exit({NO_AGENT}); "
    "os.execv(sys.executable,[sys.executable,a[3],a[4],p,a[5]])"
)
# The input also ends if the connection breaks, before all of the agent has arrived.
_UPLOAD = (
    f"{_ROOT}{_CHECK}os.makedirs(e.dirname(p),448,True); t=p+a[3]; "
    "f=os.fdopen(os.open(t,os.O_WRONLY|os.O_CREAT,384),a[4]); "
    "shutil.copyfileobj(sys.stdin.buffer,f); f.flush(); os.fsync(f.fileno()); "
    f"f.close(); e.getsize(t)==int(a[5]) or os.unlink(t) or sys.exit({INCOMPLETE}); "
    "os.replace(t,p)"
)


class LoginNode:
    """
    The login node of a cluster.

    Args:
        settings: The table [slurm], whose *host* is set.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self.host = settings.host
        self._settings = settings
        self._ssh = UserSSH(settings.host, settings.ssh_config)

    def options(self) -> tuple[str, ...]:
        """Return the options of ssh for the shared connection, without questions."""
        return self._ssh.options()

    def log_in(self) -> None:
        """Open the shared connection; see `UserSSH.log_in`."""
        try:
            self._ssh.log_in()
        except LoginFailed as error:
            raise self._failure(str(error)) from error

    def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """
        Send a request to the agent on the login node, and return its result.

        The agent is sent first if it is not there.

        Raises:
            ProviderError: The request was refused.

            Unclear: The answer was lost, so the request may be done or not.
        """
        mark = secrets.token_hex(8)
        request = {
            "op": op,
            "mark": mark,
            "root": self._settings.root,
            **arguments,
        }
        data = json.dumps(request).encode("ascii")
        seconds = TIMEOUT if op in ("create", "delete", "save") else LOOK_TIMEOUT
        agent = agent_bundle.bundle()
        size = str(len(agent))
        for upload in (True, False):
            code, output, messages = self._run(
                _CALL, data, "-I", "-S", "login", size, seconds=seconds
            )
            if code != NO_AGENT:
                break
            if upload:
                code, output, messages = self._run(
                    _UPLOAD, agent, f".{mark}", "wb", size
                )
                if code in (255, INCOMPLETE):
                    # The request itself was not sent.
                    raise self._failure(messages)
                if code:
                    break
        return self._result(op, code, output, messages, mark)

    def _result(
        self, op: str, code: int, output: bytes, messages: str, mark: str
    ) -> dict[str, Any]:
        # What the login prints comes before the mark, and may not end with a newline.
        _, found, rest = output.rpartition(mark.encode())
        if found:
            with suppress(ValueError, RecursionError):
                answer = json.loads(rest.partition(b"\n")[0], parse_constant=_refuse)
                if isinstance(answer, dict):
                    return self._checked(answer)
        if code == 255:
            if not output and any(map(_NOT_SENT.match, messages.splitlines())):
                raise self._failure(messages)
            raise self._broken(op, messages)
        if code == NO_PYTHON:
            given = self._settings.python
            where = f"at {given}" if given else "in PATH"
            raise SetupError(
                f"{self.host} has no Python 3.8 or newer {where}",
                next='[slurm] python = "/path/to/python3", as `module show` tells it',
            )
        if code == BAD_ROOT:
            raise ConfigError(
                f"[slurm] root: {self._why_no_root()}",
                next="[slurm] root in onebox.toml",
            )
        last = (messages.splitlines() or [f"exit {code}"])[-1]
        failed = _SYSTEM_ERROR.match(last)
        if failed:
            raise ProviderError(
                f"[slurm] root: {self.host} cannot write to {self._settings.root}: "
                f"{failed[1]}{failed[2] or ''}",
                next="[slurm] root in onebox.toml; inv doctor",
            )
        raise Unclear(
            f"{self.host} gave no answer to {op}: {last}",
            next=f"ssh {self.host} true has to read and print nothing; inv doctor",
        )

    def _why_no_root(self) -> str:
        """Return why the root is no absolute path on the login node."""
        root = self._settings.root
        names = _VARIABLE.findall(root)
        if names:
            first = formatting.first_names([f"${name}" for name in names])
            return f"in {root}, {first} is not set to an absolute path on {self.host}"
        return f"{self.host} does not know the user in {root}"

    def _checked(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        result = answer.get("result")
        if isinstance(result, dict):
            return result
        kind, text = str(answer.get("refused")), str(answer.get("message"))
        message = f"{self.host}: {printable(text[:600])}"
        if kind == "owner":
            raise NotAllowed(
                message, next="inv status; inv cleanup lists what is yours"
            )
        if kind == "gone":
            raise Gone(message)
        if kind == "root":
            raise ConfigError(message, next='[slurm] root = "$HOME/.onebox", say')
        if kind == "home":
            raise ProviderError(
                message,
                next="a job must not replace its home: inv teardown removes the box",
            )
        if kind == "damaged":
            raise ProviderError(
                message,
                next=f"ssh {self.host}, and repair the file or remove its folder",
            )
        raise ProviderError(message, next="inv doctor")

    def _run(
        self, program: str, data: bytes, *words: str, seconds: float = TIMEOUT
    ) -> tuple[int, bytes, str]:
        """
        Run a Python program on the login node.

        Return its exit code, its output, and the messages of ssh and the login node.
        """
        agent = f"agents/{agent_bundle.version()}.pyz"
        arguments = [program, self._settings.root, agent, *words]
        quoted = map(shlex.quote, [self._settings.python or "", *arguments])
        command = f"exec sh -c '{_SHELL}' onebox {' '.join(quoted)}"
        argv = ["ssh", *self.options(), "--", self.host, command]
        try:
            code, output, errors = bounded_process.run(
                argv, data, seconds=seconds, most=LONGEST
            )
        except subprocess.TimeoutExpired as error:
            raise Unclear(
                f"{self.host} did not answer in {seconds:.0f} s",
                next=f"ssh {self.host} true",
            ) from error
        except OverflowError as error:
            text = (
                f"{self.host} sent more than {LONGEST >> 20} MiB, which was discarded"
            )
            raise ProviderError(text) from error
        except FileNotFoundError as error:
            raise SetupError(
                "there is no OpenSSH client on this machine (ssh is missing)",
                next="install it, for example: apt install openssh-client",
            ) from error
        return code, output, last_messages(errors)

    def _broken(self, op: str, messages: str) -> Unclear:
        """Return the error for a connection that broke, or an agent that died."""
        last = (messages.splitlines() or ["ssh gives no reason"])[-1]
        done = "" if op in _LOOKS else f": {op} may be done or not"
        return Unclear(
            f"the connection to {self.host} ended without an answer{done} ({last})",
            next=f"ssh {self.host} true, then the same command again",
        )

    def _failure(self, messages: str) -> OneboxError:
        """Return the error that tells why ssh could not reach the login node."""
        lines = messages.splitlines() or ["ssh failed without a message"]
        refused = [line for line in lines if "Permission denied" in line]
        if refused:
            return NotAllowed(
                f"{self.host} does not let you in without a question: {refused[-1]}",
                next="the same command in a terminal, where ssh can ask",
            )
        if "Could not resolve hostname" in lines[-1]:
            return ConfigError(
                f"{self.host} cannot be reached: {lines[-1]}",
                next="[slurm] host in onebox.toml, as your own ssh knows it",
            )
        return Throttled(
            f"{self.host} cannot be reached: {lines[-1]}", next=f"ssh {self.host} true"
        )


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")
