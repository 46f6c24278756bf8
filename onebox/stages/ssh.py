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
    Give the terminal to a shell, or a command, on the box; return its exit code.

    The lease is renewed meanwhile: somebody is attached.
    """
    box = bring_up.ready(context)
    ssh = context.ssh(box)
    # As long as this conversation is open, its own thread renews the lease.
    ssh.channel()
    options = ["-t"] if os.isatty(0) and os.isatty(1) else []
    # One word is a line for the box's shell, as with ssh itself; several are
    # the words of one command.
    words_of_it = [argv[0] if len(argv) == 1 else shlex.join(argv)] if argv else []
    return subprocess.call(
        [*ssh.argv(*options), *words_of_it], env=subprocess_env.environment()
    )
