"""Open a shell on the box, or run a command there, in the job's environment."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting, subprocess_env
from onebox.boxes import bring_up
from onebox.errors import ProtocolError
from onebox.jobs import job_environment, ports
from onebox.remote import answers
from onebox.remote.channel import AgentError

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.remote.connection import SSHConnection


def perform(
    context: BoxContext, argv: Sequence[str], forward: Sequence[str] = ()
) -> int:
    """
    Attach the terminal to a shell or a command on the box, and return its exit code.

    It runs in the job's folder, with the job's variables and virtual environment. While
    it runs, the idle lease of the box is renewed, so that the box does not power itself
    off.

    Args:
        forward: Ports to forward meanwhile, such as "8888" or "8080:80".
    """
    pairs = ports.of_flag(forward)
    box = bring_up.wait_until_reachable(context)
    ssh = context.ssh(box)
    options = ["-t"] if os.isatty(0) and os.isatty(1) else []
    # A single word is a line for the box's shell, as with ssh itself. Several words are
    # the parts of one command, so each is quoted for the shell.
    command = argv[0] if len(argv) == 1 else shlex.join(argv)
    try:
        words = [prepare(context, ssh, command)]
    except (AgentError, ProtocolError) as error:
        # A box whose agent or disk has a problem is still opened, to look at it.
        context.screen.warn(
            f"{error.message}: this session starts in the home folder, without the "
            "job's environment"
        )
        words = [command] if command else []
    with ports.forwarded(context, box, pairs):
        return subprocess.call(
            [*ssh.argv(*options), *words], env=subprocess_env.environment()
        )


def prepare(
    context: BoxContext,
    ssh: SSHConnection,
    command: str,
    *,
    env: dict[str, str] | None = None,
    guard: bool = False,
) -> str:
    """
    Return the command for the box that runs *command* as the job would run it.

    The variables, among them the values of `[run] secrets`, wait in the memory of the
    box. They are given to the first session that runs the returned command while the
    channel is open. The open channel also renews the lease.

    Args:
        command: A line for the login shell; "" stands for an interactive shell.

        env: More variables.

        guard: End the command when its input is closed; see `agent.jobs.session`.
    """
    run, environ = context.settings.run, context.environ
    missing = [name for name in run.secrets if name not in environ]
    if missing:
        context.screen.note(
            f"not in the environment here, so not on the box either: "
            f"{formatting.first_names(missing)}"
        )
    answer = ssh.channel().request(
        "session",
        env={**job_environment.variables(context), **(env or {})},
        secrets={name: environ[name] for name in run.secrets if name in environ},
        command=command,
        guard=guard,
    )
    return ssh.agent_command(f"session {answers.session_name(answer)}")
