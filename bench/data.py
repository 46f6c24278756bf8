"""Create files to transfer, random or half compressible, and change them."""

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
    """Create one incompressible file."""
    folder.mkdir(parents=True)
    with (folder / "big.bin").open("wb") as file:
        left = size
        while left:
            left -= file.write(os.urandom(min(MIB, left)))
    age(folder)


def many_files(folder: Path, count: int, size: int, *, half: bool = False) -> None:
    """Create many files in folders of 100; with *half*, half of each is text."""
    source = random.Random(count)  # noqa: S311 - not for security
    for at in range(count):
        path = folder / f"d{at // 100:03}" / f"file{at:05}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = source.randbytes(size // 2 if half else size)
        if half:
            text = b" ".join(source.choices(WORDS, k=size // 8))
            data += text[: size - len(data)].ljust(size - len(data), b".")
        path.write_bytes(data)
    age(folder)


def change_some(folder: Path, count: int) -> None:
    """Change *count* of the files, evenly spread."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files[:: len(files) // count][:count]:
        data = os.urandom(path.stat().st_size)
        path.write_bytes(data)
    age(folder)


def change_middle(folder: Path, size: int) -> None:
    """Change *size* bytes in the middle of the one file."""
    with (folder / "big.bin").open("r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 2 + 12345)
        file.write(os.urandom(size))
    age(folder)


def age(folder: Path) -> None:
    """
    Set the times of new files to a minute ago.

    No tool trusts the mtime of a file that was just written, because it may be written
    again within one tick of the clock. A user's files are older.
    """
    now = time.time_ns()
    for path in folder.rglob("*"):
        if path.stat().st_mtime_ns > now - MINUTE:
            os.utime(path, ns=(now, now - MINUTE - 1))


def empty(folder: Path) -> None:
    """Remove everything in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def same(one: Path, other: Path) -> bool:
    """Return whether two folders have the same files."""
    return _sums(one) == _sums(other)


def _sums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in folder.rglob("*"):
        if path.is_file():
            whole = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(MIB):
                    whole.update(block)
            sums[str(path.relative_to(folder))] = whole.hexdigest()
    return sums
