"""Run a session of the box's ssh server: a command or a shell, and its streams."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from . import box_processes

# A read of output takes at most _READ_BYTES. Pipes of _PIPE_BYTES are requested.
_READ_BYTES = 1 << 17
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031
# A command must start with the default handlers of these signals. Otherwise it would
# ignore the two signals that Python ignores, and those that the supervisor ignores.
DEFAULT_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


@dataclass
class Children:
    """
    The running commands of all sessions, with the shell and environment to run them.
    """

    shell: str
    environment: Mapping[str, str]
    sessions: dict[int, SSHSession] = field(default_factory=dict)

    def reap(self) -> None:
        """Reap the children that have ended, and notify their sessions."""
        for pid, status in box_processes.reap().items():
            session = self.sessions.pop(pid, None)
            if session is not None:
                session.ended(status)


class SSHSession(asyncssh.SSHServerSession[bytes]):
    """
    Runs one command as sshd does, with the same bytes and the same signals.

    The channel is closed when the command has ended *and* its output has been read to
    the end. If the connection breaks, this side of the command's pipes is closed. The
    command keeps running, and notices the break when it next uses a pipe.
    """

    def __init__(self, children: Children) -> None:
        self._children = children
        self._loop = asyncio.get_running_loop()
        self._command: str | None = None
        self._terminal: tuple[str, tuple[int, int, int, int]] | None = None
        self._pid = 0
        self._status: int | None = None
        self._input = -1
        self._pending = bytearray()
        self._input_ended = False
        # The keys are the descriptors from which output is read. The value is True for
        # standard error.
        self._outputs: dict[int, bool] = {}
        self._paused = False
        self._over = False
        self._channel: Any = None

    def connection_made(self, chan: Any) -> None:
        """Store the channel of the session."""
        self._channel = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: object
    ) -> bool:
        """Accept the request for a terminal."""
        self._terminal = (term_type, term_size)
        return True

    def shell_requested(self) -> bool:
        """Accept an interactive shell."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Accept a command."""
        self._command = command
        return True

    def session_started(self) -> None:
        """Start the command."""
        try:
            self._start()
        except OSError as error:
            self._channel.write_stderr(f"onebox: {error}\n".encode())
            self._channel.exit(126)

    def data_received(self, data: bytes, datatype: object) -> None:
        """
        Write input to the command; while its pipe is full, stop reading the channel.
        """
        if self._input < 0 or self._over:
            return
        if self._pending:
            self._pending += data
            return
        rest = self._write(data)
        if rest:
            self._pending += rest
            self._channel.pause_reading()
            self._loop.add_writer(self._input, self._writable)

    def eof_received(self) -> bool:
        """Close the command's standard input; the output stays open."""
        self._input_ended = True
        if not self._pending:
            self._end_input()
        return True

    def pause_writing(self) -> None:
        """Stop reading the command's output, because the client does not keep up."""
        self._paused = True
        for handle in self._outputs:
            self._loop.remove_reader(handle)

    def resume_writing(self) -> None:
        """Continue to read the command's output."""
        self._paused = False
        for handle in self._outputs:
            self._loop.add_reader(handle, self._readable, handle)
        if self._status is not None:
            self._drain_terminal()

    def terminal_size_changed(
        self, width: int, height: int, pixwidth: int, pixheight: int
    ) -> None:
        """Resize the terminal."""
        if self._terminal and self._input >= 0:
            _resize(self._input, (width, height, pixwidth, pixheight))

    def signal_received(self, signal: str) -> None:
        """Send a signal to the command's process group."""
        number = _signal_number(signal)
        if number and self._pid and self._status is None:
            try:
                os.killpg(self._pid, number)
            except (ProcessLookupError, PermissionError):
                return

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the pipes of the command, which notices this when it next uses them."""
        self._over = True
        for handle in list(self._outputs):
            self._close_output(handle)
        self._close_input()
        self._children.sessions.pop(self._pid, None)

    def ended(self, status: int) -> None:
        """
        Store the wait status of the ended command; its output may still be unread.
        """
        self._status = status
        self._drain_terminal()
        self._finish()

    def _start(self) -> None:
        environment = dict(self._children.environment)
        actions: list[Any]
        if self._terminal:
            kind, size = self._terminal
            environment["TERM"] = kind
            outer, inner = os.openpty()
            _resize(outer, size)
            # The command opens the terminal by its path, because a session leader that
            # opens a terminal gets it as its controlling terminal.
            actions = [(os.POSIX_SPAWN_OPEN, 0, os.ttyname(inner), os.O_RDWR, 0)]
            actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
            theirs, self._input = [inner], outer
            self._outputs = {os.dup(outer): False}
        else:
            (stdin, self._input), (out, stdout), (err, stderr) = (
                _pipe(),
                _pipe(),
                _pipe(),
            )
            theirs = [stdin, stdout, stderr]
            actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(theirs)]
            self._outputs = {out: False, err: True}
        try:
            self._pid = os.posix_spawn(
                self._children.shell,
                self._arguments(),
                environment,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=DEFAULT_SIGNALS,
            )
        finally:
            for handle in theirs:
                os.close(handle)
        self._children.sessions[self._pid] = self
        for handle in (self._input, *self._outputs):
            os.set_blocking(handle, False)
        if not self._paused:
            for handle in self._outputs:
                self._loop.add_reader(handle, self._readable, handle)

    def _arguments(self) -> list[str]:
        name = os.path.basename(self._children.shell)  # noqa: PTH119 - a string
        if self._command is not None:
            return [name, "-c", self._command]
        return [name, "-i"] if self._terminal else [name]

    def _write(self, data: bytes | bytearray) -> memoryview:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._input, view) :]
        except BlockingIOError:
            return view
        except OSError:
            # The command has closed its standard input, so the remaining data is
            # dropped.
            self._close_input()
            return memoryview(b"")
        return view

    def _writable(self) -> None:
        rest = bytes(self._write(self._pending))
        self._pending = bytearray(rest)
        if not rest:
            if self._input >= 0:
                self._loop.remove_writer(self._input)
            self._channel.resume_reading()
            # `resume_reading` may have delivered more data and the end of the input at
            # once. So the input ends only if nothing is left to write.
            if self._input_ended and not self._pending:
                self._end_input()

    def _end_input(self) -> None:
        if self._terminal and self._input >= 0:
            # On a terminal, the control character Ctrl-D marks the end of the input.
            self._write(b"\x04")
        else:
            self._close_input()

    def _close_input(self) -> None:
        if self._input < 0:
            return
        self._loop.remove_writer(self._input)
        os.close(self._input)
        self._input = -1
        # The buffer is replaced and not cleared, because a write may still hold a view
        # of it.
        self._pending = bytearray()

    def _readable(self, handle: int) -> bool:
        """Forward the available output to the client; return whether there was any."""
        try:
            data = os.read(handle, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            # On a terminal this is EIO: no process has the terminal open any more.
            data = b""
        if not data:
            self._close_output(handle)
            self._finish()
            return False
        try:
            if self._outputs[handle]:
                self._channel.write_stderr(data)
            else:
                self._channel.write(data)
        except BrokenPipeError:
            # The client has closed the channel. While input waits for the command,
            # asyncssh raises this error before it calls `connection_lost`.
            self._close_output(handle)
            return False
        return True

    def _drain_terminal(self) -> None:
        """
        Forward a terminal's remaining output, and close it.

        A session with a terminal ends with its command, even if other processes keep
        the terminal open.
        """
        if not self._terminal:
            return
        for handle in list(self._outputs):
            while not self._paused and self._readable(handle):
                pass
            if not self._paused:
                self._close_output(handle)
        self._finish()

    def _close_output(self, handle: int) -> None:
        if self._outputs.pop(handle, None) is not None:
            self._loop.remove_reader(handle)
            os.close(handle)

    def _finish(self) -> None:
        if self._status is None or self._outputs or self._over:
            return
        self._over = True
        self._close_input()
        if os.WIFSIGNALED(self._status):
            name = _signal_name(os.WTERMSIG(self._status))
            self._channel.exit_with_signal(name, os.WCOREDUMP(self._status))
        else:
            self._channel.exit(os.WEXITSTATUS(self._status))


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    if sys.platform.startswith("linux"):
        try:
            fcntl.fcntl(ends[0], _SET_PIPE_SIZE, _PIPE_BYTES)
        except OSError:
            # The size exceeds the limit for ordinary users, so the pipe keeps its
            # default size.
            return ends
    return ends


def _resize(terminal: int, size: tuple[int, int, int, int]) -> None:
    width, height, pixels_wide, pixels_high = size
    packed = struct.pack("HHHH", height, width, pixels_wide, pixels_high)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, packed)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name[3:]
    except ValueError:
        # This is a real-time signal, for which ssh has no name.
        return "USR1"


def _signal_number(name: str) -> int:
    try:
        return signal.Signals[f"SIG{name}"]
    except KeyError:
        return 0
