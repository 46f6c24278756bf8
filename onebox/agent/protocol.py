"""
Frames: how client and agent talk over one pair of pipes.

A frame is one type byte, a four-byte big-endian length and that many bytes.

====  ================  =====================================================
type  direction         payload
====  ================  =====================================================
Q     client to agent   a request: JSON object with "op"
A     agent to client   the answer that ends the request: JSON object
E     agent to client   the error that ends the request: {"kind", "message"}
D     both              data of a stream
C     both              the same, compressed by zlib
Z     both              end of a stream (empty)
S     agent to client   a JSON object on the way: a sample, a progress note
G     agent to client   how much of a stream is left out here: {"gone": bytes}
P     client to agent   "still here" (empty); it renews the lease
P     agent to client   "still at work" (empty), after some seconds without a frame
L     both              the name of a lane to be used from here on (see `lanes`)
====  ================  =====================================================

JSON travels with `surrogateescape`, so a file name of any bytes survives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
from typing import Any, Dict, Optional, Tuple, cast

HEAD = struct.Struct(">cI")
# Data is cut into pieces of this size; a longer frame is a protocol error.
CHUNK = 1 << 18
LONGEST = 1 << 26
# A pipe that holds more makes fewer switches from one process to the next.
PIPE_SIZE = 1 << 20
# Frames above this size are read in and written where they are, without a copy.
LARGE = 1 << 16
# An agent at work sends a frame at least this often: silence means that it hangs.
BEAT_SECONDS = 10.0


class Closed(Exception):
    """The other end has gone away, or what it sends is no frame."""


class Garbled(Closed):
    """What the other end sends is no frame: it is not who we think it is."""


class Refused(Exception):
    """The agent will not do what was asked; *kind* is for programs to read."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Channel:
    """
    One end of the connection, over two file descriptors.

    It is not safe for use by several threads at once, except that one may read
    while another writes.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self._buffer = bytearray()
        self._large: Optional[Tuple[bytes, bytes]] = None
        self._missing = memoryview(b"")
        self._most = CHUNK
        self._sent_at = time.monotonic()
        for fd in (read_fd, write_fd):
            # What is no pipe, or may not be so big, works as it is.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_SIZE)

    def send(
        self, kind: bytes, payload: "bytes | bytearray | memoryview" = b""
    ) -> None:
        """Write one frame, whole. Raises `Closed`."""
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
        """Write one frame that holds a JSON object. Raises `Closed`."""
        self.send(kind, dumps(value))

    def beat(self) -> None:
        """Send "still at work" if nothing was sent for a while. Raises `Closed`."""
        if time.monotonic() - self._sent_at > BEAT_SECONDS:
            self.send(b"P")

    def receive(self) -> Tuple[bytes, bytes]:
        """Wait for a frame; return its type and payload. Raises `Closed`."""
        while True:
            frame = self.ready()
            if frame is not None:
                return frame
            self.fill()

    def ready(self) -> Optional[Tuple[bytes, bytes]]:
        """Return a frame that has already been read in, or None."""
        if self._large is not None:
            if self._missing:
                return None
            frame, self._large = self._large, None
            # More like it follow, most likely: their bytes are not for the buffer.
            self._most = HEAD.size
            return frame
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

    def peek(self) -> bytes:
        """Return the type of the frame that comes next, if any of it is here."""
        return self._large[0] if self._large else bytes(self._buffer[:1])

    def fill(self) -> None:
        """Read what there is, waiting for at least a byte. Raises `Closed`."""
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
        """Have the rest of a large frame read to where it will stay."""
        payload = bytearray(length)
        got = len(self._buffer) - HEAD.size
        payload[:got] = memoryview(self._buffer)[HEAD.size :]
        self._buffer.clear()
        # It does all that anybody asks of the bytes of a frame.
        self._large = kind, cast("bytes", payload)
        self._missing = memoryview(payload)[got:]

    def rest(self) -> bytes:
        """Return what has been read beyond the last frame, and forget it."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def write(self, data: "bytes | bytearray | memoryview") -> None:
        """Write bytes that are frames already. Raises `Closed`."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.write_fd, view) :]
            except OSError as error:
                raise Closed(str(error)) from error


def dumps(value: Dict[str, Any]) -> bytes:
    """Encode a JSON object; lone surrogates (raw bytes) become escapes."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def loads(payload: bytes) -> Dict[str, Any]:
    """Decode a JSON object. Raises `Closed` if it is none."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise Garbled("not JSON: %r" % payload[:80]) from error
    if not isinstance(value, dict):
        raise Garbled("not an object: %r" % payload[:80])
    return value
