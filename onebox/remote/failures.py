"""
Explain why a box did not answer, from what ssh and the proxy of the box have printed.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import IO

from onebox.agent.file_names import printable
from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    HostKeyMismatch,
    Lost,
    OneboxError,
    ProtocolError,
    SetupError,
)
from onebox.providers.values import Box, Proxy

# Of the messages of ssh, only the last part of this many bytes is read.
MESSAGE_BYTES = 1 << 14
# ssh itself prints these lines if its proxy ends; the proxy's own lines say why.
_OF_SSH = re.compile(
    r"(kex_exchange_identification|ssh_exchange_identification|banner exchange): "
    r"|Connection (closed|reset) by |Connection to .* closed"
)
_ERROR = re.compile(r"\berror\b|not found", re.IGNORECASE)


class KeyRefused(ConnectionLost):
    """The box has the expected host key, but refuses our ssh key."""


class NoAgent(BoxFailed):
    """The box accepts the connection, but its agent does not run."""


class ProxyRefused(ConnectionLost):
    """The program that leads to the box reports an error that waiting does not end."""


def check_proxy(box: Box) -> None:
    """Raise SetupError if the program that leads to the box is not installed."""
    proxy = box.proxy
    if proxy is not None and shutil.which(proxy.program) is None:
        raise SetupError(
            f"{box.id} is reached by {proxy.program}, which is not on this machine",
            next=proxy.install,
        )


def explain(
    box: Box, code: int | None, messages: str, error: ConnectionLost
) -> OneboxError:
    """
    Return the error that tells why a box did not answer.

    *code* is ssh's exit code, None if ssh still runs. *messages* are the messages of
    ssh and the box. *error* is the error of the channel.
    """
    lines = messages.splitlines()
    if code == 255 and "Host key verification failed" in messages:
        return HostKeyMismatch(
            f"another machine answers for {box.id} at {box.host}: its host key is "
            "not the one this box was created with; nothing was sent to it",
            next="inv status; inv teardown --discard-outputs gives the box up",
        )
    if code == 255 and f"{box.user}@{box.host}: Permission denied" in messages:
        return KeyRefused(lines[-1], next="inv status")
    # ssh itself fails with 255. Any other code comes from the command on the box, so
    # the connection works.
    if code is not None and 0 < code < 255:
        return no_agent(box, lines[-1] if lines else f"exit {code}")
    if box.proxy is not None:
        return _by_proxy(box.proxy, lines, error)
    why = lines[-1] if lines and code is not None else error.message
    return ConnectionLost(why, next="inv status")


def _by_proxy(proxy: Proxy, lines: list[str], error: ConnectionLost) -> ConnectionLost:
    """Return the error for a box whose proxy did not lead to it."""
    own = [line for line in lines if line.strip() and not _OF_SSH.match(line)]
    # A program may print warnings before its error, and advice after it.
    errors = [line for line in own if _ERROR.search(line)]
    why = (errors or own[-1:] or [error.message])[0]
    refused = proxy.refusals and re.search(proxy.refusals, why, re.IGNORECASE)
    error_type = ProxyRefused if refused else ConnectionLost
    return error_type(f"{proxy.program}: {why.strip()}", next="inv doctor")


def no_agent(box: Box, why: str) -> NoAgent:
    """Return the error for a box whose agent does not run."""
    return NoAgent(
        f"{box.id} answers, but its agent does not run: {why}",
        next="inv teardown --discard-outputs, then inv provision",
    )


def not_ready(box: Box, error: OneboxError) -> BoxFailed:
    """Return the error for a box that is up, but could not be used in time."""
    if isinstance(error, NoAgent):
        return error
    if isinstance(error, ProxyRefused):
        text = f"{box.id} cannot be reached: {error.message}"
        return BoxFailed(text, next=error.next)
    if isinstance(error, ProtocolError):
        return BoxFailed(f"{box.id}: {error.message}", next=error.next)
    return BoxFailed(f"{box.id} does not accept our ssh key")


def lost_job(box: Box, job_id: str, error: ConnectionLost) -> Lost:
    """Return the error for a box that refuses us while its job may run."""
    by_proxy = isinstance(error, ProxyRefused)
    how = "can no longer be reached" if by_proxy else "no longer accepts our key"
    check = error.next if by_proxy else "check its authorized_keys"
    return Lost(
        f"{box.id} {how}: {error.message}; job {job_id} may still be running on it",
        next=f"{check}; inv logs tries again; inv teardown --discard-outputs removes "
        "the box",
    )


def read_end(file: IO[bytes]) -> str:
    """
    Return the last part of the messages in *file*, escaped for a terminal.

    The messages are those of ssh and the box.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - MESSAGE_BYTES, 0))
    text = file.read().decode("utf-8", "replace").strip()
    return "\n".join(printable(line[:400]) for line in text.splitlines())
