"""Send requests to the agent on a box, through any command that starts the agent."""

from __future__ import annotations

import math
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from onebox import subprocess_env
from onebox.agent import protocol
from onebox.errors import ConnectionLost, Lost, OneboxError, ProtocolError
from onebox.remote import answers

# A keep-alive is sent this often; it renews the lease (see `agent.watchdog`).
PING_SECONDS = 10.0
# During a request, a working agent sends a frame at least every
# `protocol.BEAT_SECONDS`. It also reads all frames that are sent to it. An agent that
# fails to send or to read for this long hangs, even if ssh still answers.
SILENCE_SECONDS = 180.0
# The maximum length of an answer, and that of any other JSON frame, in bytes.
LONGEST_ANSWER = 1 << 24
LONGEST_NOTE = 1 << 16
# If more empty frames than this arrive during a request, this is an error. Keep-alives
# are empty frames too; this many arrive in eleven days.
MOST_BEATS = 100_000
# If more frames than about this number come before the answer, `finish` gives up.
MOST_SKIPPED = 10_000


class AgentError(OneboxError):
    """The agent refused a request; *kind* is the reason in a form for programs."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Silent(ConnectionLost):
    """The connection is open, but the agent sends nothing or reads nothing."""


class AgentChannel:
    """
    A channel to an agent that the command *argv* starts.

    Requests are answered in order. A thread renews the lease every few seconds while
    the channel is open. A broken connection raises `ConnectionLost`; then the channel
    is unusable, and the caller opens another one and asks the box for the state of its
    work. Invalid frames raise `ProtocolError`: a new attempt would not help.

    Attributes:
        moved: How many bytes of data were sent and received, or moved to the box from
            elsewhere.

        open_another: Opens a further connection to the same agent, None if that is
            impossible.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        errors: IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        # The process gets its own session, so that Ctrl-C in the terminal reaches only
        # onebox and not the ssh process.
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors if errors is not None else subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
            env=subprocess_env.environment() if env is None else env,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.wire = protocol.Channel(
            self.process.stdout.fileno(), self.process.stdin.fileno()
        )
        self.moved = 0
        self.open_another: Callable[[], AgentChannel] | None = None
        self._under_way = False
        # The time when the current write began; None if there is no current write. A
        # write waits as long as the agent does not read.
        self._write_began: float | None = None
        self._stuck = False
        self._sending = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    @property
    def usable(self) -> bool:
        """Return whether the channel is open and no request is under way."""
        return not self._closed.is_set() and not self._under_way

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """
        Send a request and return its answer.

        Raises:
            AgentError: The agent refused.

            ConnectionLost: The connection broke; whether the request was carried out
                is unknown.
        """
        self.begin(op, **arguments)
        return self.finish()

    def begin(self, op: str, **arguments: Any) -> None:
        """
        Send a request without waiting for its answer.

        If the request has further data, the caller sends it with `send`. The caller
        reads the agent's frames with `frames` or `finish`.
        """
        if self._under_way:
            raise ConnectionLost("an earlier request is incomplete")
        self._under_way = True
        self.send(b"Q", protocol.dumps({"op": op, **arguments}))

    def send(self, kind: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send a frame of the current request."""
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
        Yield the frames of the current request, up to its answer ("A").

        Args:
            within: After this many seconds without the answer, ConnectionLost is
                raised. None means no limit.

            silence: After this many seconds without a frame, ConnectionLost is raised.
                None means `SILENCE_SECONDS`.

            beats: Also yield keep-alives (P). A transfer over several stripes needs
                them, because it reads one frame from each stripe in turn.
        """
        silence = SILENCE_SECONDS if silence is None else silence
        end = math.inf if within is None else time.monotonic() + within
        count = 0
        while True:
            try:
                kind, payload = self._receive(min(end, time.monotonic() + silence))
                value = self._json(kind, payload) if kind in b"AEGS" else {}
                if kind in b"CDP" and not payload:
                    count += 1
                    if count > MOST_BEATS:
                        raise protocol.Garbled("too many empty frames")
                if kind not in b"AE" and time.monotonic() > end:
                    # A box that sends without a pause would never be waited for.
                    self._closed.set()
                    raise Silent("the box does not answer in time")
                if kind == b"P" and not beats:
                    continue
            except protocol.Closed as error:
                raise self._lost(error) from error
            self._under_way = kind not in b"AE"
            if kind == b"E":
                raise AgentError(*answers.refusal(value))
            if kind in b"CD":
                self.moved += len(payload)
            yield kind, payload
            if kind == b"A":
                return

    def has_frame(self, *, wait: float = 0.0) -> bool:
        """
        Return whether a frame other than a keep-alive has begun to arrive.

        Wait at most *wait* seconds for it. Keep-alives that arrive meanwhile are
        skipped.
        """
        end = time.monotonic() + wait
        try:
            while True:
                kind = self.wire.next_kind(max(end - time.monotonic(), 0.0))
                if kind != b"P":
                    return bool(kind)
                self._receive(time.monotonic() + SILENCE_SECONDS)
                if time.monotonic() >= end:
                    return False
        except protocol.Closed as error:
            raise self._lost(error) from error

    def finish(self, *, within: float | None = None) -> dict[str, Any]:
        """Skip the other frames of the current request, and return its answer."""
        for count, (kind, payload) in enumerate(self.frames(within=within)):
            if kind == b"A":
                return protocol.loads(payload)
            if count > MOST_SKIPPED:
                break
        self._closed.set()
        raise ProtocolError("the box sends too many frames and no answer")

    def close(self, *, wait: float = 2.0) -> None:
        """Close the connection. The agent's process ends; jobs on the box go on."""
        self._closed.set()
        # First wait until the thread that sends keep-alives has finished its write. If
        # a descriptor is closed during a write, its number may soon belong to another
        # file, and the write could go into that file. If the write hangs, the
        # descriptors are closed anyway, and the thread does no further write.
        acquired = self._sending.acquire(timeout=wait)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        if acquired:
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
            raise protocol.Closed("the channel is closed")
        self._write_began = time.monotonic()
        try:
            self.wire.send(kind, payload)
        finally:
            self._write_began = None

    def _json(self, kind: bytes, payload: bytes) -> dict[str, Any]:
        if len(payload) > (LONGEST_ANSWER if kind == b"A" else LONGEST_NOTE):
            raise protocol.Garbled(f"an answer of {len(payload):,} bytes")
        return protocol.loads(payload)

    def _receive(self, until: float) -> tuple[bytes, bytes]:
        if self._closed.is_set():
            raise protocol.Closed("the channel is closed")
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
                f"the remote side is not the onebox agent ({why})",
                next="inv ssh shows whether the box's shell prints something by itself",
            )
        if self._stuck:
            return Silent("the box does not read what it is sent")
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None
        return ConnectionLost(f"the connection to the box broke (exit {code})")

    def _keep_alive(self) -> None:
        while not self._closed.wait(PING_SECONDS):
            since = self._write_began
            if since is not None and time.monotonic() - since > SILENCE_SECONDS:
                # Killing the process makes the hanging write in the other thread fail.
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
