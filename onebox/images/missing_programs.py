"""Find in the output of a set-up script which programs bash has not found."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting

if TYPE_CHECKING:
    from onebox.context import BoxContext


def warn(context: BoxContext, log: Path, script: str) -> None:
    """
    Warn about such lines of a script that has ended with exit code 0.

    Args:
        log: The file with the output of `bash ./SCRIPT`.

        script: The path of the script, relative to the project.
    """
    prefix = re.escape(os.fsencode(f"./{script}"))
    missing = re.compile(rb"%s: line \d+: .{1,200}: command not found" % prefix)
    with log.open("rb") as lines:
        found = [line.strip()[2:] for line in lines if missing.fullmatch(line.strip())]
    if found:
        problems = formatting.first_names([formatting.path(line) for line in found])
        context.screen.warn(
            f"{problems}; the script went on, and the image is built without it "
            "(`set -e` at its top makes that an error)"
        )
