"""Reach a local box with the system's ssh, as a user does."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onebox.providers.local.layout import Layout
from onebox.providers.local.provider import Local
from onebox.providers.values import Box

# Long enough for a loaded host; only a test that hangs reaches it.
TIMEOUT = 240.0


@dataclass(frozen=True)
class Keys:
    """ed25519 keys in files: "user", "host" and "stranger"."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Keys:
        """Make the three keys."""
        for name in ("user", "host", "stranger"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name],
                check=True,
            )
        return cls(directory)

    def private(self, name: str) -> str:
        """Return a private key."""
        return (self.directory / name).read_text("ascii")

    def public(self, name: str) -> str:
        """Return a public key."""
        return (self.directory / f"{name}.pub").read_text("ascii").strip()


class SshBox:
    """A box and an ssh configuration for it."""

    def __init__(self, local: Local, box: Box, keys: Keys) -> None:
        self.local = local
        self.box = box
        self.layout = Layout(
            Path(box.agent).parents[2] if box.agent else Path("/nonexistent")
        )
        self._keys = keys
        # The path of a control socket has a limit of about 100 bytes.
        self._directory = tempfile.TemporaryDirectory(prefix="obx-", dir="/tmp")
        self.control = Path(self._directory.name, "c")

    def ssh(
        self,
        command: str = "",
        *,
        options: tuple[str, ...] = (),
        key: str = "user",
        host_key: str = "host",
        data: bytes | None = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the box; `options` come before it."""
        return subprocess.run(
            self.argv(command, options=options, key=key, host_key=host_key),
            input=data,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )

    def out(self, command: str) -> str:
        """Return the output of a command, both streams, and its exit code."""
        done = self.ssh(f"{{ {command}\n}} 2>&1")
        return f"{done.stdout.decode().strip()}[{done.returncode}]"

    def argv(
        self,
        command: str = "",
        *,
        options: tuple[str, ...] = (),
        key: str = "user",
        host_key: str = "host",
    ) -> list[str]:
        """Return the ssh command line."""
        known = Path(self._directory.name, f"known-{host_key}")
        config = Path(self._directory.name, f"config-{self.box.port}-{key}-{host_key}")
        # Write it only once: another ssh may be reading it.
        if not config.exists():
            known.write_text(f"{self.box.id} {self._keys.public(host_key)}\n")
            config.write_text(
                f"Host box\n"
                f"HostName {self.box.host}\n"
                f"Port {self.box.port}\n"
                f"User {self.box.user}\n"
                f"HostKeyAlias {self.box.id}\n"
                f"IdentityFile {self._keys.directory / key}\n"
                f"IdentitiesOnly yes\n"
                f"UserKnownHostsFile {known}\n"
                f"GlobalKnownHostsFile /dev/null\n"
                f"StrictHostKeyChecking yes\n"
                f"BatchMode yes\n"
                f"ConnectTimeout 30\n"
                f"LogLevel ERROR\n"
                f"ControlPath {self.control}\n"
            )
        tail = [command] if command else []
        return ["ssh", "-F", str(config), *options, "box", *tail]

    def refresh(self) -> Box:
        """Return the present state of the box."""
        box = self.local.get(self.box.id)
        assert box is not None
        return box

    def wait_for(self, state: str) -> Box:
        """Wait until the box is in this state."""
        wait_until(lambda: self.refresh().state == state)
        return self.refresh()

    def close(self) -> None:
        """Close a shared connection and delete the ssh configuration."""
        if self.control.exists():
            self.ssh(options=("-O", "exit"))
        self._directory.cleanup()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true; fail after `TIMEOUT` seconds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
