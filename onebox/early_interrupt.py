"""
End a command line with 130 at a Ctrl-C that comes before its first stage.

Python would print a traceback while modules are imported, and Invoke would exit with 1.
Nothing has been started yet, so the process can end at once.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def begin() -> None:
    """End this process at a Ctrl-C if it runs `onebox` or `inv`."""
    if _is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        try:
            signal.signal(signal.SIGINT, _exit)
        except ValueError:
            # Only the main thread can set a handler.
            return


def end() -> None:
    """Restore Python's own handler, before code of a stage or of the user runs."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_program() -> bool:
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":
        # Python imports the package before it runs its __main__.py.
        return "onebox" in getattr(sys, "orig_argv", ())
    folder, name = os.path.split(program)
    if name == "__main__.py":
        name = os.path.basename(folder)  # noqa: PTH119 - pathlib costs time
    return name.partition(".")[0] in ("inv", "invoke", "onebox")


def _exit(number: int, frame: FrameType | None) -> None:
    # An exception could be lost in a callback of an import.
    os._exit(128 + number)
