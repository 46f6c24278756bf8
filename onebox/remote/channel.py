"""One conversation with the agent on the box, over any command that reaches it."""

from __future__ import annotations

import math
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from onebox import subprocess_env
from onebox.agent import protocol
from onebox.errors import ConnectionLost, Lost, OneboxError, ProtocolError
from onebox.remote import answers

# A follower that sends this often keeps the lease (see agent.watch) alive.
PING_SECONDS = 10.0
# An agent at work sends a frame every `wire.BEAT_SECONDS`, and reads what it is
# sent: one that does neither for so long hangs, even if ssh itself still answers.
SILENCE_SECONDS = 180.0
# What an answer in JSON may take, and what comes before it.
LONGEST_ANSWER = 1 << 24
LONGEST_NOTE = 1 << 16
# As many "still at work", or other frames of nothing, as eleven days bring.
MOST_BEATS = 100_000
# What is skipped before an answer that nothing comes before.
MOST_SKIPPED = 10_000


class AgentError(OneboxError):
    """The agent understood the request and refused it; *kind* says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Silent(ConnectionLost):
    """The connection stands, but the agent neither sends nor reads."""


class AgentChannel:
    """
    A running agent, reached by *argv*; requests are answered in order.

    While it is open, a thread tells the agent every few seconds that somebody
    is still here. Any break raises `ConnectionLost`, and the link is then dead:
    the caller opens another one and asks the box how far things got. What is no
    frame raises `ProtocolError`: trying again would be of no use.

    Attributes:
        moved: How many bytes of data have gone either way.

        another: Opens one more connection of its own to the same agent, where
            that is possible.
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
            env=subprocess_env.environment(),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.wire = protocol.Channel(
            self.process.stdout.fileno(), self.process.stdin.fileno()
        )
        self.moved = 0
        self.another: Callable[[], AgentChannel] | None = None
        self._under_way = False
        # Since when the write under way waits for the agent to read.
        self._writing: float | None = None
        self._stuck = False
        self._sending = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    @property
    def usable(self) -> bool:
        """Tell whether it can take a request: not broken, none half done."""
        return not self._closed.is_set() and not self._under_way

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
        if self._under_way:
            raise ConnectionLost("an earlier request was broken off half way")
        self._under_way = True
        self.send(b"Q", protocol.dumps({"op": op, **arguments}))

    def send(self, kind: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send one frame of the request under way."""
        try:
            with self._sending:
                self._send(kind, payload)
        except protocol.Closed as error:
            raise self._lost(error) from error
        if kind in b"CD":
            self.moved += len(payload)

    def frames(
        self,
        *,
        within: float | None = None,
        silence: float | None = None,
        beats: bool = False,
    ) -> Iterator[tuple[bytes, bytes]]:
        """
        Yield the frames of the request under way, up to its answer ("A").

        An answer that takes longer than *within* seconds, or *silence* that lasts
        as long, breaks the connection.

        Args:
            beats: Yield "still at work" (P), too: where lanes take turns each frame
                counts.
        """
        silence = SILENCE_SECONDS if silence is None else silence
        end = math.inf if within is None else time.monotonic() + within
        count = 0
        while True:
            try:
                kind, payload = self._receive(min(end, time.monotonic() + silence))
                told = self._json(kind, payload) if kind in b"AEGS" else {}
                if kind in b"CDP" and not payload:
                    count += 1
                    if count > MOST_BEATS:
                        raise protocol.Garbled(
                            "frames without an end, and nothing in them"
                        )
                if kind == b"P" and not beats:
                    continue
            except protocol.Closed as error:
                raise self._lost(error) from error
            self._under_way = kind not in b"AE"
            if kind == b"E":
                raise AgentError(*answers.refusal(told))
            if kind in b"CD":
                self.moved += len(payload)
            yield kind, payload
            if kind == b"A":
                return

    def finish(self, *, within: float | None = None) -> dict[str, Any]:
        """Return the answer of the request under way; skip what comes before."""
        for count, (kind, payload) in enumerate(self.frames(within=within)):
            if kind == b"A":
                return protocol.loads(payload)
            if count > MOST_SKIPPED:
                break
        self._closed.set()
        raise ProtocolError("the box sends without an end, and no answer")

    def close(self, *, wait: float = 2.0) -> None:
        """Hang up. The agent's process ends; jobs on the box do not."""
        self._closed.set()
        # Not while the other thread is about to write: the number of a closed
        # descriptor may be another file's a moment later. Should it be stuck in
        # its write, that one write is all it still does.
        unused = self._sending.acquire(timeout=wait)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        if unused:
            self._sending.release()
        try:
            self.process.wait(wait)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> AgentChannel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _send(self, kind: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        if self._closed.is_set():
            raise protocol.Closed("hung up")
        self._writing = time.monotonic()
        try:
            self.wire.send(kind, payload)
        finally:
            self._writing = None

    def _json(self, kind: bytes, payload: bytes) -> dict[str, Any]:
        if len(payload) > (LONGEST_ANSWER if kind == b"A" else LONGEST_NOTE):
            raise protocol.Garbled(f"an answer of {len(payload):,} bytes")
        return protocol.loads(payload)

    def _receive(self, until: float) -> tuple[bytes, bytes]:
        if self._closed.is_set():
            raise protocol.Closed("hung up")
        frame = self.wire.ready()
        while frame is None:
            left = max(until - time.monotonic(), 0.0)
            if not select.select([self.wire.read_fd], [], [], left)[0]:
                self._closed.set()
                raise Silent("the box does not answer")
            self.wire.fill()
            frame = self.wire.ready()
        if frame[0] not in b"AECDGLPSZ":
            raise protocol.Garbled(f"not a frame: {frame[0]!r}")
        return frame

    def _lost(self, why: protocol.Closed) -> Lost:
        self._closed.set()
        if isinstance(why, protocol.Garbled):
            return ProtocolError(
                f"what answers is no agent of ours ({why})",
                next="does ssh, or the box's shell, print something of its own? "
                "inv ssh to look",
            )
        if self._stuck:
            return Silent("the box does not take what it is sent")
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None
        return ConnectionLost(f"the connection to the box broke (exit {code})")

    def _keep_alive(self) -> None:
        while not self._closed.wait(PING_SECONDS):
            since = self._writing
            if since is not None and time.monotonic() - since > SILENCE_SECONDS:
                # The write fails at once, in the thread that waits for it.
                self._stuck = True
                self.process.kill()
                return
            if since is not None:
                continue
            try:
                with self._sending:
                    self._send(b"P")
            except protocol.Closed:
                return
