"""A relay between client and server that can delay, stall and cut connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from tests.fakes.space import enter_network


class Relay:
    """
    Passes TCP connections to *port*, from port *at* or a free one; a context manager.

    The port is in the network namespace of the file *network*, if there is one.

    Attributes:
        down: Whether new connections are reset.

        delay: Seconds that each direction takes.

        cuts: For each future connection, the number of bytes after which it is cut.

        opened: The number of connections so far; *was_cut* of them reached their cut.

        to_server: The number of bytes sent to the server.

        turns: The number of round trips in a row that the last data needed. Only
            with a *delay* is it visible which end waited for the other.
    """

    def __init__(
        self,
        port: int,
        *,
        at: int = 0,
        delay: float = 0.0,
        network: Path | None = None,
    ) -> None:
        self.down = False
        self.delay = delay
        self.cuts: list[int] = []
        self.opened = self.was_cut = self.to_server = self.turns = 0
        # The client's number of round trips when the server last received data.
        self.known_turns = 0
        self._target = port
        self._network = network
        self._main: asyncio.Task[None] | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", at))
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join()

    def stall(self) -> None:
        """Pass no more data on the open connections."""
        self._loop.call_soon_threadsafe(self._each, _Connection.stall)

    def cut(self) -> None:
        """Cut the open connections."""
        self._loop.call_soon_threadsafe(self._each, _Connection.cut)

    def _each(self, do: Callable[[_Connection], None]) -> None:
        for line in list(self._connections):
            do(line)

    def _run(self) -> None:
        if self._network is not None:
            # Of this thread alone; the listener stays where it was made.
            enter_network(self._network)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._main = asyncio.current_task()
        server = await asyncio.start_server(self._connected, sock=self._listener)
        try:
            await server.serve_forever()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._each(_Connection.cut)
            # A transport closes its socket in the next iteration of the loop.
            await asyncio.sleep(0.01)

    def _end(self) -> None:
        if self._main is not None:
            self._main.cancel()

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            return
        if self.down:
            for end in (writer, far[1]):
                _reset(end)
            return
        self.opened += 1
        line = _Connection(
            self, writer, far[1], self.cuts.pop(0) if self.cuts else None
        )
        self._connections.add(line)
        for source, sink, up in ((reader, far[1], True), (far[0], writer, False)):
            task = self._loop.create_task(line.pump(source, sink, up))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def gone(self, line: _Connection) -> None:
        """Remove a connection that has ended."""
        self._connections.discard(line)


def _reset(end: asyncio.StreamWriter) -> None:
    """Close as a cut connection does, instead of with an orderly end."""
    with contextlib.suppress(OSError):
        end.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    end.transport.abort()


class _Connection:
    """One connection, both directions."""

    def __init__(
        self,
        relay: Relay,
        near: asyncio.StreamWriter,
        far: asyncio.StreamWriter,
        left: int | None,
    ) -> None:
        self._relay = relay
        self._ends = (near, far)
        self._left = left
        self._directions = 2
        self._flowing = asyncio.Event()
        self._flowing.set()

    def stall(self) -> None:
        self._flowing.clear()

    def cut(self) -> None:
        self._relay.gone(self)
        for end in self._ends:
            _reset(end)

    async def pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, up: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes, int]] = asyncio.Queue()
        deliver = loop.create_task(self._deliver(late, sink, up))
        try:
            data = b"first"
            while data:
                data = await source.read(1 << 16)
                await self._flowing.wait()
                if up:
                    self._relay.to_server += len(data)
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                turn = self._relay.turns if up else self._relay.known_turns + 1
                late.put_nowait((loop.time() + self._relay.delay, data, turn))
                if self._left == 0:
                    self._left = None
                    self._relay.was_cut += 1
                    await asyncio.wait([deliver], timeout=self._relay.delay + 0.01)
                    self.cut()
            await deliver
        except OSError:
            self.cut()
        finally:
            deliver.cancel()
            self._directions -= 1
            if not self._directions:
                self._relay.gone(self)
                for end in self._ends:
                    end.close()

    async def _deliver(
        self,
        late: asyncio.Queue[tuple[float, bytes, int]],
        sink: asyncio.StreamWriter,
        up: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        relay = self._relay
        data = b"first"
        while data:
            at, data, turn = await late.get()
            await asyncio.sleep(max(at - loop.time(), 0.0))
            await self._flowing.wait()
            if data:
                if up:
                    relay.known_turns = max(relay.known_turns, turn)
                else:
                    relay.turns = max(relay.turns, turn)
                sink.write(data)
                await sink.drain()
            elif sink.can_write_eof():
                sink.write_eof()
