"""The machine of a local box: an ssh server, and the processes of the box."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import errno
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# asyncssh looks for two libraries that are not needed on loopback, and Python searches
# them with ldconfig and gcc: a quarter of a box's boot time.
_find_library, ctypes.util.find_library = ctypes.util.find_library, lambda name: None
# An import creates no garbage, but collecting it takes a tenth of the import's time.
gc.disable()
import asyncssh

gc.freeze()
gc.enable()
ctypes.util.find_library = _find_library

from ...agent.processes import become_subreaper
from . import processes
from .confinement import RefusedError, confine
from .layout import MARK, BootConfig, Layout
from .ssh_session import DEFAULT_SIGNALS, Children, SSHSession

# Fast on both ends: CPUs have instructions for AES. A post-quantum key exchange, which
# is 40 % of the cost of a connection, is not needed within one machine.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr")
_EXCHANGES = ("curve25519-sha256", "curve25519-sha256@libssh.org")
# Large enough that neither side waits for an update of the window.
_WINDOW_BYTES = 8 << 20
_PACKET_BYTES = 1 << 17
_KEEPALIVE_SECONDS = 30


def main(arguments: Sequence[str]) -> None:
    """
    Run as the machine of a box, until the supervisor or this process ends.

    The supervisor first sends the boot configuration; this process answers with its
    success or failure. When the supervisor ends, the socket is closed, and this
    process ends too.

    Args:
        arguments: The box's directory, the descriptor of the socket to the
            supervisor, and that of the listening socket.
    """
    layout = Layout(Path(arguments[0]))
    supervisor = socket.socket(fileno=int(arguments[1]))
    listener = socket.socket(fileno=int(arguments[2]))
    for inherited in (supervisor, listener):
        inherited.set_inheritable(False)
    with supervisor.makefile("rb") as lines:
        boot = BootConfig.parse(json.loads(lines.readline()))
    become_subreaper()
    try:
        (layout.home / boot.work).mkdir(parents=True, exist_ok=True)
        notes = confine(layout, boot)
    except (RefusedError, OSError) as error:
        supervisor.sendall(json.dumps({"refused": str(error)}).encode() + b"\n")
        return
    os.chdir(layout.home)
    os.umask(0o022)
    try:
        asyncio.run(_Machine(layout, boot, supervisor, listener).run(notes))
    finally:
        # If the supervisor is gone, only this process can find a daemon that cleared
        # its environment. A command that ends this process must wait for this.
        processes.end(
            lambda: processes.descendants(os.getpid()), each_round=processes.reap
        )
    # Exit without Python's cleanup: the command that stops the box waits for this
    # process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class _Server(asyncssh.SSHServer):
    """Accepts the box's one user key, and tracks the open connections."""

    def __init__(self, machine: _Machine) -> None:
        self._machine = machine
        self._connection: Any = None

    def connection_made(self, conn: Any) -> None:
        self._connection = conn
        self._machine.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._machine.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: Any) -> bool:
        return bool(username == self._machine.user and key == self._machine.user_key)

    def session_requested(self) -> SSHSession:
        return SSHSession(self._machine.children)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        # `ssh -L`, for example for a notebook of the job.
        return True


class _Machine:
    """Accepts connections, and injects the faults that concern them."""

    def __init__(
        self,
        layout: Layout,
        boot: BootConfig,
        supervisor: socket.socket,
        listener: socket.socket,
    ) -> None:
        self.user = boot.user
        self.user_key = asyncssh.import_public_key(boot.user_key)
        self.connections: set[Any] = set()
        self.children = Children(boot.login_shell, environment(layout, boot))
        self._layout = layout
        self._faults = boot.faults
        self._supervisor = supervisor
        self._listener = listener
        self._host_key = asyncssh.import_private_key(boot.host_key)
        self._answering = True

    async def run(self, notes: Sequence[str]) -> None:
        """Serve until the supervisor ends."""
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.add_signal_handler(signal.SIGCHLD, self.children.reap)
        # The supervisor sends nothing more: readable means that it has ended.
        loop.add_reader(self._supervisor, over.cancel)
        # Not loop.add_signal_handler, whose handler would end with the loop, too early.
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(over.cancel))
        self._plan_faults(loop)
        self._start_agent()
        self._listener.setblocking(False)
        accepting = loop.create_task(self._accept(loop))
        ready = {"ready": True, "notes": list(notes)}
        self._supervisor.sendall(json.dumps(ready).encode() + b"\n")
        await asyncio.wait([over])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        accepting.cancel()

    async def _accept(self, loop: asyncio.AbstractEventLoop) -> None:
        clients: set[asyncio.Task[None]] = set()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    # The supervisor has shut the socket down: the box is stopping.
                    return
                # A temporary error, for example no descriptors left: try again.
                _log(f"accept: {error}")
                await asyncio.sleep(0.2)
                continue
            if not self._answering:
                connection.close()
                continue
            client = loop.create_task(self._serve(connection))
            clients.add(client)
            client.add_done_callback(clients.discard)

    async def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncssh.run_server(
                connection,
                server_factory=lambda: _Server(self),
                server_host_keys=[self._host_key],
                encryption_algs=_CIPHERS,
                kex_algs=_EXCHANGES,
                compression_algs=["none"],
                encoding=None,
                line_editor=False,
                window=_WINDOW_BYTES,
                max_pktsize=_PACKET_BYTES,
                keepalive_interval=_KEEPALIVE_SECONDS,
                agent_forwarding=False,
                gss_host=None,
            )
        except (asyncssh.Error, OSError, asyncio.TimeoutError) as error:
            _log(f"a connection failed: {error}")

    def _plan_faults(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule the faults that concern connections."""
        faults = self._faults
        if "boot_delay" in faults:
            self._answering = False
            loop.call_later(faults["boot_delay"], self._answer)
        if "drop_after" in faults:
            loop.call_later(faults["drop_after"], self._drop)
        if "drop_every" in faults:
            self._drop_every(loop, faults["drop_every"], first=True)
        if "stall_after" in faults:
            loop.call_later(faults["stall_after"], self._stall, faults["stall_seconds"])
        if "host_key_after" in faults:
            loop.call_later(faults["host_key_after"], self._change_host_key)

    def _answer(self) -> None:
        self._answering = True

    def _drop(self) -> None:
        _log(f"rehearsal: {len(self.connections)} connections cut")
        for connection in list(self.connections):
            connection.abort()

    def _drop_every(
        self, loop: asyncio.AbstractEventLoop, seconds: float, *, first: bool = False
    ) -> None:
        if not first:
            self._drop()
        loop.call_later(seconds, self._drop_every, loop, seconds)

    def _stall(self, seconds: float) -> None:
        _log(f"rehearsal: stalled for {seconds:g} s")
        # This blocks the event loop on purpose, but ends if the supervisor ends.
        select.select([self._supervisor], [], [], seconds)

    def _change_host_key(self) -> None:
        _log("rehearsal: another host key from now on")
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")

    def _start_agent(self) -> None:
        python = str(self._layout.bin / "python3")
        agent = str(self._layout.agent / "agent.pyz")
        os.posix_spawn(
            python,
            [python, "-I", "-S", agent, "watch"],
            dict(self.children.environment),
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=True,
            setsigmask=[],
            setsigdef=DEFAULT_SIGNALS,
        )


def environment(layout: Layout, boot: BootConfig) -> dict[str, str]:
    """Return the environment of a session, which includes the user's proxies."""
    places = (
        f"{layout.bin}:{layout.home}/.local/bin"
        ":/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    )
    return {
        **boot.proxies,
        "HOME": str(layout.home),
        "PATH": places,
        "SHELL": boot.login_shell,
        "USER": boot.user,
        "LOGNAME": boot.user,
        "LANG": boot.lang,
        "TMPDIR": str(layout.tmp),
        MARK: boot.box,
    }


def _log(sentence: str) -> None:
    """Write a line to the box's console, which is standard error."""
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()
