"""What a box sends is bounded, and so is the time that is waited for it."""

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
from tests.fakes.agent_box import AgentBox, until
from tests.remote.steps import quiet

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
def channel_to(code: str) -> Iterator[AgentChannel]:
    """Connect to a program that takes the place of an agent."""
    with AgentChannel([sys.executable, "-c", code]) as link:
        yield link
        link.process.kill()


def test_fetch_and_push_fail_if_the_agent_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that hangs does not block a fetch or a push forever."""
    monkeypatch.setattr(links, "SILENCE_SECONDS", 0.5)
    (tmp_path / "file").write_bytes(b"x")
    with channel_to(HANGS) as link, pytest.raises(Silent, match="does not answer"):
        fetch_outputs.fetch(
            link, ["out"], tmp_path / "into", tmp_path / "memory", quiet
        )
    with channel_to(HANGS) as link, pytest.raises(Silent, match="does not answer"):
        push_files.push(link, tmp_path, [b"file"], tmp_path / "index", quiet)


def test_write_fails_if_the_agent_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write to an agent that does not read ends."""
    monkeypatch.setattr(links, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(links, "PING_SECONDS", 0.1)
    with channel_to(HANGS) as link:
        link.begin("push")
        with pytest.raises(Silent, match="does not read"):
            link.send(b"D", bytes(8 << 20))


def test_working_agent_sends_signs_of_life(agent_box: AgentBox) -> None:
    """
    An agent that works on a request sends empty frames, so that the client waits
    on.
    """
    with agent_box.connect() as link:
        shell = "trap '' TERM; echo ignores it; sleep 600"
        link.request("start", job="j1", shell=shell, cancel_grace=12)
        until(lambda: link.request("job")["log_bytes"])
        link.begin("cancel", job="j1")
        kinds = [kind for kind, _ in link.frames(beats=True)]

    assert [b"P", b"A"] == kinds


def test_endless_list_of_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of files is bounded: the box is kept, and memory stays limited."""
    monkeypatch.setattr(manifest_exchange, "MOST_ROWS", 10_000)
    with (
        channel_to(ENDLESS) as link,
        pytest.raises(OutputsHeld, match="more than 10000 files"),
    ):
        fetch_outputs.fetch(
            link, ["out"], tmp_path / "into", tmp_path / "memory", quiet
        )
    assert [] == list((tmp_path / "into").iterdir())


def test_too_many_empty_frames_are_refused() -> None:
    """Empty frames are accepted as signs of life only up to a limit."""
    code = "import sys\nwhile True: sys.stdout.buffer.write(b'P\\0\\0\\0\\0' * 1000)"
    with (
        channel_to(code) as link,
        pytest.raises(ProtocolError, match="too many empty frames"),
    ):
        link.request("hello")
