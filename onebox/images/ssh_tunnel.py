"""Forward a local port to a box's SSH server, for a program that checks no host key."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from onebox.errors import ConnectionLost
from onebox.providers.values import Box
from onebox.remote.connection import SSHConnection

OPEN_SECONDS = 30.0


@contextmanager
def forward(ssh: SSHConnection, box: Box) -> Iterator[tuple[str, int]]:
    """
    Yield a host and port at which the box's SSH server answers.

    The traffic goes through a connection of onebox, which has verified the box's host
    key and may lead through a jump host or a proxy. A box on this machine is reached
    directly.

    Raises:
        ConnectionLost: The connection could not be opened.
    """
    if _is_loopback(box.host) and not (box.jump or box.proxy):
        yield box.host, box.port
        return
    port = _free_port()
    process = subprocess.Popen(
        ssh.argv(
            *("-N", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"),
            *("-L", f"127.0.0.1:{port}:127.0.0.1:{box.port}"),
            # ssh prints "open" after it has bound the port. A connection to the port
            # would prove nothing: another process may have taken the port and answer.
            *("-o", "PermitLocalCommand=yes", "-o", "LocalCommand=echo open"),
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ssh.environment(),
        start_new_session=True,
    )
    try:
        _wait_until_open(process, box)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.communicate()


def _wait_until_open(process: subprocess.Popen[bytes], box: Box) -> None:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], OPEN_SECONDS)
    if not readable or not os.read(process.stdout.fileno(), 100):
        raise ConnectionLost(f"the SSH tunnel to {box.id} for Packer did not open")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
