"""Steps over an ssh connection that several tests share."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox.providers.values import Box
from onebox.remote import connection
from onebox.remote.channel import AgentChannel
from tests.fakes.sshd import SSHD, make_box
from tests.providers.sshbox import Keys

needs_sshd = pytest.mark.skipif(
    not Path(SSHD).exists(), reason=f"no OpenSSH server: {SSHD} is missing"
)


OpenDoor = Callable[..., connection.SSHConnection]


def never() -> None:
    """Do nothing."""


def quiet(*numbers: int) -> None:
    """Accept progress and print nothing."""


def write_files(root: Path, chance: random.Random, files: int = 60) -> list[bytes]:
    """Write files with odd names and random contents; return their paths."""
    stems = [b"plain", b"a b", b"-dash", b"new\nline", b"\xff\xfe", "é".encode()]
    paths = []
    for number in range(files):
        size = chance.choice([0, 1, 1000, 50_000, 150_000])
        path = b"%s/%s-%d" % (chance.choice(stems), chance.choice(stems), number)
        whole = root / os.fsdecode(path)
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_bytes(chance.randbytes(size))
        whole.chmod(chance.choice([0o644, 0o755]))
        paths.append(path)
    return sorted(paths)


def run(link: AgentChannel, name: str) -> None:
    """Run a job that does nothing, to its end."""
    link.request("start", job=name, argv=["true"])
    assert link.request("follow", job=name, offset=0)["state"] == "exited"


def start_job(ssh: connection.SSHConnection, name: str, line: str) -> None:
    """Start a shell line as a job."""
    ssh.channel().request(
        "start", job=name, shell=line, env={}, secrets={}, outputs=[], cancel_grace=1
    )


def check_master(ssh: connection.SSHConnection) -> str:
    """Return the answer of ssh to the question whether the shared connection is up."""
    done = subprocess.run(
        ssh.argv("-O", "check"), capture_output=True, text=True, check=False
    )
    return done.stderr.strip()


def box_at(port: int, keys: Keys) -> Box:
    """Return a box that has only a port."""
    return make_box(port, "nobody", keys, "/nowhere/agent.pyz")
