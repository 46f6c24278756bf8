"""Files to move: random ones, half compressible ones, and changes to them."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from pathlib import Path

MIB = 1 << 20
MINUTE = 60_000_000_000
WORDS = b"the quick brown fox jumps over the lazy dog 0123456789 lorem ipsum ".split()


def one_file(folder: Path, size: int) -> None:
    """Make one file that nothing can compress."""
    folder.mkdir(parents=True)
    with (folder / "big.bin").open("wb") as file:
        left = size
        while left:
            left -= file.write(os.urandom(min(MIB, left)))
    settle(folder)


def many_files(folder: Path, count: int, size: int, *, half: bool = False) -> None:
    """Make many files in folders of 100; *half* of each is text, or nothing."""
    source = random.Random(count)  # noqa: S311 - any bytes will do
    for at in range(count):
        path = folder / f"d{at // 100:03}" / f"file{at:05}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = source.randbytes(size // 2 if half else size)
        if half:
            text = b" ".join(source.choices(WORDS, k=size // 8))
            data += text[: size - len(data)].ljust(size - len(data), b".")
        path.write_bytes(data)
    settle(folder)


def change_some(folder: Path, count: int) -> None:
    """Change that many of the files, spread over all of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files[:: len(files) // count][:count]:
        data = os.urandom(path.stat().st_size)
        path.write_bytes(data)
    settle(folder)


def change_middle(folder: Path, size: int) -> None:
    """Change a part in the middle of the one file."""
    with (folder / "big.bin").open("r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 2 + 12345)
        file.write(os.urandom(size))
    settle(folder)


def settle(folder: Path) -> None:
    """
    Let new files look a minute old.

    What has just been written may be written again within one tick of the
    clock, so no tool trusts its time; a user's files are older than that.
    """
    now = time.time_ns()
    for path in folder.rglob("*"):
        if path.stat().st_mtime_ns > now - MINUTE:
            os.utime(path, ns=(now, now - MINUTE - 1))


def empty(folder: Path) -> None:
    """Remove all that is in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def same(one: Path, other: Path) -> bool:
    """Tell whether two folders hold the same files."""
    return _sums(one) == _sums(other)


def _sums(folder: Path) -> dict[str, str]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            whole = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(MIB):
                    whole.update(block)
            found[str(path.relative_to(folder))] = whole.hexdigest()
    return found
