"""
The way to a box: OpenSSH's own client, one connection, a pinned host key.

Nothing of the user's ssh configuration, agent or known_hosts takes part. The
command line sent to the box is a constant; whatever varies goes through the
agent's frames.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from onebox import subprocess_env
from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    HostKeyMismatch,
    OneboxError,
    ProtocolError,
)
from onebox.providers.base import Box
from onebox.remote import agent_bundle
from onebox.remote.answers import Hello
from onebox.remote.channel import AgentChannel, AgentError, Silent
from onebox.remote.keys import no_client
from onebox.store.atomic_files import clear_drafts, private_dir, write_atomically
from onebox.store.box_store import state_dir

T = TypeVar("T")

# A box that has just booted is asked this often. Only real logins count: since
# OpenSSH 9.8 a server locks out who connects without authenticating.
RETRY_SECONDS = 0.5
# authorized_keys and the agent may be written some time after sshd has started.
GRACE_SECONDS = 60.0
# How long a box may take to say hello. Past the handshake neither ssh nor a
# shared connection has a limit of its own that is shorter than a minute.
HELLO_SECONDS = 30.0
# Where a newer agent lies, beside one that only root could replace.
OWN_AGENT = "files/agent.pyz"
# How often a broken transfer or log is picked up again before giving up, unless
# it got on by this much: more than all buffers on the way can have swallowed.
RESUMES = 5
PROGRESS_BYTES = 8 << 20
LONGEST_PAUSE = 5.0

_PLAIN = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:@+-]*")
_MESSAGE_BYTES = 1 << 14
_SHARED_TMP = Path("/tmp")  # noqa: S108 - what is ours there is checked
# A socket's path has 103 bytes at most (macOS; Linux: 107): its folder's, a slash,
# the 27 of `_socket_name`, and 17 that ssh adds while it makes the socket.
_SOCKET_DIR_BYTES = 103 - 1 - 27 - 17


class KeyRefused(ConnectionLost):
    """The box answers with its own host key, and does not let us in."""


class NoAgent(BoxFailed):
    """The box lets us in, but no agent runs there."""


class SSHConnection:
    """
    The connection to one box, opened when needed and opened again when broken.

    Args:
        directory: Where ssh's config, known_hosts and messages are kept.

        identity: The private key that the box lets in.
    """

    def __init__(self, box: Box, directory: Path, identity: Path) -> None:
        self.box = box
        self.directory = private_dir(directory)
        clear_drafts(directory, ".*-*")
        self.config = directory / "config"
        self.socket = socket_dir(os.environ) / _socket_name(box)
        # By how many seconds the box's clock was ahead of ours when we last met.
        self.ahead = 0.0
        self._channel: AgentChannel | None = None
        self._agent = box.agent
        self._write_known(box)
        text = _config(box, directory, identity, self.socket)
        write_atomically(self.config, os.fsencode(text))

    def argv(self, *options: str) -> list[str]:
        """Return the ssh command that leads to the box; a command may follow."""
        return ["ssh", "-F", str(self.config), *options, "--", self.box.id]

    def leads_to(self, box: Box) -> bool:
        """Tell whether it leads to this box, wherever that is now."""
        return _way(self.box) == _way(box) and self.box.host_key == box.host_key

    def expect(self, box: Box) -> None:
        """Take the box's host key, or each of its keys, for right from now on."""
        self.box = box
        self._write_known(box)

    def channel(self, *, within: float = HELLO_SECONDS) -> AgentChannel:
        """
        Return the conversation with the agent; open it if there is none.

        Args:
            within: How many seconds the box may take to answer.

        Raises:
            HostKeyMismatch: Another machine answers. Nothing was sent to it.

            NoAgent: The box answers, but its agent does not run.

            ConnectionLost: It could not be opened now.
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
        Wait until a box that is booting lets us in.

        Args:
            seconds: How long to wait at most.

            alive: Raises when the box will certainly not come up.

            tick: Is called after each attempt.

            grace: How long it may refuse our key, or have no agent.

        Raises:
            BoxFailed: The time is over, or the box refuses our key for good.
        """
        until = time.monotonic() + seconds
        unready_since: float | None = None
        while True:
            try:
                left = until - time.monotonic()
                return self.channel(within=min(HELLO_SECONDS, max(left, 1.0)))
            except (ConnectionLost, NoAgent, ProtocolError) as error:
                now = time.monotonic()
                if isinstance(error, (KeyRefused, NoAgent, ProtocolError)):
                    unready_since = unready_since or now
                    if now - unready_since > grace:
                        raise _not_ready(self.box, error) from error
                if now > until:
                    raise BoxFailed(
                        f"{self.box.id} did not answer within {seconds:.0f} s: "
                        f"{error.message}"
                    ) from error
            alive()
            tick()
            time.sleep(RETRY_SECONDS)

    def resuming(
        self,
        step: Callable[[AgentChannel], T],
        broken: Callable[[ConnectionLost, int], None],
    ) -> T:
        """
        Do *step* with the link; when the connection breaks, do it again.

        *step* must find out by itself how far it got. *broken* is told of each
        break and may raise, for example when the box no longer runs.

        Raises:
            ConnectionLost: It broke more than a few times without progress.
        """
        attempt = 0
        while True:
            try:
                return step(self.channel())
            except ConnectionLost as error:
                moved = self._channel.moved if self._channel is not None else 0
                self.close(force=True)
                attempt = 1 if moved >= PROGRESS_BYTES else attempt + 1
                # Each silence lasts for minutes: that of a second agent is enough.
                if attempt > (1 if isinstance(error, Silent) else RESUMES):
                    raise
                broken(error, attempt)
                time.sleep(min(0.1 * 2**attempt, LONGEST_PAUSE))

    def close(self, *, force: bool = False) -> None:
        """
        Close the conversation; with *force*, the shared connection too.

        A connection that has stalled would otherwise be shared by the next
        attempt, and stall it as well.
        """
        if self._channel is not None:
            self._channel.close(wait=0.2 if force else 2.0)
            self._channel = None
        if force:
            self._end_sharing()

    def forget(self) -> None:
        """Close everything and remove what was kept for this box."""
        self.close(force=True)
        for path in (self.config, self.directory / "known_hosts"):
            path.unlink(missing_ok=True)

    def another(self, *, within: float = HELLO_SECONDS) -> AgentChannel:
        """Return a conversation over a connection of its own, shared by none."""
        return self._converse(within, "-o", "ControlPath=none")[0]

    def _write_known(self, box: Box) -> None:
        keys = [" ".join(line.split()[:2]) for line in box.host_key.splitlines()]
        text = "".join(f"{box.id} {key}\n" for key in keys)
        write_atomically(self.directory / "known_hosts", text.encode())

    def _open(self, within: float) -> AgentChannel:
        channel, version = self._converse(within)
        channel.another = self.another
        if version == agent_bundle.version():
            return channel
        # Another onebox has made the box, or the image that it is from.
        with channel:
            channel.begin("renew")
            channel.send(b"D", agent_bundle.bundle())
            channel.send(b"Z")
            renewed = channel.finish(within=within)
        if renewed.get("own") is True:
            self._agent = str(PurePosixPath(self.box.agent).parent / OWN_AGENT)
        channel, _ = self._converse(within)
        channel.another = self.another
        return channel

    def _converse(self, within: float, *options: str) -> tuple[AgentChannel, str]:
        """Start the agent; return the conversation and the agent's version."""
        agent = shlex.quote(self._agent)
        with contextlib.ExitStack() as undo:
            # A file without a name: what ssh and the box say stays nowhere.
            said = undo.enter_context(tempfile.TemporaryFile(dir=self.directory))
            try:
                channel = AgentChannel(
                    [*self.argv(*options), f"exec python3 -I -S {agent} serve"],
                    errors=said,
                )
            except FileNotFoundError as error:
                raise no_client("ssh") from error
            with contextlib.ExitStack() as failing:
                if not options:
                    failing.callback(self._end_sharing)
                failing.callback(channel.close, wait=0.2)
                try:
                    channel.begin("hello")
                    hello = Hello.parse(channel.finish(within=within))
                    if hello.now is not None:
                        self.ahead = hello.now - time.time()
                except AgentError as error:
                    raise _no_agent(self.box, str(error)) from error
                except ConnectionLost as error:
                    code = channel.process.poll()
                    raise _failure(self.box, code, _read_end(said), error) from error
                failing.pop_all()
        return channel, hello.agent

    def _end_sharing(self) -> None:
        """End the shared connection, also one that has stalled or is frozen."""
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
                env=subprocess_env.environment(),
            )
            ended = done.returncode == 0
        except (subprocess.TimeoutExpired, FileNotFoundError):
            ended = False
        if not ended:
            # Whoever held it, nobody shall meet it there again.
            self.socket.unlink(missing_ok=True)


def socket_dir(environ: Mapping[str, str]) -> Path:
    """
    Return a short private directory for connection sockets.

    The first of several places that is ours alone: in /tmp another user may have
    made a folder of any name before us, which nobody but them can remove.

    Raises:
        OneboxError: No place is both short enough and ours.
    """
    refused = []
    for path in _socket_places(environ):
        if len(os.fsencode(path)) > _SOCKET_DIR_BYTES:
            refused.append(f"{path} is too long")
        elif not _is_ours(path):
            refused.append(f"{path} belongs to another user or is open to others")
        else:
            return path
    raise OneboxError(
        f"ssh has no folder for its sockets: {'; '.join(refused)}",
        next="mkdir -m 700 ~/t, then set TMPDIR=~/t (a short path of your own)",
    )


def _socket_places(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where sockets may lie, the best place first."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir():
        yield Path(runtime) / "onebox"
    temporary = Path(tempfile.gettempdir())
    for folder in dict.fromkeys([temporary, _SHARED_TMP]):
        yield folder / f"onebox-{os.getuid()}"
    yield state_dir(environ) / "ssh"


def _is_ours(path: Path) -> bool:
    """Make a directory unless it is there; tell whether it is this user's alone."""
    try:
        private_dir(path)
        found = path.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and not found.st_mode & 0o077


def _socket_name(box: Box) -> str:
    # Short, and another one when the box has moved: a connection to where it was
    # is of no use.
    where = hashlib.sha256(" ".join(map(str, _way(box))).encode()).hexdigest()
    return f"{box.id[:14]}-{where[:12]}"


def _way(box: Box) -> tuple[object, ...]:
    return (box.id, box.host, box.port, box.user, box.jump, box.agent)


def _failure(
    box: Box, code: int | None, said: str, error: ConnectionLost
) -> OneboxError:
    """Return what it means that the box did not say hello."""
    lines = said.splitlines()
    if code == 255 and "Host key verification failed" in said:
        return HostKeyMismatch(
            f"another machine answers for {box.id} at {box.host}: its host key is "
            "not the one this box was made with; nothing was sent to it",
            next="inv status; inv teardown --discard-outputs gives the box up",
        )
    if code == 255 and f"{box.user}@{box.host}: Permission denied" in said:
        return KeyRefused(lines[-1], next="inv status")
    # Any other code is that of the command on the box: the connection is good.
    if code is not None and 0 < code < 255:
        return _no_agent(box, lines[-1] if lines else f"exit {code}")
    why = lines[-1] if lines and code is not None else error.message
    return ConnectionLost(why, next="inv status")


def _no_agent(box: Box, why: str) -> NoAgent:
    return NoAgent(
        f"{box.id} answers, but its agent does not run: {why}",
        next="inv teardown --discard-outputs, then inv provision",
    )


def _not_ready(box: Box, error: OneboxError) -> BoxFailed:
    if isinstance(error, NoAgent):
        return error
    if isinstance(error, ProtocolError):
        return BoxFailed(f"{box.id}: {error.message}", next=error.next)
    return BoxFailed(f"{box.id} does not accept our ssh key")


def _read_end(file: IO[bytes]) -> str:
    """Return the last lines of what ssh and the box said, fit for a terminal."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _MESSAGE_BYTES, 0))
    text = file.read().decode("utf-8", "replace").strip()
    return "\n".join(
        "".join(c if c.isprintable() else "?" for c in line[:400])
        for line in text.splitlines()
    )


def _config(box: Box, directory: Path, identity: Path, socket: Path) -> str:
    for word in (box.id, box.host, box.user, *([box.jump] if box.jump else [])):
        if not _PLAIN.fullmatch(word):
            raise OneboxError(f"ssh cannot be told of {word!r}", next="inv status")
    options: Sequence[tuple[str, object]] = [
        ("HostName", box.host),
        ("Port", box.port),
        ("User", box.user),
        ("HostKeyAlias", box.id),
        ("IdentityFile", _quoted(identity)),
        ("IdentitiesOnly", "yes"),
        ("IdentityAgent", "none"),
        ("UserKnownHostsFile", _quoted(directory / "known_hosts")),
        ("GlobalKnownHostsFile", "/dev/null"),
        ("StrictHostKeyChecking", "yes"),
        ("UpdateHostKeys", "no"),
        ("BatchMode", "yes"),
        ("ForwardAgent", "no"),
        ("ControlMaster", "auto"),
        ("ControlPath", _quoted(socket)),
        ("ControlPersist", "60"),
        ("ConnectTimeout", "10"),
        # A closed laptop or a dead line shows within a minute.
        ("ServerAliveInterval", "15"),
        ("ServerAliveCountMax", "4"),
        # Twice to three times as fast as the default cipher where the CPU has
        # AES; the plain curve saves 40 % of the time a connection takes.
        ("Ciphers", "^aes128-gcm@openssh.com"),
        ("KexAlgorithms", "^curve25519-sha256"),
        ("LogLevel", "ERROR"),
    ]
    if box.jump:
        # The host in between is the user's own: their ssh knows its keys.
        options = [*options, ("ProxyCommand", f"ssh -W [%h]:%p -- {box.jump}")]
    lines = "".join(f"  {name} {value}\n" for name, value in options)
    return f"Host {box.id}\n{lines}"


def _quoted(path: Path) -> str:
    # ssh puts values in for %x and ${NAME}; for the latter there is no escape.
    text = str(path)
    if "\n" in text or '"' in text or "${" in text:
        raise OneboxError(f"ssh cannot be told of a path like {text!r}")
    return '"{}"'.format(text.replace("%", "%%"))
