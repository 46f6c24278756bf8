"""Manifests: their rows, their checks, and the scan of a folder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.agent.file_names import Hostile
from onebox.agent.files import folder_writer, manifest, manifest_exchange
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.previous_version import changing_name
from onebox.agent.protocol import CHUNK
from onebox.remote.channel import AgentError
from tests.agent.streams import OLD, frames_of, names
from tests.fakes.agent_box import AgentBox


@given(st.lists(st.tuples(names, names), max_size=600))
def test_manifest_entries_with_any_bytes_survive_the_row_codec(
    pairs: list[tuple[bytes, bytes]],
) -> None:
    """Entries with any names come out of the frames as they went in."""
    entries = [Entry(path, "l", 0o777, target=target) for path, target in pairs]
    frames: list[tuple[bytes, bytes]] = []
    manifest_exchange.send_rows(
        lambda kind, payload: frames.append((kind, payload)),
        map(manifest_exchange.pack_entry, entries),
    )
    waiting = iter(frames)

    came = manifest_exchange.receive_rows(lambda: next(waiting))

    assert list(map(manifest_exchange.unpack_entry, came)) == entries


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_random_rows_are_decoded_or_refused_as_hostile(payloads: list[bytes]) -> None:
    """Random payloads are either entries or raise Hostile."""
    receive = frames_of(payloads)
    with contextlib.suppress(Hostile):
        for row in manifest_exchange.receive_rows(receive):
            manifest_exchange.unpack_entry(row)


@pytest.mark.parametrize("joined", [False, True])
def test_bytes_after_the_end_of_a_list_are_refused(joined: bool) -> None:
    """A list is one compressed stream: what follows it would fill the memory."""
    whole = zlib.compress(b"[]\n")
    tail = b"a" * CHUNK
    payloads = [whole + tail] if joined else [whole, *[tail] * 1000]
    receive = frames_of(payloads)
    taken = 0

    def counted() -> tuple[bytes, bytes]:
        nonlocal taken
        taken += 1
        return receive()

    with pytest.raises(Hostile, match="bytes after the end of a list"):
        list(manifest_exchange.receive_rows(counted))
    assert taken <= 2


def test_received_bytes_of_a_list_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty blocks decompress to nothing, but are received all the same."""
    monkeypatch.setattr(manifest_exchange, "MOST_BYTES", 4 * CHUNK)
    begin = zlib.compressobj().compress(b"")
    empty_blocks = b"\0\0\0\xff\xff" * (CHUNK // 5)
    receive = frames_of([begin, *[empty_blocks] * 1000])
    with pytest.raises(Hostile, match="a list of more than"):
        list(manifest_exchange.receive_rows(receive))


@pytest.mark.parametrize(
    "path", [b"/a", b"../a", b"a/../../b", b"a//b", b"a/", b".", b"a\0b"]
)
def test_manifest_refuses_paths_outside_of_its_folder(path: bytes) -> None:
    """A path that is absolute, climbs, or is not in its plain form is refused."""
    with pytest.raises(Hostile):
        manifest.check([Entry(path, "f", 0o644)])


def test_manifest_refuses_an_entry_below_a_link_or_a_file(tmp_path: Path) -> None:
    """A manifest with an entry below one of its own links or files is refused."""
    for kind in "fl":
        with pytest.raises(Hostile, match="a/b/c"):
            manifest.check(
                [Entry(b"a", kind, 0o644, target=b"/"), Entry(b"a/b/c", "f", 0o644)]
            )


def test_manifest_refuses_devices_duplicates_and_paths_that_were_not_requested() -> (
    None
):
    """
    Only files, folders and links are valid, each once, and only below requested
    paths.
    """
    with pytest.raises(Hostile, match="no file, folder or link"):
        manifest.check([Entry(b"a", "c", 0o644)])
    with pytest.raises(Hostile, match="twice"):
        manifest.check([Entry(b"a", "f", 0o644), Entry(b"a", "f", 0o644)])
    with pytest.raises(Hostile, match="not asked for"):
        manifest.check([Entry(b"results2", "f", 0o644)], [b"results"])


def test_manifest_digest_covers_everything_except_times() -> None:
    """Path, kind, mode, size, hash and target change the digest; the time does not."""
    one = Entry(b"a", "f", 0o644, 3, 1, b"", b"x" * 32)
    others = [
        one._replace(path=b"b"),
        one._replace(kind="l"),
        one._replace(mode=0o600),
        one._replace(size=4),
        one._replace(sha=b"y" * 32),
        one._replace(target=b"t"),
    ]
    digests = {manifest.digest([entry]) for entry in [one, *others]}

    assert len(digests) == 7
    assert manifest.digest([one._replace(mtime_ns=2)]) == manifest.digest([one])


def test_scan_does_not_follow_a_link_in_the_middle_of_a_path(tmp_path: Path) -> None:
    """A path that leads through a link counts as missing."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")

    found = manifest.scan(
        os.fsencode(tmp_path), [b"link/f", b"real/f"], Index(), hashing=False
    )

    assert [entry.path for entry in found.entries] == [b"real/f"]


def test_file_is_not_placed_through_a_link(tmp_path: Path) -> None:
    """A link in the path is replaced by a folder, and its target does not change."""
    base, outside = tmp_path / "base", tmp_path / "outside"
    for folder in (base, outside):
        folder.mkdir()
    (base / "a").symlink_to(outside)
    (base / "new").write_bytes(b"x")
    target = folder_writer.FolderWriter(os.fsencode(base))

    target.place(b"a/f", target.base, b"new")
    target.close()

    assert (base / "a" / "f").read_bytes() == b"x"
    assert not (base / "a").is_symlink()
    assert list(outside.iterdir()) == []


def test_folder_created_by_another_process_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that appears just before its creation is used."""
    (tmp_path / "new").write_bytes(b"x")
    target = folder_writer.FolderWriter(os.fsencode(tmp_path))
    make = os.mkdir

    def made_before(name: bytes, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        make(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", made_before)
    target.place(b"a/b/f", target.base, b"new")
    target.close()

    assert (tmp_path / "a" / "b" / "f").read_bytes() == b"x"


def test_folder_replaced_by_a_file_during_the_listing_hides_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    If a job replaces a folder during the listing, all other paths are still listed.
    """
    for name in ("a", "b"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / "b" / "f").touch()
    look_into = os.scandir

    def replaced_before(path: bytes) -> Any:
        folder = Path(os.fsdecode(path))
        if folder.name == "a":
            folder.rmdir()
            folder.touch()
        return look_into(path)

    monkeypatch.setattr(os, "scandir", replaced_before)
    found = manifest.below(os.fsencode(tmp_path), b"out")

    assert sorted(found) == [b"out", b"out/a", b"out/b", b"out/b/f"]


def test_file_replaced_by_a_pipe_during_the_scan_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that replaces a file during the scan is not opened for reading."""
    (tmp_path / "f").touch()
    look_at = os.lstat

    def replaced_after(path: bytes) -> os.stat_result:
        found = look_at(path)
        (tmp_path / "f").unlink()
        os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "lstat", replaced_after)
    found = manifest.scan(os.fsencode(tmp_path), [b"f"], Index(), hashing=True)

    assert found.unstable == [b"f"]


@pytest.mark.parametrize(
    "row",
    [
        ["/etc/x", "f", 0o644, 1, 0, "", None],
        ["../x", "f", 0o644, 1, 0, "", None],
        ["x", "b", 0o644, 1, 0, "", None],
        ["x", "f", 0o644, -1, 0, "", None],
        ["x", "f", 0o644, 1, 0, "", "zz"],
        ["x", "f"],
        "x",
    ],
)
def test_agent_refuses_a_hostile_manifest_and_answers_the_next_request(
    agent_box: AgentBox, row: object
) -> None:
    """
    The agent changes no file for an invalid manifest, and answers the next request.
    """
    with agent_box.connect() as link:
        link.begin("push", write=True)
        link.send(b"D")
        manifest_exchange.send_rows(link.send, [row])
        with pytest.raises(AgentError) as refused:
            link.finish()

        assert refused.value.kind == "hostile"
        assert link.request("hello")["box"] == agent_box.id
    assert list(agent_box.work.iterdir()) == []


def test_comparison_does_not_touch_the_staging_directory(agent_box: AgentBox) -> None:
    """A comparison does not change a file that another push is writing."""
    entry = Entry(b"big", "f", 0o644, 9 << 20, OLD, b"", b"x" * 32)
    staged = agent_box.root / "files" / "incoming" / os.fsdecode(changing_name(b"big"))
    staged.parent.mkdir(parents=True)
    staged.write_bytes(bytes(entry.size))
    staged.chmod(0o640)
    with agent_box.connect() as link:
        link.begin("push", write=False)
        link.send(b"D")
        manifest_exchange.send_rows(link.send, [manifest_exchange.pack_entry(entry)])
        assert not link.finish()["equal"]

    assert staged.stat().st_mode & 0o777 == 0o640


@pytest.mark.slow
def test_manifest_and_index_of_100000_files_need_less_than_150_mb(
    tmp_path: Path,
) -> None:
    """Manifests and index of 100,000 files take less than 150 MB."""
    code = """
import os, resource, sys, types
from onebox.agent.files import manifest, manifest_exchange
from onebox.agent.files.hash_index import Index
file = os.fsencode(sys.argv[1]) + b"/index"
def entries():
    for n in range(100000):
        path = b"folder-%03d/file-name-%06d.parquet" % (n // 999, n)
        sha = n.to_bytes(32, "big")
        yield manifest.Entry(path, "f", 0o644, n, n + 10**18, b"", sha)
index = Index(file)
for n, entry in enumerate(entries()):
    look = dict(st_size=n, st_mtime_ns=n + 10**18, st_ctime_ns=n, st_ino=n)
    index.put(entry.path, types.SimpleNamespace(**look), entry.sha)
index.save()
index = Index(file)
frames = []
packed = map(manifest_exchange.pack_entry, entries())
manifest_exchange.send_rows(lambda *frame: frames.append(frame), packed)
frames = iter(frames)
rows = manifest_exchange.receive_rows(lambda: next(frames))
came = [manifest_exchange.unpack_entry(row) for row in rows]
assert len(came) == 100000
manifest.check(came)
manifest.digest(came)
if sys.platform == "linux":
    # What getrusage says begins with the size of the process that forked us.
    status = open("/proc/self/status").read()
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert int(done.stdout) < 150 << 20
