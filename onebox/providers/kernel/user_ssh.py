"""Reach a machine over the user's own ssh, with one connection that is kept open."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from onebox import subprocess_env
from onebox.agent.file_names import printable
from onebox.store.ssh_sockets import socket_dir

# The shared connection stays open this long after its last use, so that a login with
# two factors is asked for once a day at work, and not once a command.
PERSIST = "8h"
# A login may wait this many seconds for the user to type.
LOGIN_TIMEOUT = 300.0
# Requests that only look may take this many seconds.
LOOK_TIMEOUT = 60.0
# What `ssh -G` says of the machine that is reached (ssh_config(5)).
_ADDRESS = ("hostname", "port", "user", "proxyjump", "proxycommand")


class LoginFailed(Exception):
    """The login has failed; the text has the last messages of ssh."""


class UserSSH:
    """
    The user's own ssh to a machine, with its keys, questions and jumps.

    Args:
        host: The machine, as the user's ssh knows it; it may begin with USER@.

        config: A configuration file of ssh, instead of the user's own.
    """

    def __init__(self, host: str, config: str | None) -> None:
        self.host = host
        self._config = config

    def options(self) -> tuple[str, ...]:
        """Return the options of ssh for the shared connection, without questions."""
        return (*self._options(), "-o", "BatchMode=yes")

    def log_in(self) -> None:
        """
        Open the shared connection, and let ssh ask in the terminal.

        Without a terminal, or if the connection is open, nothing is done.

        Raises:
            LoginFailed: ssh does not get in.
        """
        if not _has_terminal() or self._is_open():
            return
        # -f puts ssh into the background after the login, in a session of its own.
        words = ["ssh", *self._options(), "-f", "-N", "--", self.host]
        with (
            tempfile.TemporaryFile() as messages,
            suppress(subprocess.TimeoutExpired, FileNotFoundError),
        ):
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                timeout=LOGIN_TIMEOUT,
                check=False,
                env=subprocess_env.environment(),
            )
            if done.returncode:
                messages.seek(0)
                raise LoginFailed(last_messages(messages.read()))

    @property
    def _file(self) -> tuple[str, ...]:
        config = self._config
        return ("-F", str(Path(config).expanduser())) if config else ()

    def _options(self) -> tuple[str, ...]:
        reached = f"{self.host}\0{self._config}\0{self._address}"
        digest = hashlib.sha256(reached.encode()).hexdigest()[:16]
        socket = socket_dir(subprocess_env.environment()) / f"login-{digest}"
        pairs = {
            "ControlMaster": "auto",
            "ControlPath": str(socket).replace("%", "%%"),
            "ControlPersist": PERSIST,
            # With these two options, ssh detects a dead connection after a minute.
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
            "LogLevel": "ERROR",
            # The user's configuration may say otherwise for interactive logins.
            "RemoteCommand": "none",
            "RequestTTY": "no",
            "ForwardX11": "no",
        }
        found = [word for pair in pairs.items() for word in ("-o", "=".join(pair))]
        return (*self._file, *found)

    @functools.cached_property
    def _address(self) -> str:
        """
        Return which machine ssh connects to, and how, "" if ssh does not tell.

        The user may change their configuration while a connection is kept open.
        """
        try:
            done = subprocess.run(
                ["ssh", *self._file, "-G", "--", self.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LOOK_TIMEOUT,
                check=False,
                env=subprocess_env.environment(),
            )
        except (subprocess.TimeoutExpired, FileNotFoundError):
            return ""
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        return "\n".join(line for line in lines if line.partition(" ")[0] in _ADDRESS)

    def _is_open(self) -> bool:
        with suppress(subprocess.TimeoutExpired, FileNotFoundError):
            done = subprocess.run(
                ["ssh", *self.options(), "-O", "check", "--", self.host],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=10,
                check=False,
                env=subprocess_env.environment(),
            )
            return done.returncode == 0
        return False


def last_messages(messages: bytes) -> str:
    """Return the last messages of ssh, escaped for a terminal."""
    text = messages[-(1 << 14) :].decode("utf-8", "replace").strip()
    return "\n".join(printable(line[:400]) for line in text.splitlines())


def _has_terminal() -> bool:
    """Return whether ssh can ask the user: it uses the controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True
