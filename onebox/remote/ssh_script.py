"""Run a script on a box over ssh, without the agent."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from onebox import subprocess_env
from onebox.agent.file_names import printable
from onebox.errors import BoxFailed
from onebox.remote.connection import SSHConnection

# Error messages quote at most this many characters of a line that the box printed.
LONGEST_LINE = 400


class ScriptFailed(BoxFailed):
    """
    A script on the box failed or did not end in time.

    *exit* is the script's exit code. It is None after a timeout, and 255 also if ssh
    itself failed. *lines* are the last lines of the script's error output, escaped for
    a terminal.
    """

    def __init__(self, message: str, exit: int | None, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.exit = exit
        self.lines = tuple(lines)


def run_script(
    ssh: SSHConnection,
    command: str,
    script: bytes,
    *,
    seconds: float,
    options: Sequence[str] = (),
) -> str:
    """
    Run a script on the box and return its output.

    Args:
        command: The command on the box, which reads the script from its stdin.

        options: Options for ssh.

    Raises:
        ScriptFailed: The exit code is not 0, or the script takes longer than *seconds*.
    """
    try:
        process = subprocess.run(
            [*ssh.argv(*options), command],
            input=script,
            capture_output=True,
            check=False,
            timeout=seconds,
            env=subprocess_env.environment(),
            # ssh runs in a session of its own, so that Ctrl-C does not reach it and
            # onebox handles the interrupt.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        text = f"no answer within {seconds:.0f} s"
        raise ScriptFailed(f"{ssh.box.id}: {text}", None, [text]) from error
    if process.returncode:
        lines = process.stderr.decode("utf-8", "replace").strip().splitlines()[-5:]
        raise ScriptFailed(
            f"{ssh.box.id}: a script failed with exit {process.returncode}",
            process.returncode,
            [printable(line[:LONGEST_LINE]) for line in lines],
        )
    return process.stdout.decode("utf-8", "replace")
