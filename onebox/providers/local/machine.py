"""Run the machine of a local box: an ssh server that starts the box's processes."""

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

# asyncssh looks for two libraries that are not needed on loopback. Python would run
# ldconfig and gcc to find them, and this takes a quarter of a box's boot time. So
# `find_library` finds nothing during the import.
_find_library, ctypes.util.find_library = ctypes.util.find_library, lambda name: None
# The import creates no garbage, but garbage collection would take a tenth of the import
# time. So the collection is switched off.
gc.disable()
# A box's keys have no X.509 certificates. asyncssh works without that module, whose
# import would take a sixth of the time.
# None lets its import fail, which the types of the library do not know.
sys.modules["asyncssh.crypto.x509"] = None  # type: ignore[assignment]
import asyncssh

gc.freeze()
gc.enable()
ctypes.util.find_library = _find_library

from ...agent.processes import become_subreaper
from . import box_processes
from .confinement import RefusedError, confine
from .layout import MARK, Layout, MachineConfig
from .ssh_session import DEFAULT_SIGNALS, Children, SSHSession

# These ciphers are fast for client and server, because CPUs have instructions for AES.
# A post-quantum key exchange would take 40 % of the cost of a connection, and is not
# needed within one machine.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr")
_EXCHANGES = ("curve25519-sha256", "curve25519-sha256@libssh.org")
# These sizes are so large that neither side waits for an update of the ssh window.
_WINDOW_BYTES = 8 << 20
_PACKET_BYTES = 1 << 17
_KEEPALIVE_SECONDS = 30


def main(arguments: Sequence[str]) -> None:
    """
    Run as the machine of a box, until the supervisor ends or SIGTERM arrives.

    The supervisor first sends the boot configuration. This process answers either that
    it is ready, or why it refuses to start. When the supervisor ends, its socket is
    closed, and this process ends too.

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
        boot = MachineConfig.parse(json.loads(lines.readline()))
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
        # All processes of the box are ended here. If the supervisor is gone, only this
        # process can find a daemon that has cleared its environment. So a command that
        # ends this process must give it the time to do so.
        box_processes.end(
            lambda: box_processes.descendants(os.getpid()),
            each_round=box_processes.reap,
        )
    # This process exits without Python's cleanup, which takes time. The command that
    # stops the box waits until this process has ended.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class _Server(asyncssh.SSHServer):
    """Accepts only the box's one user key, and keeps the set of open connections."""

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
        # Port forwarding is allowed. The client asks for it with `ssh -L`, for example
        # to reach a notebook of the job.
        return True


class _Machine:
    """Accepts connections, starts the agent, and makes connections fail as planned."""

    def __init__(
        self,
        layout: Layout,
        boot: MachineConfig,
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
        """Serve until the supervisor ends, or this process gets SIGTERM."""
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.add_signal_handler(signal.SIGCHLD, self.children.reap)
        # The supervisor sends nothing more. So if its socket is readable, it has ended.
        loop.add_reader(self._supervisor, over.cancel)
        # loop.add_signal_handler is not used here, because its handler would be removed
        # when the loop ends, which is too early.
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
                    # The supervisor has shut the socket down, because the box is
                    # stopping.
                    return
                # The error is temporary, for example because no descriptors are left.
                # So the loop tries again.
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
        # This call blocks the event loop on purpose, so that all connections stall. The
        # call returns early if the supervisor ends.
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


def environment(layout: Layout, boot: MachineConfig) -> dict[str, str]:
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
