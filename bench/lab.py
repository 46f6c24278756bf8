"""A box behind a real OpenSSH server on loopback, for onebox and for its peers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from data import empty

from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent_bundle import bundle
from onebox.providers.values import Box, Offer, Tags
from onebox.remote import connection, keys
from onebox.store.identity import owner
from onebox.store.paths import config_dir, state_dir
from onebox.transfer import fetch_outputs, push_files
from onebox.transfer.select import select

SSHD = "/usr/sbin/sshd"
FAST = ("-c", "aes128-gcm@openssh.com")
TOML = """\
project = "bench"

[push]
code = []
data = ["data/"]

[fetch]
outputs = ["results/"]
"""


class Lab:
    """
    A scratch directory with a project, a box, and an ssh server for the box.

    Attributes:
        project: The project folder.

        data: The folder that is pushed.

        results: The folder that outputs are fetched to.

        home: The home directory of the box; `work` is in it.

        peers: The folder that peers copy to.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.project = base / "project"
        self.data = self.project / "data"
        self.results = self.project / "results"
        self.home = base / "box" / "home"
        self.work = self.home / "work"
        self.root = base / "box" / "agent"
        self.peers = base / "peers"
        for path in (self.data, self.work, self.root, self.peers):
            path.mkdir(parents=True)
        (self.project / "tasks.py").write_text("from onebox import *\n")
        (self.project / "onebox.toml").write_text(TOML)
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ONEBOX_")},
            "ONEBOX_STATE": str(base / "state"),
            "ONEBOX_IDENTITY": str(base / "identity"),
            "ONEBOX_LOCAL_ROOT": str(base / "local"),
            "BENCH_BOX": str(base / "box.json"),
        }
        (self.root / "agent.pyz").write_bytes(bundle())
        self.ssh_key_file = keys.ssh_key_file(config_dir(self.environ))
        self.box = self._describe()
        self.state = state_dir(self.environ) / "projects" / "bench" / "main"
        self.index = self.state / "index"

    @classmethod
    @contextlib.contextmanager
    def open(cls, need: int) -> Iterator[Lab]:
        """Create the lab, in memory if *need* bytes fit there."""
        with tempfile.TemporaryDirectory(prefix="ob-", dir=_room(need)) as base:
            lab = cls(Path(base).resolve())
            server = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", base + "/sshd_config"],
                stderr=subprocess.DEVNULL,
            )
            try:
                _wait_for(lab.box.port)
                yield lab
            finally:
                server.terminate()
                server.wait()

    @contextlib.contextmanager
    def ours(self, port: int | None = None) -> Iterator[Ours]:
        """Yield onebox's stages, over a connection to the box or to another port."""
        box = dataclasses.replace(self.box, port=port or self.box.port)
        self._publish(box)
        ssh = connection.SSHConnection(box, self.state / "ssh", self.ssh_key_file)
        try:
            yield Ours(self, ssh)
        finally:
            ssh.close(force=True)
            self._publish(self.box)

    @contextlib.contextmanager
    def peer(self, port: int | None = None) -> Iterator[Peer]:
        """Yield the commands of a user, over plain ssh to the same machine."""
        with tempfile.TemporaryDirectory(prefix="obp-") as scratch:
            known = Path(scratch, "known")
            known.write_text(f"bench {self.box.host_key}\n")
            config = Path(scratch, "config")
            config.write_text(
                "Host bench\n  HostName 127.0.0.1\n  HostKeyAlias bench\n"
                f"  Port {port or self.box.port}\n  User {self.box.user}\n"
                f"  IdentityFile {self.ssh_key_file}\n  IdentitiesOnly yes\n"
                f"  UserKnownHostsFile {known}\n  BatchMode yes\n"
                f"  ControlPath {scratch}/c\n  LogLevel ERROR\n"
            )
            peer = Peer(config)
            try:
                yield peer
            finally:
                peer.close_master()

    def forget(self) -> None:
        """Remove all traces of earlier transfers."""
        for folder in (self.work, self.root / "files", self.peers, self.results):
            empty(folder)
        empty(self.project / ".onebox")
        self.index.unlink(missing_ok=True)

    def inv(self, *words: str) -> list[str]:
        """Return an `inv` command line that uses the bench's box."""
        return [sys.executable, str(Path(__file__).with_name("inv.py")), *words]

    def run_inv(self, *words: str) -> None:
        """Run such a command line."""
        done = subprocess.run(
            self.inv(*words),
            cwd=self.project,
            env=self.environ,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            raise SystemExit(f"inv {shlex.join(words)}: {done.stderr.decode()}")

    def _describe(self) -> Box:
        key = self.base / "hostkey"
        new = keys.new_host_key(config_dir(self.environ))
        key.touch(mode=0o600)
        key.write_text(new.private)
        allowed = self.base / "authorized_keys"
        allowed.write_text(keys.public_half(self.ssh_key_file) + "\n")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        port = _free_port()
        (self.base / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {key}\n"
            f"AuthorizedKeysFile {allowed}\nStrictModes no\nUsePAM no\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n"
            f'SetEnv HOME="{self.home}"\n'
        )
        now = time.time()
        description = {
            "box": "ob-bench",
            "work": str(self.work),
            "home": str(self.home),
            "armed": now,
            "deadline": now + 86400,
            "setup_grace": 86400,
            "idle_grace": 86400,
            "poweroff": ["true"],
        }
        (self.root / "box.json").write_text(json.dumps(description))
        me = subprocess.check_output(["id", "-un"], text=True).strip()
        box = Box(
            id="ob-bench",
            tags=Tags(
                owner(config_dir(self.environ)), "bench", "main", now + 86400, "1"
            ),
            state="running",
            offer=Offer("small", "bench", 1, 1 << 30, 0.0, 0.0),
            image="",
            place="here",
            host="127.0.0.1",
            port=port,
            user=me,
            host_key=new.public,
            created=now,
            deadline=now + 86400,
            agent=str(self.root / "agent.pyz"),
        )
        self._publish(box)
        return box

    def _publish(self, box: Box) -> None:
        (self.base / "box.json").write_text(json.dumps(dataclasses.asdict(box)))


class Ours:
    """onebox's stages, over a connection that stays open as in a chain."""

    def __init__(self, lab: Lab, ssh: connection.SSHConnection) -> None:
        self._lab = lab
        self._ssh = ssh

    def cool(self) -> None:
        """Close the connection."""
        self._ssh.close(force=True)

    def warm(self) -> None:
        """Open the connection."""
        self._ssh.channel()

    def push(self) -> None:
        """Push as the push stage does."""
        lab = self._lab

        def files(known: Index) -> list[Entry]:
            return select(lab.project, [], ["data/"], ["results/"], known).entries

        self._ssh.call_resuming(
            lambda channel: push_files.push(
                channel, lab.project, files, lab.index, lambda *numbers: None
            ),
            _never,
        )

    def fetch(self) -> None:
        """Fetch as the fetch stage does."""
        lab = self._lab
        self._ssh.call_resuming(
            lambda channel: fetch_outputs.fetch(
                channel,
                ["results/"],
                lab.project,
                lab.project / ".onebox" / "fetched" / "main",
                lambda *numbers: None,
            ),
            _never,
        )


class Peer:
    """The commands that a user would type: ssh, tar and rsync."""

    def __init__(self, config: Path) -> None:
        self.ssh = ["ssh", "-F", str(config)]

    def open_master(self) -> None:
        """Open the connection that the next commands share."""
        subprocess.run(
            [*self.ssh, "-M", "-N", "-f", "-o", "ControlPersist=600", *FAST, "bench"],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def close_master(self) -> None:
        """Close the shared connection, if it is open."""
        subprocess.run(
            [*self.ssh, "-O", "exit", "bench"], capture_output=True, check=False
        )

    def tar_up(
        self, source: Path, target: Path, *options: str, filter: str = ""
    ) -> None:
        """Push with tar; *filter* is a compression program."""
        target.mkdir(parents=True, exist_ok=True)
        pack = f"| {filter}" if filter else ""
        unpack = f"{filter} -d |" if filter else ""
        far = shlex.quote(f"{unpack} tar -C {target} -xf -")
        self._shell(f"tar -C {source} -cf - . {pack} | {self._words(options)} {far}")

    def tar_down(
        self, source: Path, target: Path, *options: str, filter: str = ""
    ) -> None:
        """Fetch with tar; *filter* is a compression program."""
        target.mkdir(parents=True, exist_ok=True)
        pack = f"| {filter}" if filter else ""
        unpack = f"| {filter} -d" if filter else ""
        far = shlex.quote(f"tar -C {source} -cf - . {pack}")
        self._shell(f"{self._words(options)} {far} {unpack} | tar -C {target} -xf -")

    def rsync(self, source: str, target: str, *options: str) -> None:
        """Copy with rsync; one of both paths starts with "bench:"."""
        subprocess.run(
            ["rsync", "-a", *options, "-e", shlex.join(self.ssh), source, target],
            check=True,
        )

    def _words(self, options: Sequence[str]) -> str:
        return shlex.join([*self.ssh, *options, "bench"])

    def _shell(self, line: str) -> None:
        subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], check=True)


@functools.cache
def has(program: str) -> bool:
    """Return whether a program is installed."""
    return shutil.which(program) is not None


def _never(error: Exception, attempt: int) -> None:
    raise error


def _room(need: int) -> str | None:
    memory = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
    if memory.is_dir() and shutil.disk_usage(memory).free > need + (4 << 30):
        return str(memory)
    return None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
