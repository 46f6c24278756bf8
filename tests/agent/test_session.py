"""Commands beside the job, as the agent runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from onebox.agent.jobs import session
from onebox.remote.channel import AgentError
from tests.fakes.agent_box import AgentBox


def argv(box: AgentBox, name: str) -> list[str]:
    """Return the command line that runs the command of a session."""
    return [*box.command("session"), name]


def test_a_session_is_used_once(agent_box: AgentBox) -> None:
    """Its pipe is gone afterwards, so no environment is left for another process."""
    with agent_box.connect() as link:
        name = link.request("session", argv=["sh", "-c", "exit $N"], env={"N": "5"})
        used = [
            subprocess.run(argv(agent_box, name["session"]), check=False).returncode
            for _ in range(2)
        ]
    assert [5, 255] == used
    assert [] == list((agent_box.root / "jobs").iterdir())


def test_a_session_ends_with_the_client_that_asked_for_it(agent_box: AgentBox) -> None:
    """The environment was only in its agent's memory; a later session tidies up."""
    with agent_box.connect() as link:
        name = link.request("session", argv=["true"])["session"]
    pipe = agent_box.root / "jobs" / f"{session.PREFIX}{name}"
    done = subprocess.run(argv(agent_box, name), capture_output=True, check=False)
    assert (255, True) == (done.returncode, b"is gone" in done.stderr)

    os.mkfifo(pipe)
    long_ago = time.time() - 2 * session.UNUSED
    os.utime(pipe, (long_ago, long_ago))
    with agent_box.connect() as link:
        link.request("session", argv=["true"])
        assert not pipe.exists()


def test_a_large_environment_arrives_complete(agent_box: AgentBox) -> None:
    """It may be larger than a pipe usually is, but not without limit."""
    with agent_box.connect() as link:
        env = {f"N{n}": "x" * 100_000 for n in range(3)}
        name = link.request("session", shell="echo ${#N0} ${#N2}", env=env)["session"]
        done = subprocess.run(argv(agent_box, name), capture_output=True, check=True)
        with pytest.raises(AgentError, match="too long"):
            link.request("session", argv=["true"], env={"N": "x" * session.LONGEST})
    assert b"100000 100000\n" == done.stdout


@pytest.mark.parametrize("request_", [{}, {"argv": []}, {"argv": ["a"], "shell": "a"}])
def test_a_session_needs_one_command(
    agent_box: AgentBox, request_: dict[str, object]
) -> None:
    """The same rule as for a job."""
    with agent_box.connect() as link, pytest.raises(AgentError, match="argv or shell"):
        link.request("session", **request_)


def test_a_command_that_ignores_sigterm_is_killed(agent_box: AgentBox) -> None:
    """The client has gone, so nothing waits for the command."""
    with agent_box.connect() as link:
        shell = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
        name = link.request("session", shell=shell)["session"]
        with subprocess.Popen(
            argv(agent_box, name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            assert b"ready\n" == process.stdout.readline()
            process.stdout.close()
            assert 128 + signal.SIGKILL == process.wait(60)
