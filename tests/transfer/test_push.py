"""A push makes the box's files equal to the local ones, after any break."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox.errors import BoxFailed, ConnectionLost, InputError
from onebox.transfer import install, push_files
from tests.fakes.agent_box import until
from tests.transfer.synced_project import (
    LARGE,
    SyncedProject,
    hostile_names,
    keep_changing,
    make_old,
    snapshot,
    write_new_versions,
)


def test_push_makes_the_box_equal(project: SyncedProject) -> None:
    """Contents, modes, times, links and empty folders arrive; then nothing differs."""
    project.write("run.sh", b"#!/bin/sh\n", 0o755)
    project.write("data/deep/er/x", os.urandom(300_000), 0o640)
    (project.root / "empty").mkdir(mode=0o750)
    (project.root / "link").symlink_to("data/deep")
    (project.root / "dangling").symlink_to("nowhere")
    os.utime(project.root / "run.sh", ns=(10**18 + 7, 10**18 + 7))

    assert project.difference() == (
        "4 of 4 files differ: dangling, data/deep/er/x, link and 1 more"
    )
    done = project.push()

    assert (done.files, done.sent_files, done.bytes) == (4, 2, 300_010)
    assert snapshot(project.box.work) == snapshot(project.root)
    assert (project.box.work / "run.sh").stat().st_mtime_ns == 10**18 + 7
    assert project.difference() is None


def test_push_without_changes_takes_one_round_trip(project: SyncedProject) -> None:
    """The second push sends one frame, a digest, and receives one answer."""
    for name in "abc":
        make_old(project.write(name))
    project.push()
    project.push()
    with project.connect_with_cut("up", 200) as link:
        done = project.push(link)

    assert (done.files, done.sent_files, done.sent_bytes) == (3, 0, 0)


def test_same_files_have_one_digest_at_both_ends(project: SyncedProject) -> None:
    """
    The digests of equal files are equal, whether files were moved or existed
    before.
    """
    for name in "abc":
        make_old(project.write(f"out/{name}", name.encode()))
    values = [project.push().digest for _ in range(3)]
    for at in range(3):
        values.append(project.fetch().digest)
        if at == 1:
            # Since then it is not the time of what was fetched last.
            (project.box.work / "out" / "b").touch()

    assert 1 == len(set(values))
    make_old(project.write("out/b", b"!"))
    assert project.push().digest not in values


def test_push_sends_only_changed_contents(project: SyncedProject) -> None:
    """
    A changed file is sent, a touched one compared, and of a chmod only the mode
    sent.
    """
    for name in ("a", "b", "c", "d"):
        make_old(project.write(name, name.encode() * 1000))
    project.push()
    project.write("a", b"new")
    (project.root / "b").touch()
    (project.root / "c").chmod(0o600)

    assert project.difference() == "2 of 4 files differ: a, c"
    done = project.push()

    assert done.sent_files == 1
    assert done.sent_bytes < 1000
    assert snapshot(project.box.work) == snapshot(project.root)


def test_push_deletes_only_files_that_were_pushed(project: SyncedProject) -> None:
    """A pushed file that was deleted here is deleted there; files of the job stay."""
    for name in ("a", "gone/x", "shared/x"):
        project.write(name)
    project.push()
    project.job("shared/result")
    project.job("a.log")
    shutil.rmtree(project.root / "gone")
    shutil.rmtree(project.root / "shared")

    assert project.difference() == "4 deleted: gone, gone/x, shared and 1 more"
    done = project.push()

    assert done.deleted == 4
    assert sorted(snapshot(project.box.work)) == [
        *[b"a", b"a.log", b"shared", b"shared/result"],
    ]


def test_push_restores_pushed_files_that_the_job_changed(
    project: SyncedProject,
) -> None:
    """Pushed files that the job rewrote, removed or replaced are restored."""
    for name in ("a", "b", "c", "d/e"):
        make_old(project.write(name, b"mine"))
    project.push()
    work = project.box.work
    (work / "a").write_bytes(b"jobs")
    (work / "b").unlink()
    (work / "c").unlink()
    (work / "c").mkdir()
    (work / "c" / "x").touch()
    shutil.rmtree(work / "d")
    (work / "d").symlink_to("/etc")

    assert project.difference() is not None
    project.push()

    assert snapshot(work) == snapshot(project.root)


def test_push_replaces_files_folders_and_links_by_each_other(
    project: SyncedProject, tmp_path: Path
) -> None:
    """A file, a folder and a link can each become each of the others."""
    template = tmp_path / "template"
    template.mkdir()
    (template / "in").write_bytes(b"it")
    kinds: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(b"file"),
        lambda path: shutil.copytree(template, path),
        lambda path: path.symlink_to("target"),
        lambda path: path.mkdir(),
    ]
    for offset in range(len(kinds)):
        for number in range(len(kinds)):
            path = project.root / f"p{number}"
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            kinds[(number * (offset // 2 + 1) + offset) % len(kinds)](path)
        project.push()

        assert snapshot(project.box.work) == snapshot(project.root)


def test_hostile_file_names_survive_push_and_fetch(
    project: SyncedProject, tmp_path: Path
) -> None:
    """10,000 names of any bytes are pushed and fetched unchanged."""
    names = hostile_names(10_000)
    (project.root / "out").mkdir()
    base = os.fsencode(project.root / "out")
    for number, name in enumerate(names):
        with open(base + b"/" + name, "wb") as file:  # noqa: PTH123 -- bytes
            file.write(b"%d" % number)
    expected = snapshot(project.root)

    project.push()
    assert snapshot(project.box.work) == expected

    shutil.rmtree(base)
    project.fetch()
    assert snapshot(project.root) == expected
    assert project.verify() is None


def test_sparse_files_stay_sparse_through_push_and_fetch(
    project: SyncedProject,
) -> None:
    """Files with large holes, also beyond 4 GiB, keep them both ways."""
    huge, large = (4 << 30) + 12_345, (64 << 20) + 1
    for name, size in (("huge", huge), ("out", large)):
        with (project.root / name).open("wb") as file:
            file.write(b"begin")
            file.seek(size - 3)
            file.write(b"end")

    project.push()
    (project.root / "out").unlink()
    project.fetch()

    for place, size in (
        (project.box.work / "huge", huge),
        (project.box.work / "out", large),
        (project.root / "out", large),
    ):
        assert place.stat().st_size == size
        assert place.stat().st_blocks * 512 < 1 << 20
        with place.open("rb") as file:
            assert file.read(8) == b"begin\0\0\0"
            file.seek(size - 5)
            assert file.read() == b"\0\0end"


def test_broken_push_continues_within_a_large_file(project: SyncedProject) -> None:
    """After a break in a large file, only the missing part is sent."""
    project.write("big", os.urandom(LARGE))
    with (
        project.connect_with_cut("up", 10 << 20) as link,
        pytest.raises(ConnectionLost),
    ):
        project.push(link)
    assert list(project.box.work.iterdir()) == []

    done = project.push()

    assert done.sent_bytes < 5 << 20
    assert snapshot(project.box.work) == snapshot(project.root)
    assert list((project.box.root / "files" / "incoming").iterdir()) == []


def test_push_survives_25_broken_connections(project: SyncedProject) -> None:
    """No incomplete file has its final name, and in the end both sides are equal."""
    chance = random.Random(1)
    cuts = 0
    while cuts < 25:
        versions = write_new_versions(project.root, chance)
        limit = chance.randrange(100, 8 << 20) // chance.choice([1, 10, 100_000]) + 100
        while True:
            with project.connect_with_cut("up", limit) as link:
                try:
                    project.push(link)
                    break
                except ConnectionLost:
                    cuts += 1
            for path, known in versions.items():
                place = project.box.work / path
                assert not place.is_file() or place.read_bytes() in known
            limit = limit * 2 + chance.randrange(1 << 16)

        assert snapshot(project.box.work) == snapshot(project.root)


def test_push_names_an_input_that_keeps_changing(project: SyncedProject) -> None:
    """An input that keeps changing during the push is an error."""
    with (
        keep_changing(project.write("log")),
        pytest.raises(InputError, match=r"still chang.*log"),
    ):
        project.push()

    project.push()
    assert project.difference() is None


def test_push_larger_than_the_disk_is_refused_before_it_starts(
    project: SyncedProject,
) -> None:
    """A push larger than the box's disk is refused before it starts."""
    with project.write("huge").open("r+b") as file:
        file.truncate(1 << 43)

    with pytest.raises(BoxFailed, match="bytes free"):
        project.push()


def test_names_that_differ_only_in_case_or_accents_are_listed() -> None:
    """Files and folders that collide on such a file system are listed."""
    accents = ["u\u0308".encode(), "\u00fc".encode()]
    clashes = install.collisions([b"A/x", b"a/y", b"b", b"c", *accents])

    assert clashes == [[b"A", b"a"], sorted(accents)]


def test_agent_of_a_broken_connection_does_not_block_the_next_push(
    project: SyncedProject,
) -> None:
    """The newest push gets the lock."""
    project.write("a")
    with project.box.connect() as stuck:
        stuck.begin("push", write=True)
        # The lock file holds the pid of the agent that has the lock.
        lock = project.box.root / "files" / "lock"
        until(lambda: lock.exists() and lock.read_text())
        project.push()
        with pytest.raises(ConnectionLost):
            stuck.send(b"Z")
            stuck.finish()

    assert project.difference() is None


def test_progress_only_grows_and_ends_at_the_total(project: SyncedProject) -> None:
    """The numbers never shrink, and the last ones are the totals."""
    project.write("big", os.urandom(LARGE))
    values: list[tuple[int, int, int, int]] = []
    with project.box.connect() as link:
        push_files.push(
            link,
            project.root,
            project.paths(),
            project.index,
            lambda *numbers: values.append(numbers),
        )

    assert values == sorted(values)
    assert values[-1] == (1, 1, LARGE, LARGE)
