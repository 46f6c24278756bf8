"""Two ssh servers with a box behind each: OpenSSH's own, and the local provider's."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from onebox.providers.base import BootConfig, Box, Offer, Tags
from onebox.providers.local import processes
from onebox.providers.local.layout import Layout
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.remote.agent_bundle import bundle

from ..providers.boxes import request_maker
from ..providers.sshbox import Keys

SSHD = "/usr/sbin/sshd"


class Server:
    """
    A box that answers at *box*, as long as *listening* says so.

    *home* and *root* are its home directory and its agent's, *log* is what the
    server says while it runs.
    """

    box: Box
    home: Path
    root: Path
    log: Path

    @property
    def work(self) -> Path:
        """Where code and data go and jobs run."""
        return self.home / "work"

    @property
    def pyz(self) -> Path:
        """The agent."""
        return self.root / "agent.pyz"

    def at(self, port: int) -> Box:
        """Return the box as it is reached through another port."""
        return dataclasses.replace(self.box, port=port)

    def refresh(self) -> None:
        """Put agent and description back, and remove what was done to the box."""
        for path in (self.work, self.root / "jobs", self.root / "files"):
            shutil.rmtree(path, ignore_errors=True)
        self.work.mkdir()
        self.pyz.write_bytes(bundle())
        left = self.root / "away"
        if left.exists():
            left.rename(self.root / "box.json")

    def close(self) -> None:
        """End the server and whatever runs in the box."""
        raise NotImplementedError


class OpenSsh(Server):
    """
    The system's sshd, started for each connection as a super-server would.

    It needs no privileges, no free port guessed beforehand, and has no memory
    of earlier connections that it might hold against the next one.
    """

    def __init__(self, base: Path, keys: Keys) -> None:
        self.home = base / "home"
        self.root = base / "agent root"
        self.log = base / "log"
        self.bin = base / "bin"
        for path in (self.work, self.root, self.bin):
            path.mkdir(parents=True)
        self.log.touch()
        for name in ("sh", "bash", "sleep", "cat", "env"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        (self.bin / "python3").symlink_to(sys.executable)
        self.pyz.write_bytes(bundle())
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._config = base / "sshd_config"
        self._accepted: list[subprocess.Popen[bytes]] = []
        self._listener: socket.socket | None = None
        port = self.listen()
        me = subprocess.check_output(["id", "-un"], text=True).strip()
        self.box = a_box(port, me, keys, str(self.pyz))
        self._describe()
        keys_file = base / "authorized_keys"
        keys_file.write_text(keys.public("user") + "\n")
        self._config.write_text(
            f"HostKey {keys.directory / 'host'}\n"
            f'AuthorizedKeysFile "{keys_file}"\n'
            "StrictModes no\n"
            "UsePAM no\n"
            "PermitUserRC no\n"
            "PermitRootLogin yes\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "PidFile none\n"
            "LogLevel DEBUG1\n"
            f'SetEnv HOME="{self.home}" PATH="{self.bin}" ONEBOX_BOX={self.box.id}\n'
        )

    def listen(self) -> int:
        """Open the port, the same as before if there was one; return it."""
        port = self.box.port if hasattr(self, "box") else 0
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=[self._listener]).start()
        return int(self._listener.getsockname()[1])

    def shut(self) -> None:
        """Close the port; connections that there are stay."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """End the server and whatever runs in the box."""
        self.shut()
        for server in self._accepted:
            server.kill()
            server.wait()
        processes.end(lambda: processes.marked(self.box.id), grace=0.0)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                self._accepted.append(
                    subprocess.Popen(
                        [SSHD, "-i", "-E", str(self.log), "-f", str(self._config)],
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=subprocess.DEVNULL,
                    )
                )

    def _describe(self) -> None:
        now = time.time()
        told = {
            "box": self.box.id,
            "work": str(self.work),
            "home": str(self.home),
            "armed": now,
            "deadline": now + 3600,
            "setup_grace": 600,
            "idle_grace": 600,
            "poweroff": ["true"],
        }
        (self.root / "box.json").write_text(json.dumps(told))


class Embedded(Server):
    """The local provider's own server."""

    def __init__(self, base: Path, keys: Keys) -> None:
        self._local = Local(LocalSettings(), base / "root")
        boot_config = BootConfig(time.time() + 3600, 600, 600, bundle())
        self.box = self._local.create(request_maker(keys)(boot_config=boot_config))
        layout = Layout(Path(self.box.agent).parents[2])
        self.home, self.root, self.log = layout.home, layout.agent, layout.log

    def close(self) -> None:
        """Remove the box."""
        self._local.delete(self.box)


def a_box(port: int, user: str, keys: Keys, agent: str) -> Box:
    """Return a box that is reached by these."""
    return Box(
        id=f"ob-{secrets.token_hex(5)}",
        tags=Tags("owner", "project", "main", time.time() + 3600, "0"),
        state="running",
        offer=Offer("small", "this machine", 1, 1 << 30, 0.0, 0.0),
        image="",
        place="this machine",
        host="127.0.0.1",
        port=port,
        user=user,
        host_key=keys.public("host"),
        created=time.time(),
        deadline=time.time() + 3600,
        agent=agent,
    )
