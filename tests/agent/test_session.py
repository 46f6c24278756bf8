"""Commands beside the job, as the agent runs them."""

from __future__ import annotations

import signal
import subprocess

from tests.fakes.agent_box import AgentBox


def argv(box: AgentBox, name: str) -> list[str]:
    """Return the command line that runs the command of a session."""
    return [*box.command("session"), name]


def test_a_session_is_used_once(agent_box: AgentBox) -> None:
    """Its pipe is gone afterwards, so no environment is left for another process."""
    with agent_box.connect() as link:
        name = link.request("session", command="exit $N", env={"N": "5"})["session"]
        used = [
            subprocess.run(argv(agent_box, name), check=False).returncode
            for _ in range(2)
        ]
    assert [5, 1] == used
    assert [] == list((agent_box.root / "files").iterdir())


def test_a_session_ends_with_the_client_that_asked_for_it(agent_box: AgentBox) -> None:
    """The environment was only in the memory of its agent."""
    with agent_box.connect() as link:
        name = link.request("session", command="true")["session"]
    done = subprocess.run(argv(agent_box, name), capture_output=True, check=False)

    assert (1, True) == (done.returncode, b"has ended" in done.stderr)


def test_a_command_ends_when_its_client_has_gone(agent_box: AgentBox) -> None:
    """It has GRACE seconds after SIGTERM to save its work."""
    with agent_box.connect() as link:
        saved = agent_box.work / "saved"
        command = f"trap 'echo yes > {saved}; exit 3' TERM; echo on; sleep 86390 & wait"
        name = link.request("session", command=command)["session"]
        with subprocess.Popen(
            argv(agent_box, name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            assert b"on\n" == process.stdout.readline()
            process.stdout.close()
            assert 3 == process.wait(60)
    assert "yes\n" == saved.read_text()


def test_a_command_that_ignores_sigterm_is_killed(agent_box: AgentBox) -> None:
    """The client has gone, so nothing waits for the command."""
    with agent_box.connect() as link:
        command = "trap '' TERM; echo on; while :; do sleep 0.1; done"
        name = link.request("session", command=command)["session"]
        with subprocess.Popen(
            argv(agent_box, name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            assert b"on\n" == process.stdout.readline()
            process.stdout.close()
            assert 128 + signal.SIGKILL == process.wait(60)
