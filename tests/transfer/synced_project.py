"""A project, its box, and files that are hard to transfer."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onebox.agent import protocol
from onebox.agent.files import manifest, manifest_exchange
from onebox.errors import OutputsHeld
from onebox.remote.channel import AgentChannel
from onebox.transfer import fetch_outputs, push_files, verify_outputs
from tests.fakes import batcher, cutter
from tests.fakes.agent_box import AgentBox
from tests.remote.steps import quiet

LARGE = 12 << 20


class SyncedProject:
    """A project folder, its box, and the client's state between transfers."""

    def __init__(self, base: Path, box: AgentBox) -> None:
        self.root = base / "project"
        self.root.mkdir()
        self.box = box
        self.index = base / "state" / "index"
        self.memory = base / "memory"

    def write(self, name: str, data: bytes = b"x", mode: int = 0o644) -> Path:
        """Write a local file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def paths(self) -> list[bytes]:
        """Return all local paths."""
        return sorted(manifest.below(os.fsencode(self.root), b""))

    def push(self, link: AgentChannel | None = None) -> push_files.Pushed:
        """Push all local files."""
        with contextlib.ExitStack() as stack:
            used = link or stack.enter_context(self.box.connect())
            return push_files.push(used, self.root, self.paths(), self.index, quiet)

    def difference(self) -> str | None:
        """Return the reason for a push, or None."""
        with self.box.connect() as link:
            found = push_files.difference(link, self.root, self.paths(), self.index)
        return found.describe() or None

    def fetch(
        self, *roots: str, link: AgentChannel | None = None, **how: Any
    ) -> fetch_outputs.Fetched:
        """Fetch the outputs into the project."""
        with contextlib.ExitStack() as stack:
            used = link or stack.enter_context(self.box.connect())
            how.setdefault("into_project", True)
            return fetch_outputs.fetch(
                used, roots or ("out",), self.root, self.memory, quiet, **how
            )

    def verify(self) -> str | None:
        """Return whether the outputs are here, or why not."""
        with self.box.connect() as link:
            return verify_outputs.verify(
                link, ["out"], self.root, self.memory, into_project=True
            ).missing

    def job(self, name: str, data: bytes = b"result") -> Path:
        """Write a file on the box, as a job does."""
        path = self.box.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def connect_with_cut(self, direction: str, limit: int) -> AgentChannel:
        """Return a channel that breaks after *limit* bytes in a direction."""
        command = [sys.executable, cutter.__file__, direction, str(limit)]
        return AgentChannel([*command, *self.box.command("serve")])

    def connect_in_batches(self, *, beats: bool) -> AgentChannel:
        """Return a channel on which frames of the agent arrive together."""
        command = [sys.executable, batcher.__file__, "beats" if beats else ""]
        return AgentChannel([*command, *self.box.command("serve")])


def refused(why: str) -> contextlib.AbstractContextManager[object]:
    """Expect that the box is kept, for this reason."""
    return pytest.raises(OutputsHeld, match=why)


def make_old(path: Path) -> Path:
    """Set the times of a file to long ago."""
    os.utime(path, ns=(10**18, 10**18))
    return path


def sha256(data: bytes) -> bytes:
    """Return the hash of some bytes."""
    import hashlib

    return hashlib.sha256(data).digest()


def snapshot(base: Path) -> dict[bytes, tuple[int, bytes]]:
    """Return mode and contents of all paths in a folder."""
    raw = os.fsencode(base)
    found = {}
    for path in manifest.below(raw, b""):
        full = raw + b"/" + path
        mode = os.lstat(full).st_mode
        data = b""
        if stat.S_ISLNK(mode):
            mode, data = stat.S_IFLNK, os.readlink(full)  # noqa: PTH115 -- bytes
        elif stat.S_ISREG(mode):
            with open(full, "rb") as file:  # noqa: PTH123 -- bytes
                data = file.read()
        found[path] = (mode, data)
    return found


def write_new_versions(root: Path, chance: random.Random) -> dict[str, list[bytes]]:
    """Rewrite small files and a large one; return both versions of each."""
    versions: dict[str, list[bytes]] = {}
    root.mkdir(parents=True, exist_ok=True)
    for name in [*(f"d{n % 3}/f{n}" for n in range(20)), "big"]:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        size = 9 << 20 if name == "big" else chance.randrange(40_000)
        old = [path.read_bytes()] if path.exists() else []
        data = chance.randbytes(size)
        path.write_bytes(data)
        versions[name] = [*old, data]
    return versions


def hostile_names(count: int) -> list[bytes]:
    """Return names that have broken other tools."""
    chance = random.Random(3)
    special = [
        *[b"-rf", b" ", b"a b", b"\n", b"a\nb", b"'", b'"', b"\\", b"$HOME", b"`id`"],
        *[b"*", b"?", b"[a]", b"~", b"#x", b"%s", b"\x7f", b"\x01\x02", b"\xff\xfe"],
        *["é".encode(), "e\u0301".encode(), "日本".encode(), "🦆".encode(), b"..."],
        *[b"x" * 255, b"\xff" * 255, b"--", b"..x", b"a\r", b"\t", b"\x1b[2J", b".a"],
    ]
    names = set(special)
    letters = [bytes([number]) for number in range(1, 256) if number != ord("/")]
    while len(names) < count:
        names.add(b"".join(chance.choices(letters, k=chance.randrange(1, 256))))
    return sorted(names - {b".", b".."})


@contextlib.contextmanager
def keep_changing(path: Path) -> Iterator[None]:
    """Keep writing to a file that takes longer to read than the retries last."""
    stop = threading.Event()
    path.write_bytes(bytes(64 << 20))

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.001):
                file.write(secrets.token_bytes(100))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def hostile_box(
    project: SyncedProject, rows: list[list[object]], stream: list[bytes]
) -> Iterator[AgentChannel]:
    """
    Return a box that answers a scan with these rows, and a request with this
    stream.
    """
    frames: list[tuple[bytes, bytes]] = []
    manifest_exchange.send_rows(
        lambda kind, payload: frames.append((kind, payload)), rows
    )
    values: dict[str, list[str]] = {
        "parts": [],
        "missing": [],
        "special": [],
        "unreadable": [],
        "unstable": [],
    }
    frames.append((b"A", protocol.dumps(values)))
    frames += [*((b"D", payload) for payload in stream), (b"Z", b"")]
    frames.append((b"A", b"{}"))
    script = project.box.root / "answers"
    script.write_bytes(
        b"".join(protocol.HEAD.pack(kind, len(data)) + data for kind, data in frames)
    )
    code = (
        "import shutil, sys\n"
        "shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)\n"
        "sys.stdout.flush(); sys.stdin.buffer.read()"
    )
    with AgentChannel([sys.executable, "-c", code, str(script)]) as link:
        yield link
