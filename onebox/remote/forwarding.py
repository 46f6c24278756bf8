"""
Forward ports of this machine to ports of a box.

The ports are forwarded by an ssh process with a connection of its own, so that they do
not depend on the shared connection. Only this machine listens, on 127.0.0.1; the box
cannot open a port here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onebox.errors import UsageError
from onebox.remote.connection import SSHConnection
from onebox.remote.keys import missing_client_error
from onebox.settings.ports import PortPair

HERE = "127.0.0.1"
# How many ports after a busy one are tried.
TRIED = 100
# The ports below RESERVED are root's. Instead of such a port, say 80, a user gets 8080.
RESERVED, UNRESERVED = 1024, 8000
# The pauses in seconds between two attempts to connect, the last of which repeats.
PAUSES = (0.2, 1.0, 3.0, 10.0)
# The sockets of this machine, each with its address, state and owner.
_LISTENERS, _LISTENS = Path("/proc/net/tcp"), "0A"
# The command on the box ends when ssh ends. ssh ends with this process, however that
# ends, because it reads from a pipe that this process holds.
_WAIT = "exec cat >/dev/null"


@dataclass(frozen=True)
class Forwarded:
    """
    A port of the box that can be reached from here.

    Attributes:
        local: The port of this machine.

        remote: The port of the box.

        wanted: The port of this machine that was requested.

        shared: Whether this machine and the box have the same ports, so that nothing
            is forwarded.
    """

    local: int
    remote: int
    wanted: int
    shared: bool = False

    @property
    def url(self) -> str:
        """Return the address at which a browser here finds the port."""
        return f"http://{HERE}:{self.local}"

    @property
    def text(self) -> str:
        """Return a sentence that says where the port is."""
        text = f"port {self.remote} → {self.url}"
        if self.shared:
            text += ", because a local box has the ports of this machine"
        elif self.local != self.wanted:
            text += f", because port {self.wanted} here is not free"
        return text


def choose(pairs: Sequence[PortPair], *, shared: bool) -> list[Forwarded]:
    """
    Choose a free port of this machine for each port of the box.

    It is the requested one, or the next free one.

    Args:
        shared: Whether the box has the ports of this machine. If so, a port that keeps
            its number is not forwarded.

    Raises:
        UsageError: There is no free port.
    """
    chosen: list[Forwarded] = []
    for pair in pairs:
        if shared and pair.local == pair.remote:
            chosen.append(Forwarded(pair.local, pair.remote, pair.local, shared=True))
            continue
        # With shared ports, the port of the box must stay free for its own program.
        taken = {port.local for port in chosen}
        taken |= {other.remote for other in pairs} if shared else set()
        for local in _candidates(pair.local):
            if local not in taken and is_free(local):
                chosen.append(Forwarded(local, pair.remote, pair.local))
                break
        else:
            raise UsageError(
                f"port {pair.local} and the {TRIED} ports after it are not free on "
                "this machine",
                next=f"name another port, as in 9000:{pair.remote}",
            )
    return chosen


def _candidates(port: int) -> Iterator[int]:
    """Yield the ports to try for *port*, the best one first."""
    yield from range(port, min(port + TRIED, 65536))
    if port < RESERVED:
        yield from range(port + UNRESERVED, port + UNRESERVED + TRIED)


def is_free(port: int) -> bool:
    """Return whether this process can listen on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HERE, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def is_ours(port: int) -> bool:
    """
    Return whether a process of this user listens on a port of 127.0.0.1.

    Another user of this machine can take the port before ssh does. Where the kernel
    does not tell who listens, the answer is True.
    """
    try:
        lines = _LISTENERS.read_text("ascii").splitlines()[1:]
    except OSError:
        return True
    (address,) = struct.unpack("=I", socket.inet_aton(HERE))
    for _, local, _, state, _, _, _, owner, *_ in map(str.split, lines):
        if (local, state) == (f"{address:08X}:{port:04X}", _LISTENS):
            return int(owner) == os.geteuid()
    return False


@contextlib.contextmanager
def forwarding(ssh: SSHConnection, ports: Sequence[Forwarded]) -> Iterator[None]:
    """Forward *ports* while the body runs; reconnect when the connection breaks."""
    options = [
        word
        for port in ports
        if not port.shared
        for word in ("-L", f"{HERE}:{port.local}:localhost:{port.remote}")
    ]
    if not options:
        yield
        return
    argv = ssh.argv(
        "-T", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes", *options
    )
    tunnel = _Tunnel([*argv, _WAIT], ssh.environment())
    try:
        yield
    finally:
        tunnel.close()


class _Tunnel:
    """An ssh process that is started again, by a thread, whenever it ends."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._argv = argv
        self._env = env
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._process.terminate()
        self._thread.join()

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in the terminal reaches only onebox.
                start_new_session=True,
                env=self._env,
            )
        except FileNotFoundError as error:
            raise missing_client_error("ssh") from error

    def _keep(self) -> None:
        attempt = 0
        while True:
            try:
                # A connection that lasted resets the pauses.
                self._process.wait(PAUSES[-1])
            except subprocess.TimeoutExpired:
                attempt = 0
                self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._closed.wait(PAUSES[min(attempt, len(PAUSES) - 1)]):
                return
            attempt += 1
            with self._lock:
                if self._closed.is_set():
                    return
                try:
                    self._process = self._start()
                except OSError:
                    # No process or descriptor is free. The old process has ended, so
                    # the next attempt follows after the next pause.
                    continue
