"""Commands in a session, over both ssh servers."""

from __future__ import annotations

import signal
import subprocess

from tests.fakes.agent_box import until
from tests.fakes.sshd import Server
from tests.remote.steps import OpenDoor


def test_command_without_a_terminal_ends_with_its_client(
    server: Server, open_ssh: OpenDoor
) -> None:
    """No ssh server ends it by itself; the command has time to save its work."""
    door = open_ssh(server.box)
    saved = server.work / "saved"
    command = f"trap 'echo yes > {saved}; exit' TERM; echo on; sleep 86389 & wait"
    name = door.channel().request("session", command=command)["session"]
    words = [*door.argv(), door.agent_command(f"session {name}")]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as p:
        assert p.stdout is not None
        assert b"on\n" == p.stdout.readline()
        p.send_signal(signal.SIGINT)
    until(saved.exists)


def test_exit_code_of_a_killed_command_is_not_that_of_a_broken_connection(
    server: Server, open_ssh: OpenDoor
) -> None:
    """Of a signal, ssh would make 255."""
    door = open_ssh(server.box)
    name = door.channel().request("session", command="kill -9 $$")["session"]
    words = [*door.argv(), door.agent_command(f"session {name}")]

    assert (
        137 == subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    )
