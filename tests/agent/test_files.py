"""Manifests, remembered hashes, the stream of contents, and where they may land."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.agent.file_names import Hostile
from onebox.agent.files import folder_writer, manifest, manifest_exchange
from onebox.agent.files.content_stream import FileOffer
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.previous_version import changing_name
from onebox.agent.files.receiver import Landed, Receiver
from onebox.agent.files.sender import Sender
from onebox.remote.channel import AgentError

from .conftest import AgentBox

OLD = 1_600_000_000_123_456_789
names = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)


@given(st.lists(st.tuples(names, names), max_size=600))
def test_rows_carry_any_bytes(pairs: list[tuple[bytes, bytes]]) -> None:
    """Entries of any names come out of the frames as they went in."""
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
def test_rows_of_garbage_are_refused(payloads: list[bytes]) -> None:
    """Whatever bytes come, they are rows of entries or an error of ours."""
    receive = feed(payloads)
    with contextlib.suppress(Hostile):
        for row in manifest_exchange.receive_rows(receive):
            manifest_exchange.unpack_entry(row)


@pytest.mark.parametrize(
    "path", [b"/a", b"../a", b"a/../../b", b"a//b", b"a/", b".", b"a\0b"]
)
def test_paths_that_leave_are_refused(path: bytes) -> None:
    """No path that is absolute, climbs, or is no plain path passes the check."""
    with pytest.raises(Hostile):
        manifest.check([Entry(path, "f", 0o644)])


def test_nothing_lies_below_a_link(tmp_path: Path) -> None:
    """A manifest with a file below a link or file of its own is refused."""
    for kind in "fl":
        with pytest.raises(Hostile, match="a/b/c"):
            manifest.check(
                [Entry(b"a", kind, 0o644, target=b"/"), Entry(b"a/b/c", "f", 0o644)]
            )


def test_devices_doubles_and_strangers_are_refused() -> None:
    """Only files, folders and links, each once, and only what was asked for."""
    with pytest.raises(Hostile, match="no file, folder or link"):
        manifest.check([Entry(b"a", "c", 0o644)])
    with pytest.raises(Hostile, match="twice"):
        manifest.check([Entry(b"a", "f", 0o644), Entry(b"a", "f", 0o644)])
    with pytest.raises(Hostile, match="not asked for"):
        manifest.check([Entry(b"results2", "f", 0o644)], [b"results"])


def test_the_digest_sees_all_that_counts() -> None:
    """Path, type, mode, size, hash and target change the digest; time does not."""
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


def test_the_index_spares_reading(tmp_path: Path) -> None:
    """A file that looks as it did is not read again, across processes."""
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
def test_a_young_file_is_not_remembered(tmp_path: Path, age: int) -> None:
    """A file that could be rewritten within its timestamp is always read anew."""
    file = tmp_path / "f"
    index = Index(os.fsencode(tmp_path / "index"))
    file.write_bytes(b"one")
    st = file.stat()
    moment = st.st_mtime_ns - age * 1_000_000
    os.utime(file, ns=(moment, moment))
    index.put(b"f", file.stat(), b"x" * 32)

    assert index.get(b"f", file.stat()) is None


def test_a_damaged_index_is_forgotten(tmp_path: Path) -> None:
    """One flipped byte makes the index worthless, never wrong."""
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
    old = aged(tmp_path)
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
    old = aged(tmp_path)
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
    old = aged(tmp_path)
    for at in range(40):
        index = Index(file)
        index.put(b"f", old.stat(), bytes([at]) * 32, os.urandom(640_000))
        index.save()
        assert (tmp_path / "index").stat().st_size < 4 * 640_000


def test_index_that_cannot_be_written_is_ignored(tmp_path: Path) -> None:
    """An index that cannot be saved, on a full disk, raises no error."""
    old = aged(tmp_path)
    for adding in (False, True):
        index = Index(os.fsencode(tmp_path / "none" / "index"), adding=adding)
        index.put(b"f", old.stat(), b"x" * 32)
        index.save()


def test_damaged_index_is_rewritten(tmp_path: Path) -> None:
    """Rows appended after a damaged index was loaded and saved are found again."""
    file = tmp_path / "index"
    old = aged(tmp_path)
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
    """Rows that two processes append at the same time are all found."""
    file = os.fsencode(tmp_path / "index")
    old = aged(tmp_path)
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
    old = aged(tmp_path)
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


def test_a_link_on_the_way_is_no_folder(tmp_path: Path) -> None:
    """What can be reached only through a link does not count as there."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")

    found = manifest.scan(
        os.fsencode(tmp_path), [b"link/f", b"real/f"], Index(), hashing=False
    )

    assert [entry.path for entry in found.entries] == [b"real/f"]


def test_no_file_lands_through_a_link(tmp_path: Path) -> None:
    """A link in the way is replaced by a folder, and its target stays as it is."""
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
    """A folder that appears when it is about to be made is as good as ours."""
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


def test_a_folder_that_becomes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job replaces while we look hides nothing but itself."""
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


def test_a_file_that_becomes_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job puts in a file's place while we look does not keep us waiting."""
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


def test_contents_and_holes_arrive(tmp_path: Path) -> None:
    """Files of all sizes arrive byte for byte, and holes stay holes."""
    source = tmp_path / "source"
    source.mkdir()
    for size in (0, 1, 262_143, 262_144, 262_145, 5_000_000):
        (source / f"{size}").write_bytes(os.urandom(size))
    with (source / "sparse").open("wb") as file:
        file.seek(30 << 20)
        file.write(b"middle")
        file.truncate(60 << 20)
    entries = look(source)

    came = carry(source, tmp_path / "staging", map(FileOffer, entries))

    for entry in entries:
        name = os.fsdecode(entry.path)
        assert came[entry.path].read_bytes() == (source / name).read_bytes()
    assert came[b"sparse"].stat().st_blocks * 512 < 1 << 20


def test_a_file_that_changed_does_not_land(tmp_path: Path) -> None:
    """What is no longer what was announced is sent as a refusal, not as data."""
    for size in (100, 300_000):
        (tmp_path / f"{size}").write_bytes(bytes(size))
    offers = [FileOffer(entry) for entry in look(tmp_path)]
    (tmp_path / "100").write_bytes(b"other")
    (tmp_path / "300000").unlink()
    receiver = Receiver(os.fsencode(tmp_path / "staging"))

    pour(receiver, list(stream(tmp_path, offers)), offers)

    assert sorted(receiver.bad) == [b"100", b"300000"]


def test_a_flipped_byte_does_not_land(tmp_path: Path) -> None:
    """Contents that do not hash to their trailer are dropped."""
    (tmp_path / "f").write_bytes(bytes(1000))
    offers = [FileOffer(entry) for entry in look(tmp_path)]
    data = bytearray(b"".join(stream(tmp_path, offers)))
    data[500] ^= 1
    receiver = Receiver(os.fsencode(tmp_path / "staging"))

    landed = pour(receiver, [bytes(data)], offers)

    assert not landed
    assert receiver.bad == [b"f"]


def test_ctrl_c_while_a_hash_begins() -> None:
    """A signal that comes when its thread has just begun ends the process."""
    code = """
import signal, threading
from onebox.agent.files.block_hashes import HashSum
from onebox.agent.files.block_hashes import Hasher

class Thread(threading.Thread):
    def start(self):
        super().start()
        signal.raise_signal(signal.SIGINT)

# Whoever runs the tests in the background has it ignored.
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


def test_records_nobody_asked_for_are_refused(tmp_path: Path) -> None:
    """A record for another path, or for one path twice, ends the stream."""
    (tmp_path / "f").write_bytes(b"x")
    offers = [FileOffer(entry) for entry in look(tmp_path)]
    frames = list(stream(tmp_path, offers))

    with pytest.raises(Hostile, match="not asked for"):
        pour(Receiver(os.fsencode(tmp_path / "s")), frames, [])
    with pytest.raises(Hostile, match="not asked for"):
        pour(Receiver(os.fsencode(tmp_path / "s")), frames * 2, offers)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_a_garbled_stream_is_an_error_of_ours(at: int, junk: bytes) -> None:
    """No bytes of a stream can do worse than be refused or dropped."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for size in (10, 5000, 3000):
            (base / f"{size}").write_bytes(os.urandom(size))
        offers = [FileOffer(entry) for entry in look(base)]
        data = b"".join(stream(base, offers))
        at %= len(data)
        data = data[:at] + junk + data[at + len(junk) :]
        receiver = Receiver(os.fsencode(base / "staging"))
        try:
            landed = pour(receiver, [data], offers)
        except Hostile:
            landed = []
        receiver.close()

        for one in landed:
            assert one.entry in [
                entry._replace(sha=one.entry.sha) for entry in look(base)
            ]


def test_partial_file_is_continued(tmp_path: Path) -> None:
    """After a break a large file resumes; a partial that is wrong starts over."""
    (tmp_path / "big").write_bytes(os.urandom(12 << 20))
    offers = [FileOffer(entry) for entry in look(tmp_path)]
    frames = list(stream(tmp_path, offers))
    staging = os.fsencode(tmp_path / "staging")
    half = len(frames) // 2
    with pytest.raises(Hostile, match="ends within"):
        pour(Receiver(staging), frames[:half], offers)

    again = Receiver(staging)
    resumed = [again.offer(offer.entry) for offer in offers]
    rest = list(stream(tmp_path, resumed))
    landed = pour(again, rest, resumed)

    assert resumed[0].offset > 4 << 20
    assert sum(map(len, rest)) < 8 << 20
    assert len(landed) == 1

    partial = next((tmp_path / "staging").iterdir())
    with partial.open("r+b") as file:
        file.truncate(6 << 20)
        file.write(b"wrong")
    third = Receiver(staging)
    spoilt = [third.offer(offer.entry) for offer in offers]

    assert len(pour(third, list(stream(tmp_path, spoilt)), spoilt)) == 1
    assert partial.read_bytes() == (tmp_path / "big").read_bytes()


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
def test_the_agent_refuses_hostile_manifests(agent_box: AgentBox, row: object) -> None:
    """The agent touches nothing for a client that breaks the rules, and lives on."""
    with agent_box.link() as link:
        link.begin("push", write=True)
        link.send(b"D")
        manifest_exchange.send_rows(link.send, [row])
        with pytest.raises(AgentError) as refused:
            link.finish()

        assert refused.value.kind == "hostile"
        assert link.request("hello")["box"] == agent_box.id
    assert list(agent_box.work.iterdir()) == []


def test_comparison_leaves_the_staging_directory_alone(agent_box: AgentBox) -> None:
    """A comparison does not touch a file that another push is changing."""
    entry = Entry(b"big", "f", 0o644, 9 << 20, OLD, b"", b"x" * 32)
    staged = agent_box.root / "files" / "incoming" / os.fsdecode(changing_name(b"big"))
    staged.parent.mkdir(parents=True)
    staged.write_bytes(bytes(entry.size))
    staged.chmod(0o640)
    with agent_box.link() as link:
        link.begin("push", write=False)
        link.send(b"D")
        manifest_exchange.send_rows(link.send, [manifest_exchange.pack_entry(entry)])
        assert not link.finish()["equal"]

    assert staged.stat().st_mode & 0o777 == 0o640


def test_many_files_need_little_memory(tmp_path: Path) -> None:
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


def aged(folder: Path) -> Path:
    """Make a file that has not just been written."""
    path = folder / "f"
    path.touch()
    os.utime(path, ns=(OLD, OLD))
    return path


def look(base: Path) -> list[Entry]:
    """Return the regular files directly in a folder."""
    paths = [os.fsencode(path.name) for path in base.iterdir() if path.is_file()]
    return manifest.scan(os.fsencode(base), paths, Index(), hashing=False).entries


def stream(base: Path, offers: list[FileOffer]) -> Iterator[bytes]:
    """Return what a sender sends, frame by frame."""
    out: list[bytes] = []
    sender = Sender(os.fsencode(base), out.append)
    for offer in offers:
        sender.send(offer)
    sender.flush()
    return iter(out)


def pour(
    receiver: Receiver, payloads: list[bytes], offers: list[FileOffer]
) -> list[Landed]:
    """Let a receiver have these frames; return what landed."""
    landed: list[Landed] = []
    receiver.receive(
        feed(payloads), {offer.entry.path: offer for offer in offers}, landed.append
    )
    return landed


def feed(payloads: list[bytes]) -> Callable[[], tuple[bytes, bytes]]:
    """Return what yields these as D frames, then a Z."""
    frames = iter([*((b"D", payload) for payload in payloads), (b"Z", b"")])
    return lambda: next(frames)


def carry(base: Path, staging: Path, offers: Iterator[FileOffer]) -> dict[bytes, Path]:
    """Send files into a staging directory; return where each one is."""
    places: dict[bytes, Path] = {}
    receiver = Receiver(os.fsencode(staging), keep=-1)
    wanted = list(offers)

    def land(landed: Landed) -> None:
        assert landed.name is not None
        places[landed.entry.path] = staging / os.fsdecode(landed.name)

    receiver.receive(
        feed(list(stream(base, wanted))),
        {offer.entry.path: offer for offer in wanted},
        land,
    )
    assert not receiver.bad
    return places
