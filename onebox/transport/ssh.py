"""
The way to a box: OpenSSH's own client, one connection, a pinned host key.

Nothing of the user's ssh configuration, agent or known_hosts takes part. The
command line sent to the box is a constant; whatever varies goes through the
agent's frames.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import BoxFailed, ConnectionLost, HostKeyMismatch, OneboxError
from ..providers.base import Box, HostKey
from ..state import private_dir, write_atomically
from .link import Link

T = TypeVar("T")

# A box that has just booted is asked this often. Only real logins count: since
# OpenSSH 9.8 a server locks out who connects without authenticating.
RETRY_SECONDS = 0.5
# authorized_keys may be written some time after sshd has started.
KEY_GRACE_SECONDS = 60.0
# How often a broken transfer or log is picked up again before giving up.
RESUMES = 5


class Door:
    """
    The connection to one box, opened when needed and opened again when broken.

    Args:
        directory: Where ssh's config, known_hosts and messages are kept.

        identity: The private key that the box lets in.
    """

    def __init__(self, box: Box, directory: Path, identity: Path) -> None:
        self.box = box
        self.directory = private_dir(directory)
        self.config = directory / "config"
        self.messages = directory / "messages"
        self._link: Link | None = None
        known = f"{box.id} {box.host_key.strip()}\n"
        write_atomically(directory / "known_hosts", known.encode())
        write_atomically(self.config, _config(box, directory, identity).encode())

    def argv(self, *options: str) -> list[str]:
        """Return the ssh command that leads to the box."""
        return ["ssh", "-F", str(self.config), *options, self.box.id]

    def link(self) -> Link:
        """
        Return the conversation with the agent; open it if there is none.

        Raises:
            HostKeyMismatch: Another machine answers. Nothing was sent to it.

            ConnectionLost: It could not be opened now.
        """
        if self._link is None:
            self._link = self._open()
        return self._link

    def open_when_up(
        self, seconds: float, alive: Callable[[], None], tick: Callable[[], None]
    ) -> Link:
        """
        Wait until a box that is booting lets us in.

        Args:
            seconds: How long to wait at most.

            alive: Raises when the box will certainly not come up.

            tick: Is called after each attempt.

        Raises:
            BoxFailed: The time is over, or the box refuses our key for good.
        """
        until = time.monotonic() + seconds
        refused_since: float | None = None
        while True:
            try:
                return self.link()
            except ConnectionLost as error:
                now = time.monotonic()
                if "Permission denied" in error.message:
                    refused_since = refused_since or now
                    if now - refused_since > KEY_GRACE_SECONDS:
                        raise BoxFailed(
                            f"{self.box.id} does not accept our ssh key"
                        ) from error
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
        step: Callable[[Link], T],
        broken: Callable[[ConnectionLost, int], None],
    ) -> T:
        """
        Do *step* with the link; when the connection breaks, do it again.

        *step* must find out by itself how far it got. *broken* is told of each
        break and may raise, for example when the box no longer runs.

        Raises:
            ConnectionLost: It broke more than a few times without progress.
        """
        for attempt in range(RESUMES + 1):
            try:
                return step(self.link())
            except ConnectionLost as error:
                self.hang_up(force=True)
                if attempt == RESUMES:
                    raise
                broken(error, attempt + 1)
                time.sleep(min(0.2 * 2**attempt, 5.0))
        raise AssertionError("unreachable")

    def hang_up(self, *, force: bool = False) -> None:
        """
        Close the conversation; with *force*, the shared connection too.

        A connection that has stalled would otherwise be shared by the next
        attempt, and stall it as well.
        """
        if self._link is not None:
            self._link.close(wait=0.2 if force else 2.0)
            self._link = None
        if force:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    self.argv("-O", "exit"),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=5,
                    check=False,
                )

    def forget(self) -> None:
        """Close everything and remove what was kept for this box."""
        self.hang_up(force=True)
        for path in (self.config, self.messages, self.directory / "known_hosts"):
            path.unlink(missing_ok=True)

    def _open(self) -> Link:
        with self.messages.open("wb") as errors:
            link = Link(
                [*self.argv(), f"exec python3 -I -S {self.box.agent} serve"],
                errors=errors,
            )
        try:
            link.ask("hello")
        except ConnectionLost as error:
            link.close(wait=0.2)
            said = self.messages.read_text("utf-8", "replace").strip()
            last = said.splitlines()[-1] if said else error.message
            if "Host key verification failed" in said:
                raise HostKeyMismatch(
                    f"another machine answers for {self.box.id} at {self.box.host}: "
                    "its host key is not the one this box was made with; "
                    "nothing was sent to it",
                    next="inv status, then inv teardown",
                ) from error
            raise ConnectionLost(last, next="inv status") from error
        return link


def identity(directory: Path) -> Path:
    """Return the owner's private ssh key; make it the first time."""
    path = private_dir(directory) / "identity"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            draft = Path(scratch) / "identity"
            _keygen(draft, "onebox")
            # The public half first: whoever sees the key sees both.
            with contextlib.suppress(FileExistsError):
                os.link(f"{draft}.pub", f"{path}.pub")
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
    return path


def public_half(path: Path) -> str:
    """Return the public key that belongs to a private one."""
    done = _ssh_keygen(["-y", "-f", str(path)])
    return done.strip()


def new_host_key() -> HostKey:
    """Make the host key that a new box will answer with."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "key"
        _keygen(path, "")
        public = " ".join(Path(f"{path}.pub").read_text("ascii").split()[:2])
        return HostKey(private=path.read_text("ascii"), public=public)


def socket_dir(environ: Mapping[str, str]) -> Path:
    """
    Return a short private directory for connection sockets.

    A socket's path may have 104 bytes at most (macOS; Linux: 108).
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and len(runtime) < 40 and Path(runtime).is_dir():
        return private_dir(Path(runtime) / "onebox")
    path = Path(tempfile.gettempdir()) / f"onebox-{os.getuid()}"
    if len(str(path)) > 50:
        path = Path("/tmp") / f"onebox-{os.getuid()}"  # noqa: S108 - checked below
    private_dir(path)
    found = path.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or path.is_symlink():
        raise OneboxError(
            f"{path} belongs to somebody else or is open to others",
            next=f"remove it: rm -r {path}",
        )
    return path


def _config(box: Box, directory: Path, identity: Path) -> str:
    socket = socket_dir(os.environ) / box.id
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
    lines = "".join(f"  {name} {value}\n" for name, value in options)
    return f"Host {box.id}\n{lines}"


def _quoted(path: Path) -> str:
    return f'"{path}"'


def _keygen(path: Path, comment: str) -> None:
    _ssh_keygen(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def _ssh_keygen(arguments: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            ["ssh-keygen", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise OneboxError(
            "there is no OpenSSH client on this machine (ssh-keygen is missing)",
            next="install it, for example: apt install openssh-client",
        ) from error
    if done.returncode:
        raise OneboxError(f"ssh-keygen failed: {done.stderr.strip()}")
    return done.stdout
