"""Boxes behind two real ssh servers, and connections to them through a relay."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.providers.values import Box
from onebox.remote import connection
from tests.box_reaper import ends_with_us
from tests.fakes.relay import Relay
from tests.fakes.sshd import Embedded, OpenSsh, Server
from tests.providers.sshbox import Keys
from tests.remote.steps import OpenDoor, needs_sshd


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The user's key, the host key of every box, and the key of a stranger."""
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(
    scope="module", params=[pytest.param("sshd", marks=needs_sshd), "embedded"]
)
def long_lived_server(request: pytest.FixtureRequest, keys: Keys) -> Iterator[Server]:
    """A box behind OpenSSH's server, and then one behind the local provider's."""
    with tempfile.TemporaryDirectory(prefix="onebox-", dir="/var/tmp") as base:
        ends_with_us(Path(base))
        kind = {"sshd": OpenSsh, "embedded": Embedded}[request.param]
        made: Server = kind(Path(base), keys)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def server(long_lived_server: Server) -> Iterator[Server]:
    """The module's box, restored to its first state."""
    yield long_lived_server
    long_lived_server.refresh()


@pytest.fixture
def sshd(tmp_path: Path, keys: Keys) -> Iterator[OpenSsh]:
    """A box behind OpenSSH's server, for one test that may damage it."""
    made = OpenSsh(tmp_path / "box", keys)
    yield made
    made.close()


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    """A relay to the box, without faults at first."""
    with Relay(server.box.port) as line:
        yield line


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a short path, because the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="o", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def open_ssh(keys: Keys, tmp_path: Path) -> Iterator[OpenDoor]:
    """
    A function that opens an SSHConnection to a box; all are closed after the test.
    """
    made: list[connection.SSHConnection] = []

    def open_one(box: Box, *, key: str = "user") -> connection.SSHConnection:
        folder = tmp_path / f"ssh {len(made)} 100%d"
        made.append(connection.SSHConnection(box, folder, keys.directory / key))
        return made[-1]

    yield open_one
    for ssh in made:
        ssh.forget()


@pytest.fixture
def ssh(server: Server, relay: Relay, open_ssh: OpenDoor) -> connection.SSHConnection:
    """A connection to the box through the relay."""
    return open_ssh(server.at(relay.port))
