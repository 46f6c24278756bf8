"""Boxes behind two ssh servers: OpenSSH's, and the local provider's."""

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

from onebox.agent_bundle import bundle, bytecode
from onebox.providers.local import box_processes
from onebox.providers.local.layout import Layout
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.providers.values import BootConfig, Box, Offer, Tags
from tests.providers.boxes import request_maker
from tests.providers.sshbox import Keys

SSHD = "/usr/sbin/sshd"


class Server:
    """
    A box behind an ssh server.

    Attributes:
        box: The box as its provider describes it.

        home: The home directory of the box; *root* is that of its agent.

        log: The server's log.
    """

    box: Box
    home: Path
    root: Path
    log: Path

    @property
    def work(self) -> Path:
        """The folder for code, data and jobs."""
        return self.home / "work"

    @property
    def pyz(self) -> Path:
        """The bundle of the agent."""
        return self.root / "agent.pyz"

    def at(self, port: int) -> Box:
        """Return the box with another port."""
        return dataclasses.replace(self.box, port=port)

    def refresh(self) -> None:
        """Restore the agent and its box.json, and remove all other changes."""
        for path in (self.work, self.root / "jobs", self.root / "files"):
            shutil.rmtree(path, ignore_errors=True)
        self.work.mkdir()
        self.pyz.write_bytes(bundle())
        left = self.root / "away"
        if left.exists():
            left.rename(self.root / "box.json")

    def close(self) -> None:
        """End the server and all processes of the box."""
        raise NotImplementedError


class OpenSsh(Server):
    """
    The system's sshd, started for each connection as by a super-server.

    It needs no privileges and no free port chosen beforehand, and it does not count
    earlier connections against a new one.
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
        name, code = bytecode()
        (self.root / name).write_bytes(code)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._config = base / "sshd_config"
        self._accepted: list[subprocess.Popen[bytes]] = []
        self._listener: socket.socket | None = None
        port = self.listen()
        me = subprocess.check_output(["id", "-un"], text=True).strip()
        self.box = make_box(port, me, keys, str(self.pyz))
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
        """Open the port, the same as before; return it."""
        port = self.box.port if hasattr(self, "box") else 0
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=[self._listener]).start()
        return int(self._listener.getsockname()[1])

    def shut(self) -> None:
        """Close the port; open connections stay."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """End the server and all processes of the box."""
        self.shut()
        for server in self._accepted:
            server.kill()
            server.wait()
        box_processes.end(lambda: box_processes.marked(self.box.id), grace=0.0)

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
        config = {
            "box": self.box.id,
            "work": str(self.work),
            "home": str(self.home),
            "armed": now,
            "deadline": now + 3600,
            "setup_grace": 600,
            "idle_grace": 600,
            "poweroff": ["true"],
        }
        (self.root / "box.json").write_text(json.dumps(config))


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


def make_box(port: int, user: str, keys: Keys, agent: str) -> Box:
    """Return a box that is reached with these values."""
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
