"""Start the command line of each box of `map --boxes`, and pass on what it prints."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from onebox.command_hints import program_name
from onebox.signals import Interrupted

# The longest part of a line that is kept until its end has come, in bytes.
LONGEST = 1 << 16


class BoxProcess:
    """
    The process that runs the command line of one box.

    It has a session of its own, so that Ctrl-C reaches it once, by `BoxProcesses`.

    Args:
        name: The name of the box.

        words: The words of the command line, without the program.

        environ: The environment of the process.
    """

    def __init__(
        self, name: str, words: Sequence[str], folder: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [*_program(), *words],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._begun: dict[int, bytes] = {}

    def wait(self) -> int:
        """Wait for the end of the process; return its exit code as a shell does."""
        code = self.process.wait()
        return code if code >= 0 else 128 - code

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


class BoxProcesses:
    """
    The processes of all boxes.

    Args:
        output: Called with the name of a box and a line of its job's output.

        message: Called with the name of a box and a line that onebox has printed.
    """

    def __init__(
        self,
        output: Callable[[str, bytes], None],
        message: Callable[[str, bytes], None],
    ) -> None:
        self._takers = (output, message)
        self._selector = selectors.DefaultSelector()
        self.all: list[BoxProcess] = []

    def start(self, box: BoxProcess) -> None:
        """Watch a process that has been started."""
        self.all.append(box)
        for pipe, taker in zip((box.process.stdout, box.process.stderr), self._takers):
            if pipe is not None:
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
                continue
            for line in found:
                taker(box.name, line)

    def detach(self, error: Interrupted) -> None:
        """Pass a signal on to all processes, and wait until they have ended."""
        for box in self.all:
            if box.process.poll() is None:
                box.process.send_signal(error.number)
        while self.run:
            self.wait(1.0)


def _program() -> list[str]:
    """Return the words with which the running program can be started again."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return [sys.executable, "-m", path.parent.name]
    if path.is_file():
        return [sys.executable, str(path.absolute())]
    return [sys.executable, "-m", "onebox" if program_name() == "onebox" else "invoke"]
