"""Run a command on the box beside the job, with the job's environment."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox.boxes import bring_up
from onebox.errors import UsageError
from onebox.jobs import job_environment
from onebox.remote.channel import AgentError
from onebox.signals import Interrupted
from onebox.stages import ssh

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(
    context: BoxContext, argv: Sequence[str], shell_command: str | None = None
) -> int:
    """
    Run a command in the job's folder, with the job's environment; return its exit code.

    The command has the standard input and output of this process, and a terminal on the
    box if these are terminals. While it runs, the idle lease of the box is renewed. If
    this process is interrupted, the command is ended.

    The box is not locked, so a job and other onebox commands may run meanwhile. The
    command is no job: it has no log and no receipt, and nothing is pushed or fetched.
    But while it runs, the box is not removed, and what it leaves in the outputs is
    fetched before that.

    Args:
        argv: The command as words. If there are none, *shell_command* is used.

        shell_command: The command as a text for a shell.

    Raises:
        UsageError: There is no command, a secret is missing here, there is no box that
            is up, or the box refuses the command.

        Lost: The box was removed or powered off while the command ran.
    """
    line = shlex.join(argv) or shell_command
    if not line:
        raise UsageError(
            "there is no command to run",
            next="inv exec -- COMMAND; inv ssh opens a shell",
        )
    job_environment.secret_values(context)
    box = bring_up.wait_until_reachable(context)
    ssh.note_login_node(context, box)
    with ssh.session(context, box, interactive=False) as check_not_removed:
        connection = context.ssh(box)
        try:
            words = ssh.prepare(context, connection, line)
        except AgentError as error:
            raise UsageError(f"{context.title}: {error.message}") from error
        options = ["-t"] if all(map(os.isatty, (0, 1, 2))) else []
        try:
            code = subprocess.call(
                [*connection.argv(*options), words], env=connection.environment()
            )
        except Interrupted as stop:
            # The connection of the command is closed now, so the box ends the command.
            return stop.code
    if ssh.was_cut_off(code):
        check_not_removed()
    if code == ssh.SSH_FAILED:
        context.boxes.check_runs(box)
        context.screen.say(
            f"onebox: exit {code}: the command's own code, or the connection to "
            f"{context.title} broke\n  next: inv status"
        )
    # The code is negative if a signal has ended ssh.
    return code if code >= 0 else 128 - code
