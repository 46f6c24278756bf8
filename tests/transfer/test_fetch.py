"""Outputs are fetched completely or not at all; the user's files are kept."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import stat
import threading
from pathlib import Path

import pytest

from onebox.errors import ConnectionLost, OutputsHeld
from onebox.transfer import fetch_outputs, verify_outputs
from tests.transfer.synced_project import (
    LARGE,
    SyncedProject,
    hostile_box,
    keep_changing,
    refused,
    snapshot,
    write_new_versions,
)


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
    assert verify_outputs.changed_here(project.root, project.memory) is None


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
    assert verify_outputs.changed_here(project.root, project.memory) == "out/a, out/b"


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


def test_outputs_larger_than_the_disk_are_refused_before_the_transfer(
    project: SyncedProject,
) -> None:
    """An output larger than the disk is refused, and both sizes are named."""
    with project.job("out/huge").open("r+b") as file:
        file.truncate(1 << 43)

    with pytest.raises(OutputsHeld, match=r"need 8\.4 TB, have [\d.,]+ [kMGT]B"):
        project.fetch()
    assert not (project.root / "out").exists()


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
