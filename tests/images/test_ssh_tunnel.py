"""A program that compares no host keys reaches a box over a connection that does."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.errors import ConnectionLost
from onebox.images import ssh_tunnel
from onebox.remote.connection import SSHConnection
from tests.fakes.sshd import SSHD, OpenSsh
from tests.providers.sshbox import Keys


@pytest.fixture
def door(tmp_path: Path) -> Iterator[SSHConnection]:
    """A way to a box behind OpenSSH's server, as if it were another machine's."""
    if not os.access(SSHD, os.X_OK):
        pytest.skip(f"there is no {SSHD}")
    (tmp_path / "keys").mkdir()
    keys = Keys.make(tmp_path / "keys")
    server = OpenSsh(tmp_path / "box", keys)
    box = dataclasses.replace(server.box, host="localhost")
    made = SSHConnection(box, tmp_path / "door", keys.directory / "user")
    yield made
    made.forget()
    server.close()


def greeting(host: str, port: int) -> bytes:
    """Return the first words of an ssh server."""
    with socket.create_connection((host, port), 20) as connection:
        return connection.recv(7)


def test_through_our_own_connection(door: SSHConnection) -> None:
    """
    The box's ssh server answers at a port of this machine, until it is done.
    """
    with ssh_tunnel.forward(door, door.box) as (host, port):
        assert ("127.0.0.1", b"SSH-2.0") == (host, greeting(host, port))
        assert door.box.port != port
    with pytest.raises(OSError):
        greeting(host, port)


def test_another_machine(door: SSHConnection, tmp_path: Path) -> None:
    """
    A machine with another host key gets nothing of what Packer sends.
    """
    stranger = (tmp_path / "keys" / "stranger.pub").read_text()
    door.expect(dataclasses.replace(door.box, host_key=stranger))
    with pytest.raises(ConnectionLost):
        with ssh_tunnel.forward(door, door.box):
            pytest.fail("it was let through")


def test_another_process_is_quicker(
    door: SSHConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A port that somebody else has taken meanwhile is no way to the box.
    """
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        monkeypatch.setattr(ssh_tunnel, "_free_port", lambda: somebody.getsockname()[1])
        with pytest.raises(ConnectionLost):
            with ssh_tunnel.forward(door, door.box):
                pytest.fail("somebody else was taken for the box")


def test_a_box_on_this_machine(door: SSHConnection) -> None:
    """
    What is here is reached directly.
    """
    box = dataclasses.replace(door.box, host="127.0.0.1")
    with ssh_tunnel.forward(door, box) as way:
        assert ("127.0.0.1", box.port) == way
