"""What the tools have in common: ask the gateway, then pass bytes."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import NoReturn


def fail(message: str, code: int) -> NoReturn:
    """Print a message on stderr, and exit."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
    os._exit(code)


def serve(path: str, query: Mapping[str, object]) -> None:
    """Connect stdin and stdout to the machine that a query names, until the end."""
    gateway = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    gateway.connect(path)
    gateway.sendall(json.dumps(query).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        data = gateway.recv(1)
        if not data:
            fail("the gateway is gone", 255)
        answer += data
    found = json.loads(answer)
    if found["code"]:
        fail(found["message"], found["code"])

    def send() -> None:
        while True:
            data = os.read(0, 1 << 16)
            if not data:
                break
            gateway.sendall(data)
        gateway.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    while True:
        data = gateway.recv(1 << 16)
        if not data:
            os._exit(0)
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
