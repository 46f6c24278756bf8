"""Let a program that knows nothing of host keys reach a box over our connection."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from onebox import subprocess_env
from onebox.errors import ConnectionLost
from onebox.providers.base import Box
from onebox.remote.connection import SSHConnection

UP_SECONDS = 30.0


@contextmanager
def to(ssh: SSHConnection, box: Box) -> Iterator[tuple[str, int]]:
    """
    Give an address at which the box's own ssh server answers.

    What goes there goes through a connection of ours, which has verified the box's
    host key and knows the way, also through a jump host. A box on this machine is
    reached directly.

    Raises:
        ConnectionLost: The connection could not be opened.
    """
    if _is_here(box.host) and not box.jump:
        yield box.host, box.port
        return
    port = _free_port()
    process = subprocess.Popen(
        ssh.argv(
            *("-N", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"),
            *("-L", f"127.0.0.1:{port}:127.0.0.1:{box.port}"),
            # Said once the port is ours: another process may have been quicker.
            *("-o", "PermitLocalCommand=yes", "-o", "LocalCommand=echo open"),
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=subprocess_env.environment(),
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
    said, _, _ = select.select([process.stdout], [], [], UP_SECONDS)
    if not said or not os.read(process.stdout.fileno(), 100):
        raise ConnectionLost(f"no way to {box.id} could be opened for Packer")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
