"""Run a script on a box over ssh, without the agent."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from onebox import bounded_process
from onebox.agent.file_names import printable
from onebox.errors import BoxFailed, ProtocolError
from onebox.remote.commands import BEGINS
from onebox.remote.connection import SSHConnection

# Error messages quote at most this many characters of a line that the box printed.
LONGEST_LINE = 400
# A script may print at most this many bytes; the scripts of onebox print far less.
LONGEST_OUTPUT = 1 << 22


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

        ProtocolError: The box sends more than `LONGEST_OUTPUT` bytes.
    """
    try:
        code, output, errors = bounded_process.run(
            [*ssh.argv(*options), command],
            script,
            seconds=seconds,
            most=LONGEST_OUTPUT,
            env=ssh.environment(),
        )
    except subprocess.TimeoutExpired as error:
        text = f"no answer within {seconds:.0f} s"
        raise ScriptFailed(f"{ssh.box.id}: {text}", None, [text]) from error
    except OverflowError as error:
        raise ProtocolError(
            f"{ssh.box.id} sent more than {LONGEST_OUTPUT >> 20} MiB as the output of "
            "a script, which was discarded",
            next="inv ssh looks at the box; inv teardown --discard-outputs gives it up",
        ) from error
    if code:
        lines = errors.decode("utf-8", "replace").strip().splitlines()[-5:]
        raise ScriptFailed(
            f"{ssh.box.id}: a script failed with exit {code}",
            code,
            [printable(line[:LONGEST_LINE]) for line in lines],
        )
    text = output.decode("utf-8", "replace")
    return text.partition(BEGINS)[2] if ssh.box.user_ssh else text
