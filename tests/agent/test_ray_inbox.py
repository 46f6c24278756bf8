"""What arrives from a Ray cluster: complete, in order, and never trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from onebox.agent.box import BoxConfig
from onebox.agent.file_names import Hostile
from onebox.agent.jobs import log_limit, metrics
from onebox.agent.ray import archive, outbox
from onebox.agent.ray.inbox import Inbox
from onebox.agent.ray.outbox import Outbox

JOB = "20261201-000000-0000"
RECORD = {"code": 5, "cause": "exit", "started": 1.0, "ended": 2.0}


class Way:
    """A node with an outbox, and a box here with an inbox."""

    def __init__(self, folder: Path) -> None:
        self.there = folder / "onebox-ray-0" / f"ob-1-{JOB}" / "work"
        self.there.mkdir(parents=True)
        self.folder = folder / "outbox"
        self.folder.mkdir()
        self.outbox = Outbox(str(self.folder))
        root = folder / "box"
        self.work, self.directory = root / "work", root / "jobs" / JOB
        self.work.mkdir(parents=True)
        self.directory.mkdir(parents=True)
        self.box = BoxConfig(
            root=str(root),
            id="ob-1",
            work=str(self.work),
            home=str(root / "home"),
            armed=0.0,
            deadline=0.0,
            setup_grace=0.0,
            idle_grace=0.0,
            poweroff=[],
            poweroff_force=[],
            poweroff_wait=0.0,
            boot_id="",
            scheduler={},
        )

    def read(self, name: str, most: int) -> bytes | None:
        """Return a file of the outbox, as the head does."""
        path = self.folder / name
        return path.read_bytes()[: most + 1] if path.exists() else None

    def receive(self) -> Any:
        """Receive what is new with a fresh inbox, as after a kill."""
        inbox = Inbox(self.box, JOB)
        try:
            return inbox.receive(self.read, 1.0)
        finally:
            inbox.close()

    def hand_over(self, *roots: str) -> None:
        """Hand over outputs, as the supervisor on the node does."""
        work = os.fsencode(self.there)
        self.outbox.add_pack(work, outbox.outputs(work, roots))
        self.outbox.write_status({"beat": 1.0})

    def hand_over_archive(self, *entries: Any, size: int | None = None) -> None:
        """Hand over an archive with these lines, whatever they are."""
        data = b"".join(
            one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n"
            for one in entries
        )
        self.outbox.add_archives([data])
        self.outbox.write_status({"beat": 1.0})


@pytest.fixture
def way(tmp_path: Path) -> Way:
    """A way from a node to here."""
    return Way(tmp_path)


def entry(path: str, kind: str = "f", size: int = 0, target: str = "") -> list[object]:
    """Return the line of an entry."""
    return [path, kind, 0o644, 1, size, target]


def files(folder: Path) -> dict[str, object]:
    """Return what is in a folder: contents of files, targets of links."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_outputs_arrive_with_what_links_lead_to(way: Way) -> None:
    """A link to a file that is no output leads to a file that arrives too."""
    results, cache = way.there / "results", way.there / "cache"
    results.mkdir()
    (cache / "deep").mkdir(parents=True)
    (cache / "model").write_bytes(b"m" * 100)
    (cache / "deep/one").write_bytes(b"1")
    (cache / "other").write_bytes(b"no output")
    (results / "relative").symlink_to("../cache/model")
    (results / "absolute").symlink_to(cache / "model")
    (results / "folder").symlink_to("../cache/deep")
    (results / "outside").symlink_to("/etc/hostname")
    (results / "nowhere").symlink_to("missing")
    (results / "tool").write_bytes(b"#!")
    (results / "tool").chmod(0o755)
    odd = os.fsencode(results) + b"/a\nb\xff"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    os.mkfifo(results / "pipe")
    way.hand_over("results/", "model.bin")
    way.receive()

    found = files(way.work)
    assert {
        "cache/model": b"m" * 100,
        "cache/deep/one": b"1",
        "results/relative": "../cache/model",
        "results/absolute": str(way.work / "cache/model"),
        "results/folder": "../cache/deep",
        "results/outside": "/etc/hostname",
        "results/nowhere": "missing",
        "results/tool": b"#!",
        os.fsdecode(b"results/a\nb\xff"): b"odd",
    } == found
    assert (way.work / "results/tool").stat().st_mode & 0o777 == 0o755


def test_another_process_goes_on_where_one_was_killed(way: Way) -> None:
    """Each part of the log arrives once, also one that was written but not noted."""
    log = way.there / "log"
    log.write_bytes(b"one\n")
    fd = os.open(log, os.O_RDONLY)
    way.outbox.add_log(fd)
    way.outbox.write_status({"beat": 1.0})
    way.receive()
    with (way.directory / "log").open("ab") as file:
        file.write(b"half of what was not not")
    with log.open("ab") as file:
        file.write(b"two\n")
    way.outbox.add_log(fd)
    way.outbox.write_status({"beat": 2.0})
    way.receive()
    way.receive()
    os.close(fd)

    assert b"one\ntwo\n" == (way.directory / "log").read_bytes()


def test_log_that_is_too_long_arrives_with_a_gap(way: Way) -> None:
    """Its beginning comes while the job runs, and its end after that."""
    way.outbox = Outbox(str(way.folder), most_log=4000)
    log = way.there / "log"
    log.write_bytes(b"a" * 2000)
    fd = os.open(log, os.O_RDONLY)
    way.outbox.add_log(fd)
    with log.open("ab") as file:
        file.write(b"b" * 50_000 + b"c" * 1000)
    way.outbox.add_log(fd)
    way.outbox.add_log(fd, has_ended=True)
    way.outbox.write_status({"beat": 1.0})
    way.receive()
    os.close(fd)

    data = (way.directory / "log").read_bytes()
    assert (2000, 52_000) == log_limit.gap(str(way.directory))
    assert b"a" * 2000 == data[:2000]
    assert b"c" * 1000 == data[52_000:]


def test_outputs_over_the_limit_are_not_handed_over(way: Way) -> None:
    """The smallest files come, and the others are named."""
    way.outbox = Outbox(str(way.folder), most=1000)
    results = way.there / "results"
    results.mkdir()
    (results / "large").write_bytes(b"l" * 2000)
    (results / "small").write_bytes(b"s")
    work = os.fsencode(way.there)
    found = outbox.outputs(work, ["results"])
    left = way.outbox.add_pack(work, found)
    way.outbox.write_status({"beat": 1.0})
    way.receive()

    assert [b"results/large"] == left
    assert "1 of 3 outputs are not here, such as results/large" in (
        outbox.without_some(left, found)
    )
    assert {"results/small": b"s"} == files(way.work)


def test_outputs_that_cannot_be_read_are_named(way: Way) -> None:
    """The others arrive."""
    results = way.there / "results"
    results.mkdir()
    (results / "good").write_bytes(b"g")
    # Its path is longer than the system's calls take.
    fd = os.open(results, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 100, dir_fd=fd)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    work = os.fsencode(way.there)
    found = outbox.outputs(work, ["results"])
    left = way.outbox.add_pack(work, found)
    way.outbox.write_status({"beat": 1.0})
    way.receive()

    assert 1 == len(left)
    assert {"results/good": b"g"} == files(way.work)


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../evil")],
        [entry("/etc/evil")],
        [entry("results/../../evil")],
        [entry("")],
        [entry("results//evil")],
        [entry("results/\0")],
        [entry("results/x", kind="b")],
        [entry("results/x", size=-1)],
        [entry("results/x", size=1 << 60)],
        [entry("results/x", size=100), b"short"],
        [entry("results/x", kind="l")],
        [entry("results/x", kind="l", target="a\0b")],
        [["results/x", "f", "0", 1, 0, ""]],
        [["results/x", "f", True, 1, 0, ""]],
        [["results/x"]],
        [{"path": "results/x"}],
        [b"[" * 60_000 + b"\n"],
        [b"x" * 70_000 + b"\n"],
        [entry("r/" * 9000 + "x")],
        [entry("results/\ud800")],
        [entry(".onebox-new-1/x")],
    ],
)
def test_archive_that_is_not_valid_is_refused(way: Way, entries: list[Any]) -> None:
    """Nothing is written outside of the work folder, and nothing is published."""
    before = files(way.work.parent.parent)
    way.hand_over_archive(*entries)
    with pytest.raises(Hostile):
        way.receive()
    after = files(way.work.parent.parent)
    new = {name for name in set(after) - set(before) if not name.startswith("outbox/")}
    assert not [name for name in new if "evil" in name]
    assert {name for name in new if not name.startswith("box/jobs/")} == set()


def test_no_file_is_written_through_a_link(way: Way, tmp_path: Path) -> None:
    """Links of an archive are made last, and those that are there are replaced."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (way.work / "old").symlink_to(outside)
    way.hand_over_archive(
        entry("new", kind="l", target=str(outside)),
        entry("new/file", size=4),
        b"evil",
        entry("old/file", size=4),
        b"evil",
    )
    way.receive()
    way.hand_over_archive(entry("new/second", size=4), b"evil")
    way.receive()

    assert [] == list(outside.iterdir())


def test_changed_part_is_refused(way: Way) -> None:
    """The hash of a pack does not fit."""
    (way.there / "results").mkdir()
    (way.there / "results/a").write_bytes(b"a" * 1000)
    way.hand_over("results")
    part = way.folder / "pack.0.0"
    part.write_bytes(part.read_bytes().replace(b"aaa", b"aab", 1))
    with pytest.raises(Hostile, match="changed on the way"):
        way.receive()
    assert {} == files(way.work)


@pytest.mark.parametrize(
    "change",
    [
        {"beat": "x"},
        {"beat": None},
        {"log_parts": -1},
        {"log_parts": 1 << 40},
        {"log_parts": 1.5},
        {"log_parts": True},
        {"packs": "1"},
        {"packs": 3},
        {"log_gap": [0, 1 << 60]},
        {"log_gap": [-5, 3]},
        {"log_gap": 7},
        {"log_parts": 1},
        {"beat": float("nan")},
        {"beat": 10**400},
    ],
)
def test_status_that_is_not_valid_is_refused(way: Way, change: dict[str, Any]) -> None:
    """A part that is missing is not valid either."""
    way.outbox.write_status({"beat": 1.0})
    path = way.folder / outbox.STATUS
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Hostile):
        way.receive()


def test_samples_and_progress_of_the_wrong_form_are_left_out(way: Way) -> None:
    """They are shown only, so the job goes on without them."""
    (way.directory / "units-progress").write_bytes(b"null\n".rjust(512))
    for sample in (7, {"at": "x"}, {"at": float("1e400")}, [1]):
        way.outbox.write_status({"beat": 1.0, "sample": sample, "units": sample})
        way.receive()
    assert None is metrics.latest(str(way.directory))


@pytest.mark.parametrize(
    ("fields", "cause", "expected"),
    [
        (RECORD, "", (5, "exit")),
        ({**RECORD, "cause": "rm -rf"}, "", (5, "exit")),
        (RECORD, "cancel", (5, "cancel")),
        ({**RECORD, "started": float("inf"), "ended": "x"}, "", (5, "exit")),
        ({**RECORD, "survivors": "x" * 5000}, "", (5, "exit")),
        ({**RECORD, "survivors": ["\x1b[2J" * 100] * 5000}, "", (5, "exit")),
        ({**RECORD, "memory_peak": 1e300}, "", (5, "exit")),
        ({**RECORD, "seconds": 10**400}, "", (5, "exit")),
    ],
)
def test_record_keeps_only_what_is_valid(
    way: Way, fields: dict[str, Any], cause: str, expected: tuple[int, str]
) -> None:
    """Its exit code counts; the rest is checked."""
    inbox = Inbox(way.box, JOB)
    record = inbox.record(fields, cause)
    inbox.close()

    assert expected == (record.code, record.cause)
    assert JOB == record.job
    assert all(name.isprintable() for name in record.survivors)


@pytest.mark.parametrize("code", [None, "0", -1, 256, True, 1.0])
def test_record_without_an_exit_code_is_refused(way: Way, code: object) -> None:
    """It is never taken for 0."""
    inbox = Inbox(way.box, JOB)
    with pytest.raises(Hostile):
        inbox.record({**RECORD, "code": code}, "")
    inbox.close()


def test_walk_leaves_out_what_is_named(tmp_path: Path) -> None:
    """Outputs are not sent to the cluster."""
    for name in ("a/b/c", "a/d", "results/x", "e"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = list(archive.walk(os.fsencode(tmp_path), [b""], [b"results", b"a/b"]))

    assert [b"a", b"a/d", b"e"] == found


def test_head_cannot_fill_the_disk_here(way: Way) -> None:
    """What it sends has the limits that the node was given."""
    way.box.scheduler.update(most=1000)
    (way.there / "results").mkdir()
    (way.there / "results/a").write_bytes(bytes(100 << 20))
    way.hand_over("results")
    with pytest.raises(Hostile, match="max_outputs"):
        way.receive()
    way.box.scheduler.clear()
    (way.directory / "spec.json").write_text('{"max_log": 1000}')
    log = way.there / "log"
    log.write_bytes(b"a" * 3000)
    for part in range(3):
        (way.folder / f"log.{part}").write_bytes(b"a" * 1000)
    way.outbox.packs, way.outbox.log_parts = 0, 3
    way.outbox.write_status({"beat": 2.0})
    with pytest.raises(Hostile, match="longer than its limit"):
        way.receive()
