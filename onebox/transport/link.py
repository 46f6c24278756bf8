"""One conversation with the agent on the box, over any command that reaches it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

from ..agent import wire
from ..errors import ConnectionLost, OneboxError

# A follower that sends this often keeps the lease (see agent.watch) alive.
PING_SECONDS = 10.0


class AgentError(OneboxError):
    """The agent understood the request and refused it; *kind* says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Link:
    """
    A running agent, reached by *argv*; requests are answered in order.

    While it is open, a thread tells the agent every few seconds that somebody
    is still here. Any break raises `ConnectionLost`, and the link is then dead:
    the caller opens another one and asks the box how far things got.
    """

    def __init__(self, argv: Sequence[str], *, errors: IO[bytes] | None = None) -> None:
        # A session of its own: Ctrl-C in the terminal is for us to handle, not
        # for the ssh process that carries the conversation.
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors if errors is not None else subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.channel = wire.Channel(
            self.process.stdout.fileno(), self.process.stdin.fileno()
        )
        self._sending = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """
        Send a request and return its answer.

        Raises:
            AgentError: The agent refused.

            ConnectionLost: The connection broke; the fate of the request is
                not known.
        """
        self.begin(op, **arguments)
        return self.finish()

    def begin(self, op: str, **arguments: Any) -> None:
        """Send a request whose data or events follow."""
        self.send(b"Q", wire.dumps({"op": op, **arguments}))

    def send(self, kind: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send one frame of the request under way."""
        try:
            with self._sending:
                self.channel.send(kind, payload)
        except wire.Closed as error:
            raise self._lost() from error

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the frames of the request under way, up to its answer ("A")."""
        while True:
            try:
                kind, payload = self.channel.receive()
            except wire.Closed as error:
                raise self._lost() from error
            if kind == b"E":
                refusal = wire.loads(payload)
                raise AgentError(str(refusal["kind"]), str(refusal["message"]))
            yield kind, payload
            if kind == b"A":
                return

    def finish(self) -> dict[str, Any]:
        """Return the answer of the request under way; skip what comes before."""
        for kind, payload in self.frames():
            if kind == b"A":
                return wire.loads(payload)
        raise self._lost()

    def close(self, *, wait: float = 2.0) -> None:
        """Hang up. The agent's process ends; jobs on the box do not."""
        self._closed.set()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(wait)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _lost(self) -> ConnectionLost:
        self._closed.set()
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None
        return ConnectionLost(f"the connection to the box broke (exit {code})")

    def _keep_alive(self) -> None:
        while not self._closed.wait(PING_SECONDS):
            try:
                with self._sending:
                    self.channel.send(b"P")
            except (wire.Closed, ValueError, OSError):
                return
