"""
Frames: the format in which client and agent exchange messages over two pipes.

A frame is one type byte, a four-byte big-endian length and that many bytes.

====  ================  =====================================================
type  direction         payload
====  ================  =====================================================
Q     client to agent   a request: JSON object with "op"
A     agent to client   the answer that ends the request: JSON object
E     agent to client   the error that ends the request: {"kind", "message"}
D     both              data of a stream
C     both              zlib-compressed data of a stream
Z     both              end of a stream (empty)
S     agent to client   an interim report during a request: JSON object
G     agent to client   number of bytes that a stream skips here: {"gone": bytes}
P     client to agent   keep-alive (empty); renews the lease
P     agent to client   keep-alive (empty), after a while without another frame
L     both              the name of the connection to use next (see `striping`)
====  ================  =====================================================

File names in JSON are decoded with `surrogateescape`, so they can have any bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import struct
import time
from typing import Any, Dict, Optional, Tuple, cast

HEAD = struct.Struct(">cI")
# Data is split into pieces of this size. A frame longer than LONGEST is an error.
CHUNK = 1 << 18
LONGEST = 1 << 26
# A login may print this many bytes before the first frame.
LONGEST_PREFACE = 1 << 20
# Pipes get this buffer size. A larger buffer needs fewer context switches.
PIPE_SIZE = 1 << 20
# Payloads of at least this size are read and written in place, without a copy.
LARGE = 1 << 16
# During a request the agent sends a keep-alive if it has sent no frame for this many
# seconds. A much longer silence means that the agent hangs.
BEAT_SECONDS = 10.0


class Closed(Exception):
    """The connection is closed, or broken."""


class Garbled(Closed):
    """The peer sent bytes that are no valid frame, so it is no onebox agent."""


class Refused(Exception):
    """The agent refused a request; programs compare *kind*, people read *message*."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Channel:
    """
    One end of the connection, over two file descriptors.

    It is not thread-safe, except that one thread may read while another writes.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        # Everything up to and including this is skipped: a login may print lines first.
        self.begins_after = b""
        self._buffer = bytearray()
        self._large: Optional[Tuple[bytes, bytes]] = None
        self._missing = memoryview(b"")
        self._most = CHUNK
        self._sent_at = time.monotonic()
        for fd in (read_fd, write_fd):
            # A socket cannot be resized, and a pipe may not be allowed to grow. Both
            # are used as they are.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_SIZE)

    def send(
        self, kind: bytes, payload: "bytes | bytearray | memoryview" = b""
    ) -> None:
        """Write one complete frame. Raises `Closed`."""
        self._sent_at = time.monotonic()
        head = HEAD.pack(kind, len(payload))
        if len(payload) < LARGE:
            self.write(head + bytes(payload))
            return
        try:
            written = os.writev(self.write_fd, [head, payload])
        except OSError as error:
            raise Closed(str(error)) from error
        self.write(head[written:])
        self.write(memoryview(payload)[max(written - len(head), 0) :])

    def send_json(self, kind: bytes, value: Dict[str, Any]) -> None:
        """Write one frame with a JSON object as payload. Raises `Closed`."""
        self.send(kind, dumps(value))

    def beat(self) -> None:
        """Send a keep-alive if nothing was sent for `BEAT_SECONDS`. Raises `Closed`."""
        if time.monotonic() - self._sent_at > BEAT_SECONDS:
            self.send(b"P")

    def receive(self) -> Tuple[bytes, bytes]:
        """Wait for the next frame; return its type and payload. Raises `Closed`."""
        while True:
            frame = self.ready()
            if frame is not None:
                return frame
            self.fill()

    def ready(self) -> Optional[Tuple[bytes, bytes]]:
        """Return the next frame if it was already read completely, else None."""
        if self._large is not None:
            if self._missing:
                return None
            frame, self._large = self._large, None
            # More large frames probably follow. Only the head of the next one is read
            # into the buffer, so that its payload is read without a copy.
            self._most = HEAD.size
            return frame
        if self.begins_after and not self._skip():
            return None
        if len(self._buffer) < HEAD.size:
            return None
        kind, length = HEAD.unpack_from(self._buffer)
        self._most = CHUNK
        if length > LONGEST:
            raise Garbled("not a frame: %r" % bytes(self._buffer[:80]))
        end = HEAD.size + length
        if len(self._buffer) < end:
            if length >= LARGE:
                self._make_room(kind, length)
            return None
        payload = bytes(memoryview(self._buffer)[HEAD.size : end])
        del self._buffer[:end]
        return kind, payload

    def _skip(self) -> bool:
        """Skip what comes before the first frame; return whether it has all come."""
        start = self._buffer.find(self.begins_after)
        if start < 0:
            if len(self._buffer) > LONGEST_PREFACE:
                raise Garbled("no frame in %d bytes" % len(self._buffer))
            return False
        del self._buffer[: start + len(self.begins_after)]
        self.begins_after = b""
        return True

    def next_kind(self, wait: float = 0.0) -> bytes:
        """
        Return the type of the next frame; the frame may have arrived only in part.

        Return b"" if no frame begins to arrive within *wait* seconds. Raises `Closed`.
        """
        if self._large is None and not self._buffer:
            if not select.select([self.read_fd], [], [], wait)[0]:
                return b""
            self.fill()
        return self._large[0] if self._large else bytes(self._buffer[:1])

    def fill(self) -> None:
        """Read what is available, waiting for at least one byte. Raises `Closed`."""
        try:
            if self._missing:
                count = os.readv(self.read_fd, [self._missing])
                self._missing = self._missing[count:]
            else:
                data = os.read(self.read_fd, self._most)
                self._buffer += data
                count = len(data)
        except OSError as error:
            raise Closed(str(error)) from error
        if not count:
            raise Closed("end of file")

    def _make_room(self, kind: bytes, length: int) -> None:
        """
        Allocate memory for the payload of a large frame; `fill` then reads into it.
        """
        payload = bytearray(length)
        count = len(self._buffer) - HEAD.size
        payload[:count] = memoryview(self._buffer)[HEAD.size :]
        self._buffer.clear()
        # A bytearray supports every operation that users of a payload need.
        self._large = kind, cast("bytes", payload)
        self._missing = memoryview(payload)[count:]

    def rest(self) -> bytes:
        """
        Return the bytes that were read but are not part of a returned frame; drop them.
        """
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def write(self, data: "bytes | bytearray | memoryview") -> None:
        """Write these bytes without putting them in a frame. Raises `Closed`."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.write_fd, view) :]
            except OSError as error:
                raise Closed(str(error)) from error


def dumps(value: Dict[str, Any]) -> bytes:
    """
    Encode a JSON object in ASCII.

    The surrogates that stand for raw bytes of file names are escaped.
    """
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def loads(payload: bytes) -> Dict[str, Any]:
    """Decode a JSON object. Raises `Garbled` if the payload is no JSON object."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise Garbled("not JSON: %r" % payload[:80]) from error
    if not isinstance(value, dict):
        raise Garbled("not an object: %r" % payload[:80])
    return value
