"""What a box sends has an end, and so has the time that it is waited for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onebox.agent.files import manifest_exchange
from onebox.errors import OutputsHeld, ProtocolError
from onebox.remote import channel as links
from onebox.remote.channel import AgentChannel, Silent
from onebox.transfer import fetch_outputs, push_files

from .conftest import AgentBox

# An agent that hangs: it takes a request and neither answers nor reads on.
HANGS = "import os, time; os.read(0, 5); time.sleep(600)"
# One that sends a list of files without an end, in order.
ENDLESS = """
import json, struct, sys, zlib
pack, count = zlib.compressobj(1), 0
while True:
    rows = [["out/%015d" % (count + n), "f", 420, 1, 1, "", None] for n in range(256)]
    count += 256
    data = pack.compress(json.dumps(rows).encode() + b"\\n")
    data += pack.flush(zlib.Z_SYNC_FLUSH)
    sys.stdout.buffer.write(struct.pack(">cI", b"D", len(data)) + data)
"""


@contextmanager
def program(code: str) -> Iterator[AgentChannel]:
    """Give a connection to a program in the place of an agent."""
    with AgentChannel([sys.executable, "-c", code]) as link:
        yield link
        link.process.kill()


def quiet(*numbers: int) -> None:
    """Show no progress."""


def test_silent_agent_is_left_in_scan_and_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that hangs holds neither fetch nor push for ever."""
    monkeypatch.setattr(links, "SILENCE_SECONDS", 0.5)
    (tmp_path / "file").write_bytes(b"x")
    with program(HANGS) as link, pytest.raises(Silent, match="does not answer"):
        fetch_outputs.fetch(
            link, ["out"], tmp_path / "into", tmp_path / "memory", quiet
        )
    with program(HANGS) as link, pytest.raises(Silent, match="does not answer"):
        push_files.push(link, tmp_path, [b"file"], tmp_path / "index", quiet)


def test_agent_that_reads_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that nobody reads ends, too."""
    monkeypatch.setattr(links, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(links, "PING_SECONDS", 0.1)
    with program(HANGS) as link:
        link.begin("push")
        with pytest.raises(Silent, match="does not read"):
            link.send(b"D", bytes(8 << 20))


def test_agent_at_work_is_not_silent(agent_box: AgentBox) -> None:
    """
    A real agent says that it is still at work: who waits for it does not give up.
    """
    with agent_box.link() as link:
        link.request(
            "start", job="j1", shell="trap '' TERM; sleep 600", cancel_grace=12
        )
        link.begin("cancel", job="j1")
        kinds = [kind for kind, _ in link.frames(beats=True)]

    assert [b"P", b"A"] == kinds


def test_endless_list_of_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of files has a bound: the box is kept, and this machine's memory too."""
    monkeypatch.setattr(manifest_exchange, "MOST_ROWS", 10_000)
    with (
        program(ENDLESS) as link,
        pytest.raises(OutputsHeld, match="more than 10000 files"),
    ):
        fetch_outputs.fetch(
            link, ["out"], tmp_path / "into", tmp_path / "memory", quiet
        )
    assert [] == list((tmp_path / "into").iterdir())


def test_frames_of_nothing_without_an_end_are_refused() -> None:
    """Frames that bring nothing are no sign of life without an end."""
    code = "import sys\nwhile True: sys.stdout.buffer.write(b'P\\0\\0\\0\\0' * 1000)"
    with (
        program(code) as link,
        pytest.raises(ProtocolError, match="too many empty frames"),
    ):
        link.request("hello")
