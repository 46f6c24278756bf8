"""A network of a machine's own: nothing but `lo`, and a way in from this host."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
METADATA = "169.254.169.254"
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """
    A network namespace, held by a descriptor: nothing is left of it at the end.

    *path* is what `nsenter --net=` takes, for as long as this process lives.
    """

    def __init__(self) -> None:
        self.fd = _aside(_new_namespace)
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{METADATA}/32", "dev", "lo"],
        ):
            subprocess.run(
                ["nsenter", f"--net={self.path}", "ip", *words], check=True, timeout=30
            )

    def socket(self) -> socket.socket:
        """Return a socket that is inside, whoever uses it."""

        def inside() -> socket.socket:
            with _entered(self.fd):
                return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

        return _aside(inside)

    def close(self) -> None:
        """Let go of it; the descriptor's number may be another one's from then on."""
        fd, self.fd = self.fd, -1
        os.close(fd)


class Relay:
    """Passes connections to an address of this host on to port 22 inside."""

    def __init__(self, network: Network, address: str) -> None:
        self._network = network
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind((address, 22))
        self._listening.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut every connection, and take no more."""
        with self._lock:
            for each in (self._listening, *self._open):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(outer,), daemon=True).start()

    def _pass_on(self, outer: socket.socket) -> None:
        with outer, contextlib.ExitStack() as stack:
            try:
                # There is no network any more if the machine has just gone off.
                inner = stack.enter_context(self._network.socket())
                inner.settimeout(10)
                inner.connect(("127.0.0.1", 22))
                inner.settimeout(None)
            except OSError:
                # As a machine without sshd would answer: by a reset.
                linger = b"\1\0\0\0\0\0\0\0"
                outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            with self._lock:
                self._open |= {outer, inner}
            with contextlib.suppress(OSError):
                _shovel(outer, inner)
            with self._lock:
                self._open -= {outer, inner}


def _shovel(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until both have said that it is all."""
    goes = {one: other, other: one}
    while goes:
        for source in select.select(list(goes), [], [])[0]:
            data = source.recv(1 << 16)
            if data:
                goes[source].sendall(data)
            else:
                with contextlib.suppress(OSError):
                    goes[source].shutdown(socket.SHUT_WR)
                del goes[source]


def an_address() -> str:
    """Return a loopback address at random, so that hardly anybody else has it."""
    last = random.randrange(1, 255)
    return f"127.{random.randrange(64, 128)}.{random.randrange(256)}.{last}"


def _new_namespace() -> int:
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)


@contextlib.contextmanager
def _entered(fd: int) -> Iterator[None]:
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "the network namespace cannot be entered")
    yield


def _aside(step: Callable[[], T]) -> T:
    """Do *step* in a thread that ends with it: it may leave our namespace."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(step).result()
