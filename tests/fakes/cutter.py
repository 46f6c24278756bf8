"""Passes bytes between a client and a command, and ends after a number of bytes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading


def main(direction: str, limit: int, command: list[str]) -> None:
    """Run the command; end everything after *limit* bytes in one direction."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    limits = {"up": 1 << 60, "down": 1 << 60, direction: limit}
    down = (child.stdout.fileno(), 1, limits["down"])
    threading.Thread(target=pump, args=down, daemon=True).start()
    pump(0, child.stdin.fileno(), limits["up"])


def pump(source: int, sink: int, left: int) -> None:
    """Copy to the end or to the limit, then end the process."""
    with contextlib.suppress(OSError):
        while left:
            data = os.read(source, min(left, 1 << 16))
            if not data:
                break
            left -= len(data)
            while data:
                data = data[os.write(sink, data) :]
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
