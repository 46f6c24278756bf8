"""
Connect to a box with the OpenSSH client, one shared connection and a pinned host key.

The user's ssh configuration, agent and known_hosts are not used. The command line that
is sent to the box only starts the agent; all requests travel in the agent's frames.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from onebox import agent_bundle, subprocess_env
from onebox.errors import BoxFailed, ConnectionLost, ProtocolError
from onebox.providers.values import Box
from onebox.remote import commands, failures
from onebox.remote.answers import Hello
from onebox.remote.channel import AgentChannel, AgentError, Silent
from onebox.remote.failures import KeyRefused, NoAgent, ProxyRefused
from onebox.remote.keys import missing_client_error
from onebox.remote.ssh_config import PROXY_MESSAGES, ssh_config
from onebox.store.atomic_files import clear_drafts, private_dir, write_atomically
from onebox.store.ssh_sockets import socket_dir

T = TypeVar("T")

# The pause between attempts while a box boots. Each attempt is a real login, because
# since OpenSSH 9.8 a server blocks clients that connect without authenticating.
RETRY_SECONDS = 0.5
# For this many seconds a booting box may refuse our key or have no agent, because
# authorized_keys and the agent may be written some time after sshd has started.
GRACE_SECONDS = 60.0
# For this many seconds the proxy of a box may report that it is not allowed to connect,
# because a permission that has just been granted may apply late.
REFUSED_SECONDS = 10.0
# How many seconds a box may take to answer. This limit is needed because, after the
# handshake, ssh and a shared connection wait for a minute or longer.
HELLO_SECONDS = 30.0
# The path of a newer agent, relative to the original agent's folder. It is used on
# boxes where only root can replace the original agent.
OWN_AGENT = "files/agent.pyz"
# How many times in a row the transfer of files or of a log is resumed after a break.
# The count starts again when a connection has moved PROGRESS_BYTES. That is more than
# all buffers on the way can hold, so some data has really arrived.
RESUMES = 5
PROGRESS_BYTES = 8 << 20
LONGEST_PAUSE = 5.0


class SSHConnection:
    """
    The connection to one box, opened when needed and reopened when broken.

    *clock_ahead* is how many seconds the box's clock was ahead of this machine's when
    the agent was last started.

    Args:
        directory: The folder for ssh's configuration, known_hosts and messages.

        ssh_key_file: The private key that the box accepts.
    """

    def __init__(self, box: Box, directory: Path, ssh_key_file: Path) -> None:
        self.box = box
        self.directory = private_dir(directory)
        clear_drafts(directory, ".*-*")
        self.config = directory / "config"
        self.socket = socket_dir(os.environ) / _socket_name(box)
        self.clock_ahead = 0.0
        self._channel: AgentChannel | None = None
        self._agent = box.agent
        if not box.user_ssh and not box.is_folder:
            self._write_known_hosts(box)
            text = ssh_config(box, directory, ssh_key_file, self.socket)
            write_atomically(self.config, os.fsencode(text))

    def argv(self, *options: str) -> list[str]:
        """Return the ssh command line; a command for the box may be appended."""
        if self.box.is_folder:
            return ["sh", "-c"]
        if self.box.user_ssh:
            # ssh uses the first value that it reads for an option.
            return ["ssh", *options, *self.box.user_ssh, "--", self.box.host]
        return ["ssh", "-F", str(self.config), *options, "--", self.box.id]

    def environment(self, messages: str = "") -> dict[str, str]:
        """
        Return the environment for a process that `argv` starts.

        Args:
            messages: The file to which the proxy of the box appends its messages; ""
                means that ssh decides what becomes of them.
        """
        if self.box.proxy is None:
            return subprocess_env.environment()
        environ = subprocess_env.environment(self.box.proxy.variables)
        return {**environ, PROXY_MESSAGES: messages}

    def agent_command(self, mode: str) -> str:
        """
        Return the command for the box that starts the agent; *mode* is "serve", say.
        """
        return commands.agent(self.box, self._agent, mode)

    def is_for(self, box: Box) -> bool:
        """Return whether *box* has the address and host key of this connection."""
        same_address = _address(self.box) == _address(box)
        return same_address and self.box.host_key == box.host_key

    def expect(self, box: Box) -> None:
        """
        From now on, accept only the host key of *box*.

        If *box* has several host keys, accept each of them.
        """
        self.box = box
        self._write_known_hosts(box)

    def channel(self, *, within: float = HELLO_SECONDS) -> AgentChannel:
        """
        Return the channel to the agent; open it if necessary.

        Args:
            within: How many seconds the box may take to answer.

        Raises:
            HostKeyMismatch: Another machine answers. Nothing was sent to it.

            NoAgent: The box answers, but its agent does not run.

            ConnectionLost: The channel could not be opened now.
        """
        if self._channel is not None and not self._channel.usable:
            self.close()
        if self._channel is None:
            self._channel = self._open(within)
        return self._channel

    def open_when_up(
        self,
        seconds: float,
        alive: Callable[[], None],
        tick: Callable[[], None],
        *,
        grace: float = GRACE_SECONDS,
    ) -> AgentChannel:
        """
        Wait until a booting box accepts the connection; return the channel.

        Args:
            seconds: How long to wait at most.

            alive: Is called after each failed attempt; it raises if the box will
                certainly not come up.

            tick: Is called after each failed attempt.

            grace: For how many seconds the box may refuse our key or have no working
                agent, counted from the first time that it does.

        Raises:
            BoxFailed: The box does not answer within *seconds*, or it still refuses our
                key or has no working agent after *grace* seconds.
        """
        until = time.monotonic() + seconds
        unready_since: float | None = None
        while True:
            try:
                left = until - time.monotonic()
                return self.channel(within=min(HELLO_SECONDS, max(left, 1.0)))
            except (ConnectionLost, NoAgent, ProtocolError) as error:
                now = time.monotonic()
                if isinstance(
                    error, (KeyRefused, NoAgent, ProtocolError, ProxyRefused)
                ):
                    unready_since = unready_since or now
                    by_proxy = isinstance(error, ProxyRefused)
                    if now - unready_since > (REFUSED_SECONDS if by_proxy else grace):
                        raise failures.not_ready(self.box, error) from error
                if now > until:
                    raise BoxFailed(
                        f"{self.box.id} did not answer within {seconds:.0f} s: "
                        f"{error.message}"
                    ) from error
            alive()
            tick()
            time.sleep(RETRY_SECONDS)

    def call_resuming(
        self,
        step: Callable[[AgentChannel], T],
        broken: Callable[[ConnectionLost, int], None],
    ) -> T:
        """
        Call *step* with the channel, and again each time the connection breaks.

        Return the result of *step*. Each call of *step* must find out by itself which
        part of its work is already done. *broken* is called after each break with the
        error and the number of breaks in a row. It may raise, for example if the box no
        longer runs.

        Raises:
            ConnectionLost: The connection broke too often without progress.
        """
        attempt = 0
        while True:
            try:
                return step(self.channel())
            except ConnectionLost as error:
                moved = self._channel.moved if self._channel is not None else 0
                self.close(force=True)
                attempt = 1 if moved >= PROGRESS_BYTES else attempt + 1
                # An agent counts as silent only after minutes, and a refused proxy will
                # be refused again. So *step* is called only one more time.
                again = 1 if isinstance(error, (Silent, ProxyRefused)) else RESUMES
                if attempt > again:
                    raise
                broken(error, attempt)
                time.sleep(min(0.1 * 2**attempt, LONGEST_PAUSE))

    def close(self, *, force: bool = False) -> None:
        """
        Close the channel; with *force*, also end the shared connection.

        Use *force* after a failure. Otherwise the next channel uses the shared
        connection again, even if this connection has stalled.
        """
        if self._channel is not None:
            self._channel.close(wait=0.2 if force else 2.0)
            self._channel = None
        if force:
            self._end_sharing()

    def forget(self) -> None:
        """
        End the channel and the shared connection, and remove the files for this box.
        """
        self.close(force=True)
        for path in (self.config, self.directory / "known_hosts"):
            path.unlink(missing_ok=True)

    def open_separate_channel(self, *, within: float = HELLO_SECONDS) -> AgentChannel:
        """Open a new connection that is not shared, and return a channel over it."""
        return self._start_agent(within, "-o", "ControlPath=none")[0]

    def _another(self) -> Callable[[], AgentChannel] | None:
        # To a login node there is only the shared connection: another one could ask the
        # user for a password again. A process of this machine needs no other one.
        alone = self.box.user_ssh or self.box.is_folder
        return None if alone else self.open_separate_channel

    def _write_known_hosts(self, box: Box) -> None:
        keys = [" ".join(line.split()[:2]) for line in box.host_key.splitlines()]
        text = "".join(f"{box.id} {key}\n" for key in keys)
        write_atomically(self.directory / "known_hosts", text.encode())

    def _open(self, within: float) -> AgentChannel:
        channel, version = self._start_agent(within)
        channel.open_another = self._another()
        if version == agent_bundle.version():
            return channel
        # Another version of onebox created the box or its image, so the agent on the
        # box is replaced by ours.
        with channel:
            channel.begin("renew")
            channel.send(b"D", agent_bundle.bundle())
            channel.send(b"Z")
            renewed = channel.finish(within=within)
        if renewed.get("own") is True:
            self._agent = str(PurePosixPath(self.box.agent).parent / OWN_AGENT)
        channel, _ = self._start_agent(within)
        channel.open_another = self._another()
        return channel

    def _start_agent(self, within: float, *options: str) -> tuple[AgentChannel, str]:
        """Start the agent; return the channel and the agent's version."""
        with contextlib.ExitStack() as undo:
            # The messages of ssh, its proxy and the box go to a file that is removed.
            # Both ssh and the proxy append to it.
            file = undo.enter_context(
                tempfile.NamedTemporaryFile(dir=self.directory, prefix=".ssh-")
            )
            messages = undo.enter_context(Path(file.name).open("a+b"))
            failures.check_proxy(self.box)
            try:
                channel = AgentChannel(
                    [*self.argv(*options), self.agent_command("serve")],
                    errors=messages,
                    env=self.environment(file.name),
                )
            except FileNotFoundError as error:
                raise missing_client_error("ssh") from error
            if self.box.user_ssh:
                channel.wire.begins_after = commands.BEGINS.encode()
            with contextlib.ExitStack() as failing:
                if not options:
                    failing.callback(self._end_sharing)
                failing.callback(channel.close, wait=0.2)
                try:
                    channel.begin("hello")
                    hello = Hello.parse(channel.finish(within=within))
                    if hello.now is not None:
                        self.clock_ahead = hello.now - time.time()
                except AgentError as error:
                    raise failures.no_agent(self.box, str(error)) from error
                except ConnectionLost as error:
                    code = channel.process.poll()
                    text = failures.read_end(messages)
                    raise failures.explain(self.box, code, text, error) from error
                failing.pop_all()
        return channel, hello.agent

    def _end_sharing(self) -> None:
        """End the shared connection, even if it has stalled."""
        if not self.socket.exists():
            return
        try:
            done = subprocess.run(
                self.argv("-O", "exit"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=2,
                check=False,
                env=self.environment(),
            )
            ended = done.returncode == 0
        except (subprocess.TimeoutExpired, FileNotFoundError):
            ended = False
        if not ended:
            # Without the socket, no later ssh can use the stalled process.
            self.socket.unlink(missing_ok=True)


def _socket_name(box: Box) -> str:
    # The name contains a hash of the address. So if the box's address changes, ssh does
    # not use a shared connection to the old address. The name has at most
    # ssh_sockets.NAME_BYTES bytes.
    address = " ".join(map(str, _address(box)))
    return f"{box.id[:14]}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def _address(box: Box) -> tuple[object, ...]:
    return (box.id, box.host, box.port, box.user, box.jump, box.proxy, box.agent)
