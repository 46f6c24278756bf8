"""The output of a build: shown on the screen and kept in a file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from onebox import formatting
from onebox.errors import BoxFailed
from onebox.images import recipe
from onebox.store.atomic_files import open_file, private_dir, write_atomically

if TYPE_CHECKING:
    from onebox.context import BoxContext


class BuildLog:
    """
    A file with the output of a build, which is shown on the screen too.

    Attributes:
        name: The file's path relative to the project, for messages.
    """

    def __init__(self, context: BoxContext, path: Path) -> None:
        self.path = path
        self.name = formatting.path(os.path.relpath(path, context.root))
        self._screen = context.screen
        # A line is open if the last output did not end with a newline.
        self._open = False
        self._earlier: dict[str, float] = {}
        self._file: IO[bytes] = os.fdopen(
            open_file(path, os.O_WRONLY | os.O_TRUNC), "wb"
        )

    def add(self, data: bytes) -> None:
        """Write output to the screen and the file."""
        if data:
            self._file.write(data)
            self._file.flush()
            self._screen.setup_output(data)
            self._open = not data.endswith(b"\n")

    def footer(self, name: str, began: float) -> None:
        """
        Show below the output how long a step has taken, and took in the last build.

        Do nothing if the last output did not end with a newline.
        """
        if not self._open:
            duration = formatting.seconds(time.monotonic() - began)
            if name not in self._earlier:
                self._earlier[name] = self._took(name)
            earlier = self._earlier[name]
            text = f"   last build: {formatting.seconds(earlier)}" if earlier else ""
            self._screen.footer(f"  {name:<8} {duration}{text}")

    def note_seconds(self, name: str, seconds: float) -> None:
        """Record how long a step took, for the next build."""
        write_atomically(self._seconds_file(name), f"{seconds:.1f}\n".encode())

    def _took(self, name: str) -> float:
        """Return how many seconds a step took in the last build, 0 if unknown."""
        with suppress(OSError, ValueError):
            seconds = float(self._seconds_file(name).read_bytes()[:20])
            return seconds if 1 <= seconds < 1e6 else 0
        return 0

    def _seconds_file(self, name: str) -> Path:
        return self.path.with_name(f"{name}.seconds")

    def close_line(self) -> None:
        """Remove the footer, and end the line that the output left open."""
        self._screen.clear_footer()
        if self._open:
            self.add(b"\n")

    def failure_error(self, text: str) -> BoxFailed:
        """Return the error for a failed step: *text* and the path of the log file."""
        return BoxFailed(
            f"{text} (full output: {self.name})",
            next="fix it, then run the same command again; with --keep the builder "
            "stays for inspection",
            cause=text,
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_log(context: BoxContext, inputs: Mapping[str, str]) -> BuildLog:
    """Create the log of a build, in the project's .onebox folder."""
    folder = private_dir(context.local_dir / "images")
    return BuildLog(context, folder / f"{recipe.digest(inputs)}.log")
