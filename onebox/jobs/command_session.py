"""Run a command of the user's on the box, beside the job and with its environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any

from onebox import subprocess_env
from onebox.context import BoxContext
from onebox.errors import UsageError
from onebox.jobs import job_environment
from onebox.providers.values import Box
from onebox.remote import answers
from onebox.remote.channel import AgentChannel, AgentError
from onebox.signals import Interrupted

# ssh exits with this code if its connection breaks.
SSH_FAILED = 255


def call(
    context: BoxContext,
    box: Box,
    argv: Sequence[str] | None = None,
    shell_command: str | None = None,
) -> int:
    """
    Run a command in the job's folder, with the job's environment; return its exit code.

    The command has the standard input and output of this process. It has a terminal on
    the box if these are terminals. While it runs, the idle lease of the box is renewed.
    If this process is interrupted, the command is ended.

    Args:
        argv: The command as a list of words. If it is None, *shell_command* is used.

        shell_command: The command as a text for a shell.

    Raises:
        UsageError: A secret is missing here, or the box refuses the command.

        Lost: The box was removed or powered off while the command ran.
    """
    command = {"shell": shell_command} if argv is None else {"argv": list(argv)}
    env = job_environment.variables(context)
    secrets = job_environment.secret_values(context)

    def ask(channel: AgentChannel) -> dict[str, Any]:
        return channel.request("session", env=env, secrets=secrets, **command)

    try:
        session = answers.session_name(context.call_resuming(ask, box))
    except AgentError as error:
        raise UsageError(f"{context.title}: {error.message}") from error
    # The agent channel stays open: its thread renews the lease, and its agent keeps
    # the environment until the command has read it.
    options = ["-t"] if all(map(os.isatty, (0, 1, 2))) else []
    try:
        code = subprocess.call(
            context.ssh(box).session_argv(session, *options),
            env=subprocess_env.environment(),
        )
    except Interrupted as stop:
        # The connection of the command is closed now, so the box ends the command.
        return stop.code
    if code == SSH_FAILED:
        context.boxes.check_runs(box)
    # The code is negative if a signal has ended ssh.
    return code if code >= 0 else 128 - code
