"""A script that runs on a box over ssh, without the agent."""

from __future__ import annotations

import pytest

from onebox.errors import ProtocolError
from onebox.remote import ssh_script
from onebox.remote.connection import SSHConnection
from onebox.remote.ssh_script import ScriptFailed, run_script

SHELL = "exec sh -s"


def run(ssh: SSHConnection, script: str, seconds: float = 60.0) -> str:
    """Run a script of the shell on the box."""
    return run_script(ssh, SHELL, script.encode(), seconds=seconds)


def test_output_and_a_long_script_pass_through_the_pipes(ssh: SSHConnection) -> None:
    """A script longer than a pipe is sent while its output is read."""
    script = "echo line\n" * 40_000

    assert "line\n" * 40_000 == run(ssh, script)


def test_exit_code_and_last_lines_of_the_errors_are_in_the_exception(
    ssh: SSHConnection,
) -> None:
    """They are escaped for a terminal; the rest of the script may stay unread."""
    with pytest.raises(ScriptFailed) as failed:
        run(ssh, "echo 'a\033b' >&2; exit 7\n" + "true\n" * 100_000)

    assert 7 == failed.value.exit
    assert ("a\\x1bb",) == failed.value.lines


@pytest.mark.parametrize("stream", [1, 2])
def test_output_without_an_end_is_discarded(
    ssh: SSHConnection, monkeypatch: pytest.MonkeyPatch, stream: int
) -> None:
    """A hostile box cannot fill the memory of this machine."""
    monkeypatch.setattr(ssh_script, "LONGEST_OUTPUT", 1 << 20)
    with pytest.raises(ProtocolError) as refused:
        run(ssh, f"exec cat /dev/zero >&{stream}")

    assert 76 == refused.value.code
    assert "sent more than 1 MiB as the output of a script" in refused.value.message


def test_script_that_does_not_end_in_time_is_given_up(ssh: SSHConnection) -> None:
    """The exit code is unknown, also if the script has closed its output."""
    for script in ("sleep 600", "exec >&- 2>&-; sleep 600"):
        with pytest.raises(ScriptFailed, match="no answer within 1 s") as failed:
            run(ssh, script, seconds=1.0)
        assert None is failed.value.exit
