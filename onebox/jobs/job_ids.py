"""Make the ids of jobs, which sort by age."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from onebox.store.paths import JOB

if TYPE_CHECKING:
    from onebox.context import BoxContext

# The number of different endings of an id.
ENDINGS = 1 << 16


def new(context: BoxContext) -> str:
    """
    Return an id for a new job, or for a new call of `map` on several boxes.

    It sorts after the ids of the project's earlier jobs, also after those that began in
    the same second, unless the clock was set back.
    """
    while True:
        second = time.strftime("%Y%m%d-%H%M%S-")
        endings = [
            int(path.name.removeprefix(second), 16)
            for folder in ("jobs", "sweeps")
            for path in (context.local_dir / folder).glob(f"{second}*")
            if JOB.fullmatch(path.name)
        ]
        least = max(endings, default=-1) + 1
        if least < ENDINGS:
            return f"{second}{least + secrets.randbelow(ENDINGS - least):04x}"
        time.sleep(0.1)
