"""The far end of the tools: decides on each connection, and leads it to a machine."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Query = Mapping[str, Any]


class Refused(Exception):
    """The tool prints *message* on stderr, and ends with *code*."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message, self.code = message, code


class Gateway:
    """
    Accepts the connections of the tools at the socket *path*.

    Args:
        lead: Returns a connection to the machine that a tool asks for, or raises
            Refused.

    Attributes:
        queries: What the tools have asked, in order.

        refusal: If it is set, every connection is refused with it.
    """

    def __init__(self, lead: Callable[[Query], socket.socket]) -> None:
        self.queries: list[Query] = []
        self.refusal: Refused | None = None
        self._lead = lead
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="gw-", dir="/tmp")
        self.path = Path(self._folder.name, "s")
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(self.path))
        self._listening.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        self._folder.cleanup()

    def cut(self) -> int:
        """Cut every open connection; return their number."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                tool, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(tool,), daemon=True).start()

    def _serve(self, tool: socket.socket) -> None:
        with tool, contextlib.suppress(OSError):
            query = json.loads(_line(tool))
            self.queries.append(query)
            try:
                if self.refusal is not None:
                    raise self.refusal
                machine = self._lead(query)
            except Refused as no:
                answer = {"message": no.message, "code": no.code}
                tool.sendall(json.dumps(answer).encode() + b"\n")
                return
            with machine:
                tool.sendall(b'{"code": 0}\n')
                with self._lock:
                    self._open.add(tool)
                back = threading.Thread(target=_copy, args=(machine, tool), daemon=True)
                back.start()
                _copy(tool, machine)
                back.join()
                with self._lock:
                    self._open.discard(tool)


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = connection.recv(1)
        if not data:
            raise OSError("no query")
        line += data
    return line


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
