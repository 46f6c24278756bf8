"""Run a command on the box beside the job, with the job's environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox.boxes import bring_up
from onebox.errors import UsageError
from onebox.jobs import command_session

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(
    context: BoxContext, argv: Sequence[str] | None, shell_command: str | None = None
) -> int:
    """
    Run a command on the box that is up, and return its exit code.

    The box is not locked, so a job and other onebox commands may run meanwhile. The
    command is no job: it has no log and no receipt, and nothing is pushed or fetched.

    Raises:
        UsageError: There is no command, or there is no box that is up.
    """
    if argv is None and not shell_command:
        raise UsageError(
            "there is no command to run",
            next="inv exec -- COMMAND; inv ssh opens a shell",
        )
    box = bring_up.wait_until_reachable(context)
    return command_session.call(context, box, argv, shell_command)
