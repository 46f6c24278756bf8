"""The stream of file contents: complete files are placed, all others are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.agent.file_names import Hostile
from onebox.agent.files.content_stream import FileOffer
from onebox.agent.files.receiver import Receiver
from tests.agent.streams import receive, scan_files, sent_frames, transfer


def test_transfer_keeps_contents_and_holes(tmp_path: Path) -> None:
    """Files of all sizes arrive byte for byte, and holes stay holes."""
    source = tmp_path / "source"
    source.mkdir()
    for size in (0, 1, 262_143, 262_144, 262_145, 5_000_000):
        (source / f"{size}").write_bytes(os.urandom(size))
    with (source / "sparse").open("wb") as file:
        file.seek(30 << 20)
        file.write(b"middle")
        file.truncate(60 << 20)
    entries = scan_files(source)

    came = transfer(source, tmp_path / "staging", map(FileOffer, entries))

    for entry in entries:
        name = os.fsdecode(entry.path)
        assert came[entry.path].read_bytes() == (source / name).read_bytes()
    assert came[b"sparse"].stat().st_blocks * 512 < 1 << 20


def test_file_that_changed_after_its_announcement_is_not_placed(tmp_path: Path) -> None:
    """
    A file that no longer matches its announcement is sent as a refusal, not as
    data.
    """
    for size in (100, 300_000):
        (tmp_path / f"{size}").write_bytes(bytes(size))
    offers = [FileOffer(entry) for entry in scan_files(tmp_path)]
    (tmp_path / "100").write_bytes(b"other")
    (tmp_path / "300000").unlink()
    receiver = Receiver(os.fsencode(tmp_path / "staging"))

    receive(receiver, list(sent_frames(tmp_path, offers)), offers)

    assert sorted(receiver.bad) == [b"100", b"300000"]


def test_content_with_a_wrong_hash_is_dropped(tmp_path: Path) -> None:
    """Content whose hash differs from its trailer is dropped."""
    (tmp_path / "f").write_bytes(bytes(1000))
    offers = [FileOffer(entry) for entry in scan_files(tmp_path)]
    data = bytearray(b"".join(sent_frames(tmp_path, offers)))
    data[500] ^= 1
    receiver = Receiver(os.fsencode(tmp_path / "staging"))

    landed = receive(receiver, [bytes(data)], offers)

    assert not landed
    assert receiver.bad == [b"f"]


def test_ctrl_c_at_the_start_of_a_hash_thread_ends_the_process() -> None:
    """A signal right after the start of a hash thread ends the process."""
    code = """
import signal, threading
from onebox.agent.files.block_hashes import HashSum
from onebox.agent.files.block_hashes import Hasher

class Thread(threading.Thread):
    def start(self):
        super().start()
        signal.raise_signal(signal.SIGINT)

# It is ignored if a shell runs the tests in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread = Thread
Hasher(HashSum(0), threaded=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )
    assert b"KeyboardInterrupt" in done.stderr


def test_stream_with_a_record_that_was_not_requested_is_refused(tmp_path: Path) -> None:
    """A record for another path, or a second one for the same path, ends the stream."""
    (tmp_path / "f").write_bytes(b"x")
    offers = [FileOffer(entry) for entry in scan_files(tmp_path)]
    frames = list(sent_frames(tmp_path, offers))

    with pytest.raises(Hostile, match="not asked for"):
        receive(Receiver(os.fsencode(tmp_path / "s")), frames, [])
    with pytest.raises(Hostile, match="not asked for"):
        receive(Receiver(os.fsencode(tmp_path / "s")), frames * 2, offers)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_damaged_stream_is_refused_or_dropped(at: int, junk: bytes) -> None:
    """Damaged bytes in a stream raise Hostile or drop the file; they never place it."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for size in (10, 5000, 3000):
            (base / f"{size}").write_bytes(os.urandom(size))
        offers = [FileOffer(entry) for entry in scan_files(base)]
        data = b"".join(sent_frames(base, offers))
        at %= len(data)
        data = data[:at] + junk + data[at + len(junk) :]
        receiver = Receiver(os.fsencode(base / "staging"))
        try:
            landed = receive(receiver, [data], offers)
        except Hostile:
            landed = []
        receiver.close()

        for one in landed:
            assert one.entry in [
                entry._replace(sha=one.entry.sha) for entry in scan_files(base)
            ]


def test_interrupted_large_file_resumes_and_a_damaged_partial_starts_over(
    tmp_path: Path,
) -> None:
    """After a break a large file resumes; a damaged partial file is sent again."""
    (tmp_path / "big").write_bytes(os.urandom(12 << 20))
    offers = [FileOffer(entry) for entry in scan_files(tmp_path)]
    frames = list(sent_frames(tmp_path, offers))
    staging = os.fsencode(tmp_path / "staging")
    half = len(frames) // 2
    with pytest.raises(Hostile, match="ends within"):
        receive(Receiver(staging), frames[:half], offers)

    again = Receiver(staging)
    resumed = [again.offer(offer.entry) for offer in offers]
    rest = list(sent_frames(tmp_path, resumed))
    landed = receive(again, rest, resumed)

    assert resumed[0].offset > 4 << 20
    assert sum(map(len, rest)) < 8 << 20
    assert len(landed) == 1

    partial = next((tmp_path / "staging").iterdir())
    with partial.open("r+b") as file:
        file.truncate(6 << 20)
        file.write(b"wrong")
    third = Receiver(staging)
    spoilt = [third.offer(offer.entry) for offer in offers]

    assert len(receive(third, list(sent_frames(tmp_path, spoilt)), spoilt)) == 1
    assert partial.read_bytes() == (tmp_path / "big").read_bytes()
