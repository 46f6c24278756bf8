"""Packer, which checks no host key, reaches a box through a connection that does."""

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
def ssh(tmp_path: Path) -> Iterator[SSHConnection]:
    """A connection to a box behind OpenSSH's server, as if on another machine."""
    if not os.access(SSHD, os.X_OK):
        pytest.skip(f"{SSHD} is missing")
    (tmp_path / "keys").mkdir()
    keys = Keys.make(tmp_path / "keys")
    server = OpenSsh(tmp_path / "box", keys)
    box = dataclasses.replace(server.box, host="localhost")
    made = SSHConnection(box, tmp_path / "door", keys.directory / "user")
    yield made
    made.forget()
    server.close()


def read_greeting(host: str, port: int) -> bytes:
    """Return the first words of an ssh server."""
    with socket.create_connection((host, port), 20) as connection:
        return connection.recv(7)


def test_tunnel_leads_to_the_boxs_ssh_server_until_it_is_closed(
    ssh: SSHConnection,
) -> None:
    """The box's ssh server answers on a local port."""
    with ssh_tunnel.forward(ssh, ssh.box) as (host, port):
        assert ("127.0.0.1", b"SSH-2.0") == (host, read_greeting(host, port))
        assert ssh.box.port != port
    with pytest.raises(OSError):
        read_greeting(host, port)


def test_tunnel_to_a_machine_with_another_host_key_is_refused(
    ssh: SSHConnection, tmp_path: Path
) -> None:
    """A machine with another host key receives nothing from Packer."""
    stranger = (tmp_path / "keys" / "stranger.pub").read_text()
    ssh.expect(dataclasses.replace(ssh.box, host_key=stranger))
    with pytest.raises(ConnectionLost):
        with ssh_tunnel.forward(ssh, ssh.box):
            pytest.fail("it was let through")


def test_port_taken_by_another_process_is_not_used(
    ssh: SSHConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process has taken the port meanwhile, an error is raised."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        monkeypatch.setattr(ssh_tunnel, "_free_port", lambda: somebody.getsockname()[1])
        with pytest.raises(ConnectionLost):
            with ssh_tunnel.forward(ssh, ssh.box):
                pytest.fail("somebody else was taken for the box")


def test_local_box_needs_no_tunnel(ssh: SSHConnection) -> None:
    """A box on this machine is reached directly."""
    box = dataclasses.replace(ssh.box, host="127.0.0.1")
    with ssh_tunnel.forward(ssh, box) as way:
        assert ("127.0.0.1", box.port) == way
