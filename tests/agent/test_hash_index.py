"""The index of hashes: correct or empty after any damage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from tests.agent.streams import OLD, old_file


def test_index_returns_the_hash_of_an_unchanged_file_in_a_later_process(
    tmp_path: Path,
) -> None:
    """A file with unchanged stat values is not read again, also in a later process."""
    file = tmp_path / "f"
    file.write_bytes(b"one")
    os.utime(file, ns=(OLD, OLD))
    index = Index(os.fsencode(tmp_path / "index"))
    scanned = manifest.scan(os.fsencode(tmp_path), [b"f"], index, hashing=True)
    index.save()

    again = Index(os.fsencode(tmp_path / "index"))
    known = manifest.scan(os.fsencode(tmp_path), [b"f"], again, hashing=False)

    assert known.entries == scanned.entries
    assert known.entries[0].sha is not None


@pytest.mark.parametrize("age", [0, 5])
def test_index_does_not_store_a_file_that_was_just_written(
    tmp_path: Path, age: int
) -> None:
    """A file that could change within its timestamp is always read again."""
    file = tmp_path / "f"
    index = Index(os.fsencode(tmp_path / "index"))
    file.write_bytes(b"one")
    st = file.stat()
    moment = st.st_mtime_ns - age * 1_000_000
    os.utime(file, ns=(moment, moment))
    index.put(b"f", file.stat(), b"x" * 32)

    assert index.get(b"f", file.stat()) is None


def test_index_with_a_flipped_byte_returns_no_hash(tmp_path: Path) -> None:
    """One flipped byte invalidates the index; it never returns a wrong hash."""
    file = tmp_path / "index"
    other = tmp_path / "f"
    other.touch()
    os.utime(other, ns=(OLD, OLD))
    index = Index(os.fsencode(file))
    index.put(b"f", other.stat(), b"x" * 32)
    index.save()
    assert Index(os.fsencode(file)).get(b"f", other.stat()) == b"x" * 32

    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(data)

    assert Index(os.fsencode(file)).get(b"f", other.stat()) is None


def test_index_is_appended_to_and_does_not_grow_forever(tmp_path: Path) -> None:
    """Changed rows are appended; the file is rewritten before it doubles."""
    file = os.fsencode(tmp_path / "index")
    old = old_file(tmp_path)
    names = [b"%d" % at for at in range(3000)]
    index = Index(file)
    for name in names:
        index.put(name, old.stat(), b"x" * 32)
    index.save()
    sizes = [(tmp_path / "index").stat().st_size]
    for at in range(20):
        index = Index(file, adding=bool(at % 2))
        for name in names[:500]:
            index.put(name, old.stat(), bytes([at]) * 32)
        index.save()
        sizes.append((tmp_path / "index").stat().st_size)

    again = Index(file)
    assert bytes([19]) * 32 == again.get(names[0], old.stat())
    assert b"x" * 32 == again.get(names[-1], old.stat())
    assert sizes[0] < sizes[1] < 1.3 * sizes[0]
    assert max(sizes) < 3 * sizes[0]


@pytest.mark.parametrize("adding", [False, True])
def test_path_removed_from_the_index_stays_removed(
    tmp_path: Path, *, adding: bool
) -> None:
    """A removed path stays removed, although the file still has its old row."""
    file = os.fsencode(tmp_path / "index")
    old = old_file(tmp_path)
    st = old.stat()
    index = Index(file)
    for name in (b"kept", b"young"):
        index.put(name, st, b"x" * 32)
    index.save()
    index = Index(file, adding=adding)
    old.touch()
    index.put(b"young", old.stat(), b"x" * 32)
    index.save()

    again = Index(file)
    assert again.get(b"kept", st)
    assert again.get(b"young", st) is None


def test_index_drops_outdated_block_hashes(tmp_path: Path) -> None:
    """Replaced block hashes do not accumulate in the file."""
    file = os.fsencode(tmp_path / "index")
    old = old_file(tmp_path)
    for at in range(40):
        index = Index(file)
        index.put(b"f", old.stat(), bytes([at]) * 32, os.urandom(640_000))
        index.save()
        assert (tmp_path / "index").stat().st_size < 4 * 640_000


def test_index_that_cannot_be_written_is_ignored(tmp_path: Path) -> None:
    """An index that cannot be saved, on a full disk, raises no error."""
    old = old_file(tmp_path)
    for adding in (False, True):
        index = Index(os.fsencode(tmp_path / "none" / "index"), adding=adding)
        index.put(b"f", old.stat(), b"x" * 32)
        index.save()


def test_damaged_index_is_rewritten(tmp_path: Path) -> None:
    """Rows appended after a damaged index was loaded and saved are found again."""
    file = tmp_path / "index"
    old = old_file(tmp_path)
    file.write_bytes(b"onebox index 2\nwhatever")
    for damage in (b"", b"half a part"):
        with file.open("ab") as more:
            more.write(damage)
        Index(os.fsencode(file)).save()
        index = Index(os.fsencode(file), adding=True)
        index.put(b"f", old.stat(), b"x" * 32)
        index.save()
        assert b"x" * 32 == Index(os.fsencode(file)).get(b"f", old.stat())


def test_two_processes_can_append_to_an_index(tmp_path: Path) -> None:
    """All rows that two processes append at the same time are found."""
    file = os.fsencode(tmp_path / "index")
    old = old_file(tmp_path)
    Index(file).save()
    code = """
import os, sys
from onebox.agent.files.hash_index import Index
file, who, path = map(os.fsencode, sys.argv[1:])
st = os.stat(path)
for at in range(100):
    index = Index(file, adding=True)
    for n in range(20):
        index.put(who + b"%d-%d" % (at, n), st, b"x" * 32)
    index.save()
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "index")]
    index = Index(file)
    index.put(b"first", old.stat(), b"x" * 32)
    index.save()
    both = [subprocess.Popen([*command, who, str(old)], env=env) for who in "ab"]
    assert [0, 0] == [one.wait() for one in both]

    index = Index(file)
    names = [b"%c%d-%d" % (who, at, 19) for who in b"ab" for at in range(100)]
    assert all(index.get(name, old.stat()) for name in names)


def test_index_cut_anywhere_keeps_its_earlier_rows(tmp_path: Path) -> None:
    """Rows before the last batch are loaded, and the next save repairs the file."""
    file = os.fsencode(tmp_path / "index")
    old = old_file(tmp_path)
    st = old.stat()
    index = Index(file)
    index.put(b"one", st, b"1" * 32)
    index.save()
    whole = (tmp_path / "index").stat().st_size
    index.put(b"one", st, b"2" * 32)
    index.save()
    data = (tmp_path / "index").read_bytes()
    for end in range(whole, len(data)):
        (tmp_path / "index").write_bytes(data[:end])
        index = Index(file)
        assert b"1" * 32 == index.get(b"one", st)
        index.put(b"two", st, b"3" * 32)
        index.save()
        again = Index(file)
        assert (b"1" * 32, b"3" * 32) == (again.get(b"one", st), again.get(b"two", st))
