"""Folders of boxes and images on a cluster are complete or gone, after any crash."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from onebox.agent.folders import lifecycle
from onebox.agent.folders.removal import remove
from onebox.agent.folders.root import Refusal, Root
from onebox.agent.slurm import images, login
from tests.agent.crashes import before_change, crash, names
from tests.agent.slurm_root import (
    IMAGE,
    TAGS,
    as_user,
    builder,
    content,
    new_root,
    request,
    save,
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with the stopped builder `ob-1`."""
    return new_root(tmp_path)


def test_save_that_dies_at_any_step_loses_nothing_and_can_be_repeated(
    root: Root, tmp_path: Path
) -> None:
    """The home of the box stays complete until there is a complete image."""
    whole, step = content(root.home("ob-1")), 0
    while crash(lambda: save(root), step):
        step += 1
        assert whole == content(root.home("ob-1"))
        found = images.find(root, {"owner": "me"})["images"]
        if found:
            assert whole == content(root.image("oi-1") + "/home")
        assert "oi-1" == save(root)["image"]["id"]
        assert whole == content(root.image("oi-1") + "/home")
        assert ["oi-1"] == names(tmp_path / "root/images")
        images.delete(root, {"image": IMAGE})
        assert [] == names(tmp_path / "root/images")

    assert step > 10


def test_deletion_that_dies_at_any_step_is_finished_by_the_next_look(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image is complete or gone, and its owner removes what is left of it."""
    # A filesystem lists entries in any order; here it lists the record first.
    listed = os.listdir
    monkeypatch.setattr(
        os, "listdir", lambda path: sorted(listed(path), key="image.json".__ne__)
    )
    save(root)
    whole, step = content(root.image("oi-1") + "/home"), 0
    while crash(lambda: images.delete(root, {"image": IMAGE}), step):
        step += 1
        before = content(str(tmp_path / "root/images"))
        images.find(root, {"owner": "somebody-else"})
        assert before == content(str(tmp_path / "root/images"))
        found = images.find(root, {"owner": "me"})["images"]
        assert names(tmp_path / "root/images") == ["oi-1"] * len(found)
        save(root)
        assert whole == content(root.image("oi-1") + "/home")

    assert step > 10


def test_second_save_at_any_moment_of_the_first_gives_a_complete_image(
    root: Root, tmp_path: Path
) -> None:
    """A client that was killed leaves a save that goes on beside the repeated one."""
    whole, step, again = content(root.home("ob-1")), 0, [True]
    while again:
        again.clear()

        with (
            contextlib.suppress(FileNotFoundError),
            before_change(step, lambda: again.append(bool(save(root)))),
        ):
            save(root)
        assert whole == content(root.image("oi-1") + "/home")
        assert ["oi-1"] == names(tmp_path / "root/images")
        images.delete(root, {"image": IMAGE})
        step += 1

    assert step > 10


@pytest.mark.parametrize("far", [8, 11, 14])
def test_save_that_another_one_overtakes_gives_a_complete_image_or_fails(
    root: Root, far: int
) -> None:
    """The other one has come some steps far; each works on files of its own."""
    whole, step, other = content(root.home("ob-1")), 0, [True]
    while other:
        other.clear()
        with before_change(step, lambda: other.append(crash(lambda: save(root), far))):
            try:
                save(root)
            except FileNotFoundError:
                assert not images.find(root, {"owner": "me"})["images"]
            else:
                assert whole == content(root.image("oi-1") + "/home")
        images.delete(root, {"image": IMAGE})
        step += 1

    assert step > 10


def test_creation_that_dies_at_any_step_can_be_repeated(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box is complete or not there, and nothing else is left."""
    save(root)
    (tmp_path / "root/agents").mkdir()
    for path in (tmp_path / "sbatch", tmp_path / "root/agents/agent.pyz"):
        path.write_text("")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(path)])
    wanted: dict[str, Any] = {
        "box": "ob-2",
        "record": {"tags": TAGS, "image": "oi-1"},
        "folder": str(tmp_path),
        "scheduler": {},
    }
    step = 0
    while crash(lambda: login.create(root, wanted), step):
        step += 1
        found = login.find(root, {"owner": "me"})["boxes"]
        if [one["id"] for one in found] != ["ob-1"]:
            assert "agent.pyz" in names(root.box("ob-2"))
        login.create(root, wanted)
        assert ["ob-1", "ob-2"] == names(tmp_path / "root/boxes")
        assert content(root.home("ob-1")).keys() == content(root.home("ob-2")).keys()
        lifecycle.delete(root, "boxes", "ob-2")

    assert step > 10


def test_what_others_have_not_finished_stays(root: Root, tmp_path: Path) -> None:
    """So does what is younger than an hour, because a command may work on it."""
    folder = tmp_path / "root/boxes"
    made = {}
    for owner in ("me", "you"):
        for kind, age in ((".new", 0), (".new", 4000), (".deleted", 0)):
            name = f"{kind}-ob-{owner}{age}"
            builder(root, name, owner)
            os.utime(folder / name, (time.time() - age,) * 2)
            made[owner, kind, age] = name
    lifecycle.sweep(root, "boxes", "me")
    with pytest.raises(Refusal, match="another owner"):
        login.delete(root, {"box": "ob-you0", "tags": TAGS})

    left = {name for (owner, _, _), name in made.items() if owner == "you"}
    assert {"ob-1", made["me", ".new", 0], *left} == set(names(folder))


def test_image_is_gone_if_it_is_deleted_while_a_box_is_created_from_it(
    root: Root, tmp_path: Path
) -> None:
    """A box never gets a part of an image, wherever the copy is at that moment."""
    moment, kinds = 0, {"gone"}
    while "gone" in kinds:
        save(root)
        target, kinds = str(tmp_path / f"home{moment}"), set()
        with before_change(moment, lambda: images.delete(root, {"image": IMAGE})):
            try:
                images.furnish(root, "oi-1", target, target)
            except Refusal as refused:
                kinds.add(refused.kind)
        assert (images.find(root, {"owner": "me"})["images"] == []) is bool(kinds)
        moment += 1

    assert moment > 10


def test_copy_leaves_out_pipes_and_sockets_and_keeps_what_nobody_may_read(
    root: Root, tmp_path: Path
) -> None:
    """As the user, whom modes stop; the box keeps its modes."""
    home = Path(root.home("ob-1"))
    (home / "secret").write_text("x")
    (home / "closed").mkdir()
    (home / "closed/in").write_text("y")
    os.mkfifo(home / "pipe")
    os.mknod(home / "socket", stat.S_IFSOCK | 0o600)
    (home / "secret").chmod(0)
    (home / "closed").chmod(0o100)
    for kind in ("box", "builder"):
        record = {"tags": {**TAGS, "kind": kind}, "stopped": True}
        Path(root.box("ob-1"), "record.json").write_text(json.dumps(record))
        as_user(tmp_path, functools.partial(images.save, root, request(kind)))
        assert 0 == stat.S_IMODE((home / "secret").stat().st_mode)
        assert 0o100 == stat.S_IMODE((home / "closed").stat().st_mode)
        saved = Path(root.image("oi-1"), "home")
        assert "x" == (saved / "secret").read_text()
        assert "y" == (saved / "closed/in").read_text()
        assert {".venv", "closed", "secret"} == set(names(saved))
        target = str(tmp_path / kind)
        as_user(
            tmp_path, functools.partial(images.furnish, root, "oi-1", target, target)
        )
        assert content(str(saved)).keys() == content(target).keys()
        as_user(tmp_path, lambda: images.delete(root, {"image": IMAGE}))
        assert [] == names(tmp_path / "root/images")


def test_read_only_folders_are_removed_and_links_are_not_followed(
    tmp_path: Path,
) -> None:
    """Go's module cache has such folders."""
    other, tree = tmp_path / "other", tmp_path / "tree"
    other.mkdir()
    (tree / "a/b").mkdir(parents=True)
    (other / "file").write_text("x")
    for name in ("a/file", "a/b/file"):
        (tree / name).write_text("x")
    (tree / "a/link").symlink_to(other)
    for folder in (tree / "a/b", tree / "a", other):
        folder.chmod(0o500)
    as_user(tmp_path, lambda: remove(str(tree)))

    assert ["file"] == names(other)
    assert 0o500 == stat.S_IMODE(other.stat().st_mode)
    assert not tree.exists()
    other.chmod(0o700)


def test_links_of_installed_packages_are_read_only_and_all_else_is_a_copy(
    root: Root, tmp_path: Path
) -> None:
    """A program that writes in place changes neither the image nor another box."""
    save(root)
    before = content(root.image("oi-1") + "/home")
    for name in ("one", "two"):
        target = str(tmp_path / name)
        images.furnish(root, "oi-1", target, target)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    linked = {path.name for path in files if path.stat().st_nlink > 1}
    assert {"tool.py"} == linked
    for path in files:
        if path.name in linked:
            assert not path.stat().st_mode & 0o222
        else:
            path.write_text("changed in place\n")
    other = content(str(tmp_path / "two"))

    assert before == content(root.image("oi-1") + "/home")
    assert f"#!{tmp_path}/two/.venv/bin/python\n" == other[".venv/bin/tool"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"tags": {}, "a": ' + "[" * 50 + "]" * 50 + "}",
        '{"tags": {"owner": "me", "deadline": Infinity}}',
        '{"tags": {"owner": "me", "deadline": 1e999}}',
        '{"tags": {"owner": "me"}, "memory": 1%s}' % ("0" * 400),
        '{"tags": {"owner": "me"}, "notes": "%s"}' % ("x" * 70_000),
        '{"tags": ["me"]}',
    ],
)
def test_record_that_could_not_be_sent_is_damaged(root: Root, text: str) -> None:
    """It hides no other record; only its folder is named."""
    builder(root, "ob-2")
    save(root)
    for folder, name in ((root.box("ob-2"), "record"), (root.image("oi-2"), "image")):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, f"{name}.json").write_text(text)
    assert root.record("ob-2") is None
    with pytest.raises(Refusal, match="ob-2 has no valid record"):
        root.existing("ob-2")
    found = images.find(root, {"owner": "me"})

    assert [root.image("oi-2")] == found["damaged"]
    assert ["oi-1"] == [one["image"]["id"] for one in found["images"]]
