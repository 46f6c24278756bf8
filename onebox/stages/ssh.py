"""Open a shell on the box, or run a command there."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import subprocess_env
from onebox.boxes import bring_up

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext, argv: Sequence[str]) -> int:
    """
    Attach the terminal to a shell or a command on the box, and return its exit code.

    While it runs, the idle lease of the box is renewed, so that the box does not power
    itself off.
    """
    box = bring_up.wait_until_reachable(context)
    ssh = context.ssh(box)
    # While the agent channel is open, its thread renews the lease.
    ssh.channel()
    options = ["-t"] if os.isatty(0) and os.isatty(1) else []
    # A single word is a line for the box's shell, as with ssh itself. Several words are
    # the parts of one command, so each is quoted for the shell.
    command = [argv[0] if len(argv) == 1 else shlex.join(argv)] if argv else []
    return subprocess.call(
        [*ssh.argv(*options), *command], env=subprocess_env.environment()
    )
