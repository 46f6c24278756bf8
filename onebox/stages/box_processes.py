"""Start the process of each box of `map --boxes`, and pass on what it prints."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# The longest part of a line that is kept until its end has come, in bytes.
LONGEST = 1 << 16
# The first word of Python's path would be the working directory, whose files must not
# replace modules. The last one is where onebox was imported from.
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); import sys; "
    "sys.path[:] = [*filter(None, sys.path), sys.argv[1]]; "
    "from onebox.part_process import main; main()"
)


class BoxProcess:
    """
    The process of one box.

    It has a session of its own, so that Ctrl-C in a terminal reaches it only through
    `send`, and once.

    Args:
        name: The name of the box.

        document: What the process reads from its stdin.

        lock: The descriptor of the lock of the box, which the process takes over. So
            the box is locked at any time, also if this process is killed now.

        environ: The environment of the process.
    """

    def __init__(
        self,
        name: str,
        document: Mapping[str, Any],
        lock: int,
        folder: Path,
        environ: Mapping[str, str],
    ) -> None:
        self.name = name
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(Path(__file__).parents[2])],
                cwd=folder,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[write_end, lock],
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        progress = os.fdopen(read_end, "rb", buffering=0)
        self.pipes = [
            pipe
            for pipe in (self._process.stdout, self._process.stderr, progress)
            if pipe is not None
        ]
        self._begun: dict[int, bytes] = {}
        text = json.dumps({**document, "progress": write_end, "lock": lock})
        # If the process has ended already, its exit code says so.
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            with self._process.stdin as stdin:
                stdin.write(text.encode())

    def wait(self) -> int:
        """Wait for the end of the process; return its exit code as a shell does."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def send(self, number: int) -> None:
        """Send a signal to the process if it has not ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def lines(self, fd: int) -> list[bytes] | None:
        """
        Return the complete lines that can be read from a descriptor now.

        Return None at its end; a last line without a newline comes before that.
        """
        data = os.read(fd, LONGEST)
        begun = self._begun.pop(fd, b"") + data
        if not data:
            return [begun] if begun else None
        *complete, rest = begun.split(b"\n")
        if len(rest) >= LONGEST:
            complete, rest = [*complete, rest], b""
        if rest:
            self._begun[fd] = rest
        return complete


# Called with the name of a box and a line.
Taker = Callable[[str, bytes], None]


class BoxProcesses:
    """
    The processes of all boxes.

    Args:
        output: Called with each line of a job's output, *message* with each line that
            onebox has printed, *progress* with how far a box is.
    """

    def __init__(self, output: Taker, message: Taker, progress: Taker) -> None:
        self._takers = (output, message, progress)
        self._selector = selectors.DefaultSelector()
        self._quiet = False
        self._all: list[BoxProcess] = []

    def start(self, box: BoxProcess) -> None:
        """Watch a process that has been started."""
        self._all.append(box)
        for pipe, taker in zip(box.pipes, self._takers):
            self._selector.register(pipe, selectors.EVENT_READ, (box, taker))

    @property
    def run(self) -> bool:
        """Return whether a process still runs, or has output that was not read."""
        return bool(self._selector.get_map())

    def wait(self, seconds: float) -> None:
        """Pass on what is printed within *seconds*."""
        for key, _ in self._selector.select(seconds):
            box, taker = key.data
            found = box.lines(key.fd)
            if found is None:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr] # it is a pipe
                if taker is self._takers[-1]:
                    taker(box.name, b"ended")
                continue
            for line in found:
                if not self._quiet:
                    taker(box.name, line)

    def send(self, number: int) -> None:
        """Send a signal to all processes that run."""
        for box in self._all:
            box.send(number)

    def interrupt(self, number: int) -> None:
        """
        Send a signal to all processes, and wait until they have ended.

        What they print meanwhile is dropped.
        """
        self._quiet = True
        self.send(number)
        while self.run:
            self.wait(1.0)

    def exit_codes(self) -> dict[str, int]:
        """Wait for the end of all processes; return their exit codes by box."""
        return {box.name: box.wait() for box in self._all}
