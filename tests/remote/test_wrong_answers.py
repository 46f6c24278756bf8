"""A box that does not answer as an agent is named at once."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    ProtocolError,
)
from onebox.remote import connection
from onebox.remote.channel import AgentChannel
from tests.fakes.sshd import OpenSsh, Server
from tests.providers.sshbox import Keys
from tests.remote.steps import OpenDoor, needs_sshd, never


@pytest.mark.parametrize(
    "output",
    [
        b"Welcome to Ubuntu 24.04 LTS\n",
        b"A\0\0\0\5hello",
        b"A\0\0\0\2[]",
        b"Y\0\0\0\0",
        b"\0" * 5,
        b"\xff" * 9000,
    ],
)
def test_answer_without_frames_is_refused_at_once(
    output: bytes, keys: Keys, tmp_path: Path
) -> None:
    """A program that sends no frames is named at once, without a traceback."""
    code = f"import sys, time; sys.stdout.buffer.write({output!r}); "
    code += "sys.stdout.flush(); time.sleep(60)"
    with AgentChannel([sys.executable, "-c", code]) as link:
        with pytest.raises(ProtocolError, match="not the onebox agent"):
            link.request("hello")
        link.process.kill()


def test_shell_that_prints_a_greeting_is_named(
    ssh: connection.SSHConnection, server: Server
) -> None:
    """The error for a shell that prints a greeting says that it is not the agent."""
    server.pyz.write_text("print('Welcome to \\x1b[31mUbuntu')")
    with pytest.raises(ProtocolError, match=r"not the onebox agent .*Welcome to \\x1b"):
        ssh.channel()
    with pytest.raises(BoxFailed, match=r"not the onebox agent .*Welcome to \\x1b"):
        ssh.open_when_up(600, never, never, grace=0.1)


def test_incomplete_frame_ends_the_wait(
    ssh: connection.SSHConnection, server: Server
) -> None:
    """An agent that stops in the middle of a frame is not waited for forever."""
    server.pyz.write_text(
        "import sys, time\nsys.stdout.write('A\\0')\nsys.stdout.flush()\ntime.sleep(60)"
    )
    with pytest.raises(ConnectionLost, match="does not answer"):
        ssh.channel(within=1.5)


def test_missing_agent_is_reported_after_the_grace_time_of_a_boot(
    ssh: connection.SSHConnection, server: Server
) -> None:
    """A missing agent is reported at once, during a boot only after the grace time."""
    agent = server.pyz.rename(server.pyz.with_name("away"))
    breaks: list[int] = []
    with pytest.raises(BoxFailed, match="agent does not run") as caught:
        ssh.call_resuming(lambda link: None, lambda e, n: breaks.append(n))
    assert "agent.pyz" in caught.value.message
    assert breaks == []
    with pytest.raises(BoxFailed, match="agent does not run"):
        ssh.open_when_up(60, never, never, grace=0.1)
    link = ssh.open_when_up(60, never, lambda: put_back(agent, server.pyz))
    assert link.request("hello")["box"] == server.box.id


def test_agent_without_box_json_counts_as_missing(
    ssh: connection.SSHConnection, server: Server
) -> None:
    """An agent without its box.json counts as missing."""
    (server.root / "box.json").rename(server.root / "away")
    with pytest.raises(BoxFailed, match=r"agent does not run.*box\.json"):
        ssh.channel()


@needs_sshd
def test_box_without_python_is_named(sshd: OpenSsh, open_ssh: OpenDoor) -> None:
    """The error for a box without python3 names python3."""
    (sshd.bin / "python3").unlink()
    with pytest.raises(BoxFailed, match="python3: not found"):
        open_ssh(sshd.box).channel()


def test_messages_of_the_box_are_escaped_and_bounded(
    ssh: connection.SSHConnection, server: Server
) -> None:
    """Control characters and long output on stderr reach neither screen nor disk."""
    server.pyz.write_text(
        "import sys\nsys.stderr.write('x' * 3000000 + '\\n\\x1b[2Jfatal')\nsys.exit(3)"
    )
    with pytest.raises(BoxFailed) as caught:
        ssh.channel()
    assert caught.value.message.endswith("run: \\x1b[2Jfatal")
    assert {path.name for path in ssh.directory.iterdir()} == {
        "config",
        "known_hosts",
    }


def put_back(file: Path, to: Path) -> None:
    """Rename a file if it still exists."""
    with contextlib.suppress(FileNotFoundError):
        file.rename(to)
