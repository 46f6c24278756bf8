"""A secret reaches only its job: a canary is searched for everywhere else."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.world import environ, raw, world

pytestmark = pytest.mark.slow

# Every form of it is its own: nothing else in a URL or in base64 looks like that.
CANARY = f"canary/8271+hush={os.getpid()}"
FORMS = [
    CANARY.encode(),
    urllib.parse.quote(CANARY, safe="").encode(),
    *(base64.b64encode(b" " * n + CANARY.encode())[4:20] for n in range(3)),
]
TOML = """\
[run]
command = "printf %s $TOKEN | sha256sum; sleep 1; mkdir -p results; echo x > results/x"
secrets = ["TOKEN"]

[fetch]
outputs = ["results/"]
"""


def test_secret_reaches_only_its_job() -> None:
    """No argv, no other process's environment, no file and no debug output has it."""
    with world(toml=TOML) as made:
        held: dict[int, str] = {}
        with watch_processes(held):
            done = made.inv("-d", "run", "--keep", env={"TOKEN": CANARY})
            assert not done.code, done.err
            made.inv("-d", "status")
            made.inv("-d", "fetch")
        printed = "".join(made.printed) + done.out
        assert any("the job" in what for what in held.values())
        others = [what for what in held.values() if "the job" not in what]
        assert [what for what in others if " -m invoke " not in what] == []
        assert not any(form in printed.encode() for form in FORMS)
        home = made.project.home
        # Not its pipes: reading those waits for a writer.
        files = [path for path in home.rglob("*") if path.is_file()]
        assert [p for p in files if any(form in raw(p) for form in FORMS)] == []


@contextlib.contextmanager
def watch_processes(held: dict[int, str]) -> Iterator[None]:
    """Record which processes have the secret in their argv or environment."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for pid in (int(p.name) for p in Path("/proc").glob("[0-9]*")):
                around, words = environment_and_argv(pid)
                if any(form in words for form in FORMS):
                    held[pid] = f"in argv: {words!r}"
                elif any(form in around for form in FORMS):
                    job = "the job " if b"\0ONEBOX_JOB=" in b"\0" + around else ""
                    held[pid] = job + words.replace(b"\0", b" ").decode()
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def environment_and_argv(pid: int) -> tuple[bytes, bytes]:
    """Return a process's environment and argv, both of the same program."""
    path = Path(f"/proc/{pid}/cmdline")
    words = raw(path)
    while True:
        # In between it may become another program, with another environment.
        around, now = environ(pid), raw(path)
        if now == words:
            return around, words
        words = now
