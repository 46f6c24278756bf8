"""Passes bytes between client and agent; what the agent sends arrives in batches."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading

from onebox.agent import protocol

# A batch ends when the agent has sent nothing for this many seconds.
QUIET = 0.3
PAUSE = 0.05
# After this many keep-alives the connection ends, so that no test waits forever.
MOST_BEATS = 300


def main(beats: bool, command: list[str]) -> None:
    """Run the command; add keep-alives between the batches if *beats* is set."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    arguments = child.stdout.fileno(), beats
    threading.Thread(target=send_batches, args=arguments, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := os.read(0, 1 << 16):
            while data:
                data = data[os.write(child.stdin.fileno(), data) :]
    os._exit(1)


def send_batches(source: int, beats: bool) -> None:
    """Collect what arrives until it stops for a moment, then send it in one write."""
    channel = protocol.Channel(source, 1)
    batch = b""
    count = 0
    with contextlib.suppress(OSError, protocol.Closed):
        while count < MOST_BEATS:
            if select.select([source], [], [], QUIET if batch else PAUSE)[0]:
                data = os.read(source, 1 << 16)
                if not data:
                    break
                batch += data
                continue
            channel.write(batch)
            batch = b""
            if beats:
                channel.send(b"P")
                count += 1
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1] == "beats", sys.argv[2:])
