"""Frames of any size, and the memory that many large ones need."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import onebox
from onebox.agent import protocol

SIZES = [
    0,
    1,
    protocol.LARGE - 1,
    protocol.LARGE,
    protocol.LARGE + 1,
    0,
    protocol.CHUNK + 16,
    7,
]

# Receives large frames, drops 16 at a time, and prints the number of page faults.
MANY = """
import os, resource, sys, threading
from onebox.agent import protocol
from onebox.agent.files import block_hashes

frames = int(sys.argv[1])
near, far = os.pipe()
channel = protocol.Channel(near, far)
held = []

def send():
    payload = bytes(protocol.CHUNK + 16)
    for _ in range(frames):
        channel.send(b"D", payload)

thread = threading.Thread(target=send)
thread.start()
channel.receive()
block_hashes.keep_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(frames - 1):
    held.append(channel.receive()[1])
    if len(held) == 16:
        held.clear()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("cut", [3, 5, 70_001, 1 << 20])
def test_frames_of_any_size_arrive_unchanged(cut: int) -> None:
    """Small and large frames arrive complete and in order, however they are split."""
    small = cut < 10
    frames = [
        (b"DC"[at % 2 : at % 2 + 1], os.urandom(size))
        for at, size in enumerate((SIZES + SIZES[::-1]) * (1 if small else 3))
    ]
    stream = b"".join(
        protocol.HEAD.pack(kind, len(data)) + data for kind, data in frames
    )
    near, far = os.pipe()

    def write() -> None:
        for at in range(0, len(stream), cut):
            piece = memoryview(stream)[at : at + cut]
            while piece:
                piece = piece[os.write(far, piece) :]

    writer = threading.Thread(target=write)
    writer.start()
    channel = protocol.Channel(near, far)
    came = [channel.receive() for _ in frames]
    writer.join()
    assert [(kind, bytes(data)) for kind, data in came] == frames
    assert channel.rest() == b""
    os.close(near)
    os.close(far)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc")
@pytest.mark.slow
def test_a_stream_of_large_frames_reuses_memory() -> None:
    """Each large frame uses the memory pages of an earlier one."""
    count = 400
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(count)],
        cwd=Path(onebox.__file__).parent.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    pages = protocol.CHUNK // os.sysconf("SC_PAGE_SIZE")
    assert int(done.stdout) < count * pages / 4
