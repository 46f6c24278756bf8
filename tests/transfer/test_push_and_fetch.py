"""
The box gets the local files, and the outputs are fetched completely or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onebox.agent import protocol
from onebox.agent.files import manifest, manifest_exchange
from onebox.errors import BoxFailed, ConnectionLost, InputError, OutputsHeld
from onebox.remote.channel import AgentChannel
from onebox.transfer import fetch_outputs, install, ledger, push_files
from tests.fakes import cutter
from tests.fakes.agent_box import AgentBox

LARGE = 12 << 20


class SyncedProject:
    """A project folder, its box, and the client's state between transfers."""

    def __init__(self, base: Path, box: AgentBox) -> None:
        self.root = base / "project"
        self.root.mkdir()
        self.box = box
        self.index = base / "state" / "index"
        self.memory = base / "memory"

    def write(self, name: str, data: bytes = b"x", mode: int = 0o644) -> Path:
        """Write a local file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def paths(self) -> list[bytes]:
        """Return all local paths."""
        return sorted(manifest.below(os.fsencode(self.root), b""))

    def push(self, link: AgentChannel | None = None) -> push_files.Pushed:
        """Push all local files."""
        with contextlib.ExitStack() as stack:
            used = link or stack.enter_context(self.box.connect())
            return push_files.push(used, self.root, self.paths(), self.index, silent)

    def difference(self) -> str | None:
        """Return the reason for a push, or None."""
        with self.box.connect() as link:
            return push_files.difference(link, self.root, self.paths(), self.index)

    def fetch(
        self, *roots: str, link: AgentChannel | None = None, **how: Any
    ) -> fetch_outputs.Fetched:
        """Fetch the outputs into the project."""
        with contextlib.ExitStack() as stack:
            used = link or stack.enter_context(self.box.connect())
            how.setdefault("into_project", True)
            return fetch_outputs.fetch(
                used, roots or ("out",), self.root, self.memory, silent, **how
            )

    def verify(self) -> str | None:
        """Return whether the outputs are here, or why not."""
        with self.box.connect() as link:
            return fetch_outputs.verify(
                link, ["out"], self.root, self.memory, into_project=True
            ).missing

    def job(self, name: str, data: bytes = b"result") -> Path:
        """Write a file on the box, as a job does."""
        path = self.box.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def connect_with_cut(self, direction: str, limit: int) -> AgentChannel:
        """Return a channel that breaks after *limit* bytes in a direction."""
        command = [sys.executable, cutter.__file__, direction, str(limit)]
        return AgentChannel([*command, *self.box.command("serve")])


@pytest.fixture
def project(tmp_path: Path, agent_box: AgentBox) -> SyncedProject:
    """A project and its box, both empty."""
    return SyncedProject(tmp_path, agent_box)


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


def test_fetch_survives_25_broken_connections(project: SyncedProject) -> None:
    """No output has its final name before all outputs are here."""
    chance = random.Random(2)
    cuts = 0
    while cuts < 25:
        write_new_versions(project.box.work / "out", chance)
        before = snapshot(project.root)
        limit = chance.randrange(100, 8 << 20) // chance.choice([1, 10, 100_000]) + 100
        while True:
            with project.connect_with_cut("down", limit) as link:
                try:
                    project.fetch(link=link)
                    break
                except ConnectionLost:
                    cuts += 1
            assert snapshot(project.root) == before
            limit = limit * 2 + chance.randrange(1 << 16)

        assert project.verify() is None
        assert snapshot(project.root / "out") == snapshot(project.box.work / "out")


def test_broken_fetch_does_not_send_received_files_again(
    project: SyncedProject,
) -> None:
    """Received files, also small ones, are not sent again."""
    project.job("out/big", os.urandom(LARGE))
    for number in range(100):
        project.job(f"out/a{number}", os.urandom(10_000))
    with (
        project.connect_with_cut("down", 10 << 20) as link,
        pytest.raises(ConnectionLost),
    ):
        project.fetch(link=link)

    with project.connect_with_cut("down", 5 << 20) as link:
        project.fetch(link=link)

    assert project.verify() is None


def test_fetch_places_files_modes_links_and_empty_folders(
    project: SyncedProject,
) -> None:
    """All outputs are here with their modes, and verify agrees."""
    project.job("out/model.bin", os.urandom(1_000_000)).chmod(0o755)
    project.job("out/plots/a.png")
    (project.box.work / "out" / "empty").mkdir()
    (project.box.work / "out" / "latest").symlink_to("plots/a.png")
    project.job("elsewhere")

    done = project.fetch("out/", "not there")

    assert (done.files, done.missing, done.kept_aside) == (3, ["not there"], [])
    assert snapshot(project.root / "out") == snapshot(project.box.work / "out")
    assert not (project.root / "elsewhere").exists()
    assert project.verify() is None
    assert fetch_outputs.changed_here(project.root, project.memory) is None


def test_verify_reports_every_difference(project: SyncedProject) -> None:
    """A missing or changed file, or one of another kind, is a reason."""
    for name in ("out/a", "out/b", "out/c"):
        project.job(name)
    assert project.verify() == (
        "3 of 3 files, 18 B: out/a (6 B), out/b (6 B), out/c (6 B)"
    )
    project.fetch()
    (project.root / "out" / "a").write_bytes(b"other!")
    (project.root / "out" / "b").unlink()

    assert project.verify() == "2 of 3 files, 12 B: out/a (6 B), out/b (6 B)"
    assert fetch_outputs.changed_here(project.root, project.memory) == "out/a, out/b"


def test_fetch_replaces_fetched_files_and_keeps_edited_ones(
    project: SyncedProject,
) -> None:
    """A later fetch replaces files of an earlier one, unless the user edited them."""
    project.job("out/a", b"1")
    project.job("out/b", b"1")
    project.write("out/c", b"users own")
    project.job("out/c", b"1")
    assert project.fetch().kept_aside == [(b"out/c", b"out/c~")]

    for name in "abc":
        project.job(f"out/{name}", b"22")
    (project.root / "out" / "b").write_bytes(b"edited")
    (project.root / "out" / "b~").write_bytes(b"taken")
    done = project.fetch()

    out = project.root / "out"
    assert done.kept_aside == [(b"out/b", b"out/b~2")]
    assert [(out / name).read_bytes() for name in "abc"] == [b"22"] * 3
    assert (out / "b~2").read_bytes() == b"edited"
    assert (out / "b~").read_bytes() == b"taken"
    assert (out / "c~").read_bytes() == b"users own"


def test_fetch_does_not_send_a_file_that_is_already_here(
    project: SyncedProject,
) -> None:
    """A file with the same bytes is neither sent nor moved aside."""
    data = os.urandom(3 << 20)
    project.write("out/a", data)
    project.job("out/a", data).chmod(0o600)
    with project.connect_with_cut("down", 1 << 16) as link:
        done = project.fetch(link=link)

    assert done.kept_aside == []
    assert stat.S_IMODE((project.root / "out" / "a").stat().st_mode) == 0o600


def test_fetch_moves_the_users_links_and_folders_aside(
    project: SyncedProject, tmp_path: Path
) -> None:
    """A link or folder at the path of an output is moved aside, not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (project.root / "out").symlink_to(outside)
    project.job("out/x/y", b"1")
    project.job("out/z", b"1")
    assert project.fetch().kept_aside == [(b"out", b"out~")]
    assert list(outside.iterdir()) == []

    shutil.rmtree(project.box.work / "out")
    project.job("out/x", b"a file now")
    (project.root / "out" / "x" / "mine").write_bytes(b"mine")
    assert project.fetch().kept_aside == [(b"out/x", b"out/x~")]
    assert (project.root / "out" / "x~" / "mine").read_bytes() == b"mine"
    assert (project.root / "out" / "x").read_bytes() == b"a file now"


def test_fetch_replaces_a_folder_that_holds_only_fetched_files(
    project: SyncedProject,
) -> None:
    """A folder that holds only fetched files is replaced by a file."""
    project.job("out/x/y", b"1")
    project.fetch()
    shutil.rmtree(project.box.work / "out")
    project.job("out", b"a file now")

    assert project.fetch().kept_aside == []
    assert (project.root / "out").read_bytes() == b"a file now"


def test_fetch_refuses_a_link_out_of_the_project(project: SyncedProject) -> None:
    """The link is named, all other outputs are placed, and verify still reports it."""
    project.job("out/deep/x")
    (project.box.home / "x").write_bytes(b"not the job's folder")
    out = project.box.work / "out"
    (out / "good").symlink_to("deep/x")
    (out / "up").symlink_to("../../x")
    (out / "far").symlink_to("/etc/passwd")
    (out / "deep" / "top").symlink_to("../..")
    (out / "sly").symlink_to("deep/top/../x")

    done = project.fetch()

    assert done.refused == {
        b"out/far": b"/etc/passwd",
        b"out/sly": b"deep/top/../x",
        b"out/up": b"../../x",
    }
    assert project.verify() == "3 of 6 files: out/far, out/sly, out/up"
    assert project.fetch(unsafe_links=True).refused == {}
    assert project.verify() is None
    assert (project.root / "out" / "far").is_symlink()


def test_output_that_keeps_changing_keeps_the_box(project: SyncedProject) -> None:
    """A file that keeps changing is named, and no output is placed."""
    project.job("out/a")
    log = project.box.work / "out" / "log"
    with (
        keep_changing(log),
        pytest.raises(OutputsHeld, match=r"still being written.* out/log"),
    ):
        project.fetch()

    assert not (project.root / "out").exists()
    project.fetch()
    assert project.verify() is None


def test_fetch_waits_for_a_fetch_into_the_same_folder(project: SyncedProject) -> None:
    """While another box's outputs are fetched into the folder, this fetch waits."""
    project.job("out/a")
    project.fetch()
    project.job("out/b")
    fetch = threading.Thread(target=project.fetch)
    with (project.memory / "fetch.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        fetch.start()
        fetch.join(1.0)
        assert fetch.is_alive()
        assert not (project.root / "out" / "b").exists()

    fetch.join()
    assert (project.root / "out" / "b").exists()


def test_push_names_an_input_that_keeps_changing(project: SyncedProject) -> None:
    """An input that keeps changing during the push is an error."""
    with (
        keep_changing(project.write("log")),
        pytest.raises(InputError, match=r"still chang.*log"),
    ):
        project.push()

    project.push()
    assert project.difference() is None


def test_outputs_larger_than_the_disk_are_refused_before_the_transfer(
    project: SyncedProject,
) -> None:
    """An output larger than the disk is refused, and both sizes are named."""
    with project.job("out/huge").open("r+b") as file:
        file.truncate(1 << 43)

    with pytest.raises(OutputsHeld, match=r"need 8\.4 TB, have [\d.,]+ [kMGT]B"):
        project.fetch()
    assert not (project.root / "out").exists()


def test_push_larger_than_the_disk_is_refused_before_it_starts(
    project: SyncedProject,
) -> None:
    """A push larger than the box's disk is refused before it starts."""
    with project.write("huge").open("r+b") as file:
        file.truncate(1 << 43)

    with pytest.raises(BoxFailed, match="bytes free"):
        project.push()


@pytest.mark.parametrize("how", ["gone", "changed", "folder"])
def test_output_that_changes_here_during_a_fetch_is_reported(
    project: SyncedProject, how: str
) -> None:
    """
    An output that changes here during the fetch is reported; the next fetch gets
    it.
    """
    project.job("out/deep/kept", b"1")
    project.job("out/new", b"1")
    project.fetch()
    project.job("out/new", b"2")
    here = project.root / "out" / "deep"

    def meanwhile(*numbers: int) -> None:
        if not here.is_dir() or (here / "kept").read_bytes() != b"1":
            return
        if how == "changed":
            (here / "kept").write_bytes(b"!")
        else:
            shutil.rmtree(here)
            if how == "folder":
                here.write_bytes(b"mine")

    with (
        project.box.connect() as link,
        refused("changed while being fetched: out/deep"),
    ):
        fetch_outputs.fetch(link, ("out",), project.root, project.memory, meanwhile)

    project.fetch()
    assert project.verify() is None


def test_both_versions_of_an_interrupted_install_count_as_fetched(
    project: SyncedProject,
) -> None:
    """
    After a crash during the install, neither version counts as edited by the user.
    """
    project.job("out/a", b"1")
    project.fetch()
    project.job("out/a", b"2")
    project.fetch()
    ours = ledger.Ledger(project.memory)
    before = manifest.Entry(b"out/a", "f", 0o644, 1, 0, b"", sha256(b"1"))
    ours.settle([before])
    ours.add([before._replace(sha=sha256(b"2"))])
    ours.save()
    project.job("out/a", b"3")

    assert project.fetch().kept_aside == []


def test_ledger_is_appended_to_and_does_not_grow_forever(
    project: SyncedProject,
) -> None:
    """Changed rows are appended; the file is rewritten before it doubles."""
    entries = [
        manifest.Entry(b"out/%d" % at, "f", 0o644, 1, 0, b"", sha256(b"0"))
        for at in range(100)
    ]
    project.memory.mkdir()
    ours = ledger.Ledger(project.memory)
    ours.settle(entries)
    ours.save()
    file = project.memory / "fetched.ledger"
    sizes = [file.stat().st_size]
    for at in range(1, 150):
        entries[7] = entries[7]._replace(sha=sha256(b"%d" % -at))
        ours = ledger.Ledger(project.memory)
        ours.settle(entries)
        ours.save()
        sizes.append(file.stat().st_size)

    assert sizes[0] < sizes[1] < sizes[0] * 1.05
    assert max(sizes) < 2.1 * sizes[0]
    assert sizes[-1] < sizes[-100]
    again = ledger.Ledger(project.memory)
    assert all(again.is_ours(entry) for entry in entries)
    assert not again.is_ours(entries[7]._replace(sha=sha256(b"3")))


def test_ledger_cut_anywhere_keeps_its_earlier_rows(project: SyncedProject) -> None:
    """Rows before the last batch are loaded, and the next save repairs the file."""
    entries = [
        manifest.Entry(b"out/%d" % at, "f", 0o644, 1, 0, b"", sha256(b"0"))
        for at in range(9)
    ]
    project.memory.mkdir()
    ours = ledger.Ledger(project.memory)
    ours.settle(entries)
    ours.save()
    file = project.memory / "fetched.ledger"
    before = file.stat().st_size
    fresh = entries[3]._replace(sha=sha256(b"1"))
    ours.add([fresh])
    ours.save()
    whole = file.read_bytes()

    for end in range(before, len(whole)):
        file.write_bytes(whole[:end])
        connect_with_cut = ledger.Ledger(project.memory)
        assert all(connect_with_cut.is_ours(entry) for entry in entries)
        other = entries[4]._replace(sha=sha256(b"2"))
        for more in (fresh, other):
            connect_with_cut.add([more])
            connect_with_cut.save()
        mended = ledger.Ledger(project.memory)
        assert all(mended.is_ours(entry) for entry in [*entries, fresh, other])


def test_names_that_differ_only_in_case_or_accents_are_listed() -> None:
    """Files and folders that collide on such a file system are listed."""
    accents = ["u\u0308".encode(), "\u00fc".encode()]
    clashes = install.collisions([b"A/x", b"a/y", b"b", b"c", *accents])

    assert clashes == [[b"A", b"a"], sorted(accents)]


@pytest.mark.parametrize(
    "row",
    [
        ["/tmp/x", "f", 0o644, 1, 0, "", None],
        ["out/../../x", "f", 0o644, 1, 0, "", None],
        ["elsewhere", "f", 0o644, 1, 0, "", None],
        ["out", "c", 0o644, 1, 0, "", None],
        ["out", "f", 0o644, -1, 0, "", None],
    ],
)
def test_fetch_refuses_paths_that_were_not_requested(
    project: SyncedProject, row: list[object]
) -> None:
    """A box cannot send paths outside of the requested outputs."""
    with hostile_box(project, [row], []) as link, refused("invalid outputs"):
        project.fetch(link=link)

    assert list(project.root.iterdir()) == []


def test_fetch_refuses_a_file_below_a_link(
    project: SyncedProject, tmp_path: Path
) -> None:
    """A box cannot send a link and then a file below it."""
    rows = [
        ["out", "l", 0o777, 0, 0, str(tmp_path), None],
        ["out/x", "f", 0o644, 1, 0, "", None],
    ]
    with hostile_box(project, rows, []) as link, refused("invalid outputs"):
        project.fetch(link=link, unsafe_links=True)

    assert not (tmp_path / "x").exists()


def test_fetch_refuses_contents_that_were_not_requested(project: SyncedProject) -> None:
    """Contents of another path end the fetch."""
    rows = [["out", "f", 0o644, 1, 0, "", None]]
    with (
        hostile_box(project, rows, [b'["../x",0]\n' + bytes(100)]) as link,
        refused("invalid outputs"),
    ):
        project.fetch(link=link)

    assert list(project.root.iterdir()) == []


def test_agent_of_a_broken_connection_does_not_block_the_next_push(
    project: SyncedProject,
) -> None:
    """The newest push gets the lock."""
    project.write("a")
    with project.box.connect() as stuck:
        stuck.begin("push", write=True)
        time.sleep(0.3)
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


def refused(why: str) -> contextlib.AbstractContextManager[object]:
    """Expect that the box is kept, for this reason."""
    return pytest.raises(OutputsHeld, match=why)


def silent(*numbers: int) -> None:
    """Accept progress and print nothing."""


def make_old(path: Path) -> Path:
    """Set the times of a file to long ago."""
    os.utime(path, ns=(10**18, 10**18))
    return path


def sha256(data: bytes) -> bytes:
    """Return the hash of some bytes."""
    import hashlib

    return hashlib.sha256(data).digest()


def snapshot(base: Path) -> dict[bytes, tuple[int, bytes]]:
    """Return mode and contents of all paths in a folder."""
    raw = os.fsencode(base)
    found = {}
    for path in manifest.below(raw, b""):
        full = raw + b"/" + path
        mode = os.lstat(full).st_mode
        data = b""
        if stat.S_ISLNK(mode):
            mode, data = stat.S_IFLNK, os.readlink(full)  # noqa: PTH115 -- bytes
        elif stat.S_ISREG(mode):
            with open(full, "rb") as file:  # noqa: PTH123 -- bytes
                data = file.read()
        found[path] = (mode, data)
    return found


def write_new_versions(root: Path, chance: random.Random) -> dict[str, list[bytes]]:
    """Rewrite small files and a large one; return both versions of each."""
    versions: dict[str, list[bytes]] = {}
    root.mkdir(parents=True, exist_ok=True)
    for name in [*(f"d{n % 3}/f{n}" for n in range(20)), "big"]:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        size = 9 << 20 if name == "big" else chance.randrange(40_000)
        old = [path.read_bytes()] if path.exists() else []
        data = chance.randbytes(size)
        path.write_bytes(data)
        versions[name] = [*old, data]
    return versions


def hostile_names(count: int) -> list[bytes]:
    """Return names that have broken other tools."""
    chance = random.Random(3)
    special = [
        *[b"-rf", b" ", b"a b", b"\n", b"a\nb", b"'", b'"', b"\\", b"$HOME", b"`id`"],
        *[b"*", b"?", b"[a]", b"~", b"#x", b"%s", b"\x7f", b"\x01\x02", b"\xff\xfe"],
        *["é".encode(), "e\u0301".encode(), "日本".encode(), "🦆".encode(), b"..."],
        *[b"x" * 255, b"\xff" * 255, b"--", b"..x", b"a\r", b"\t", b"\x1b[2J", b".a"],
    ]
    names = set(special)
    letters = [bytes([number]) for number in range(1, 256) if number != ord("/")]
    while len(names) < count:
        names.add(b"".join(chance.choices(letters, k=chance.randrange(1, 256))))
    return sorted(names - {b".", b".."})


@contextlib.contextmanager
def keep_changing(path: Path) -> Iterator[None]:
    """Keep writing to a file that takes longer to read than the retries last."""
    stop = threading.Event()
    path.write_bytes(bytes(64 << 20))

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.001):
                file.write(secrets.token_bytes(100))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def hostile_box(
    project: SyncedProject, rows: list[list[object]], stream: list[bytes]
) -> Iterator[AgentChannel]:
    """
    Return a box that answers a scan with these rows, and a request with this
    stream.
    """
    frames: list[tuple[bytes, bytes]] = []
    manifest_exchange.send_rows(
        lambda kind, payload: frames.append((kind, payload)), rows
    )
    values: dict[str, list[str]] = {
        "parts": [],
        "missing": [],
        "special": [],
        "unreadable": [],
        "unstable": [],
    }
    frames.append((b"A", protocol.dumps(values)))
    frames += [*((b"D", payload) for payload in stream), (b"Z", b"")]
    frames.append((b"A", b"{}"))
    script = project.box.root / "answers"
    script.write_bytes(
        b"".join(protocol.HEAD.pack(kind, len(data)) + data for kind, data in frames)
    )
    code = (
        "import shutil, sys\n"
        "shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)\n"
        "sys.stdout.flush(); sys.stdin.buffer.read()"
    )
    with AgentChannel([sys.executable, "-c", code, str(script)]) as link:
        yield link
