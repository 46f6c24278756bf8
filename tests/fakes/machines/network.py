"""The network of a machine: only `lo`, and a relay from this host to its sshd."""

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
    A network namespace that exists as long as its descriptor is open.

    *path* is the argument of `nsenter --net=`.
    """

    def __init__(self) -> None:
        self.fd = _in_own_thread(_new_namespace)
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{METADATA}/32", "dev", "lo"],
        ):
            subprocess.run(
                ["nsenter", f"--net={self.path}", "ip", *words], check=True, timeout=30
            )

    def socket(self) -> socket.socket:
        """Return a socket of the namespace; any thread can use it."""

        def inside() -> socket.socket:
            with _entered(self.fd):
                return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

        return _in_own_thread(inside)

    def close(self) -> None:
        """Close the descriptor; its number may be reused, so it is forgotten."""
        fd, self.fd = self.fd, -1
        os.close(fd)


class Relay:
    """Forwards connections at an address of this host to port 22 of the machine."""

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
        """Cut every connection, and accept no more."""
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
                # The namespace is gone if the machine has just powered off.
                inner = stack.enter_context(connect_to(self._network))
            except OSError:
                # A machine without sshd would reset the connection.
                linger = b"\1\0\0\0\0\0\0\0"
                outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            with self._lock:
                self._open |= {outer, inner}
            with contextlib.suppress(OSError):
                _pass_bytes(outer, inner)
            with self._lock:
                self._open -= {outer, inner}


def connect_to(network: Network) -> socket.socket:
    """Return a connection to port 22 of a machine. Raises OSError if there is none."""
    inner = network.socket()
    try:
        inner.settimeout(10)
        inner.connect(("127.0.0.1", 22))
        inner.settimeout(None)
    except OSError:
        inner.close()
        raise
    return inner


def _pass_bytes(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes in both directions until both ends have closed."""
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


def random_address() -> str:
    """Return a random loopback address; parallel tests rarely get the same."""
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


def _in_own_thread(step: Callable[[], T]) -> T:
    """Run *step* in a thread of its own, because it enters another namespace."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(step).result()
