"""
Simulate a slow or long network line: a TCP relay with a bandwidth and a delay.

It runs as a program of its own, so that it shares no interpreter with the measured
code: `python line.py PORT BITS_PER_SECOND ROUND_TRIP_SECONDS`; 0 bits mean no limit. It
prints the port that it listens on. All connections share the bandwidth of a direction.
The delay comes after the bandwidth, as on a wire. TCP's slow start and losses are not
simulated.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PIECE = 1 << 16
# After a pause the line catches up this much, like the buffer of a router.
BURST_SECONDS = 0.01
# This many pieces in flight stop the sender, like a full TCP window.
MOST_PIECES = 1024


class Throttle:
    """The bandwidth of one direction, shared by all connections."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0

    def pass_through(self, count: int) -> float:
        """Wait until *count* bytes have passed; return that time."""
        now = time.monotonic()
        if not self._rate:
            return now
        with self._lock:
            self._free = max(self._free, now - BURST_SECONDS) + count / self._rate
            through = self._free
        if through > now:
            time.sleep(through - now)
        return through


@contextlib.contextmanager
def line(port: int, *, bits: float = 0, round_trip: float = 0) -> Iterator[int]:
    """Start a line to a port of this machine; yield the port of its near end."""
    relay = subprocess.Popen(
        [sys.executable, Path(__file__), str(port), str(bits), str(round_trip)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert relay.stdout is not None
    try:
        yield int(relay.stdout.readline())
    finally:
        relay.communicate()


def ceiling(count: int = 1 << 28) -> float:
    """Return the bytes per second of a line without limits on this machine."""
    sink = socket.create_server(("127.0.0.1", 0))
    with sink, line(sink.getsockname()[1]) as port:
        near = socket.create_connection(("127.0.0.1", port))
        far, _ = sink.accept()
        with near, far:
            began = time.perf_counter()
            sender = threading.Thread(target=near.sendall, args=[bytes(count)])
            sender.start()
            left = count
            while left:
                left -= len(far.recv(1 << 20))
            sender.join()
            return count / (time.perf_counter() - began)


def serve(port: int, bits: float, round_trip: float) -> None:
    """Relay connections until stdin is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    up, down = Throttle(bits / 8), Throttle(bits / 8)

    def accept() -> None:
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink, throttle in ((near, far, up), (far, near, down)):
                pieces: queue.Queue[tuple[float, bytes]] = queue.Queue(MOST_PIECES)
                for target, arguments in (
                    (_receive, (source, throttle, round_trip / 2, pieces)),
                    (_deliver, (sink, pieces)),
                ):
                    threading.Thread(target=target, args=arguments, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


def _receive(
    source: socket.socket,
    throttle: Throttle,
    delay: float,
    pieces: queue.Queue[tuple[float, bytes]],
) -> None:
    while True:
        try:
            data = source.recv(PIECE)
        except OSError:
            data = b""
        pieces.put((throttle.pass_through(len(data)) + delay, data))
        if not data:
            return


def _deliver(sink: socket.socket, pieces: queue.Queue[tuple[float, bytes]]) -> None:
    while True:
        due, data = pieces.get()
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        try:
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
        except OSError:
            # The sender learns it from the other direction; discard the rest.
            while pieces.get()[1]:
                pass
            return


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
