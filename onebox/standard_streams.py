"""
Keep files of onebox away from the descriptors of closed standard streams.

If a process starts without stdin, stdout or stderr (`onebox run <&- >&-`), the next
file that it opens gets the descriptor 0, 1 or 2. Such a file cannot be passed on to
another program, and what is written to the descriptor would end up in it.
"""

from __future__ import annotations

import os


def reserve() -> None:
    """
    Open the null device on each of the descriptors 0, 1 and 2 that is closed.

    `sys.stdin`, `sys.stdout` and `sys.stderr` stay None.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The system gives out the lowest free descriptor, which is this one.
            opened = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(opened, True)
