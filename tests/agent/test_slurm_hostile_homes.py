"""A job can put anything into its folders; nothing outside them is ever touched."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onebox.agent.folders import lifecycle, removal
from onebox.agent.folders.root import Refusal, Root
from onebox.agent.slurm import home_copy, images, login
from tests.agent.crashes import before_change, names
from tests.agent.slurm_root import TAGS, as_user, builder, new_root, request
from tests.agent.slurm_root import save as save_builder


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with the stopped builder `ob-1`."""
    return new_root(tmp_path)


def nest(folder: str, depth: int, name: str, mode: int = 0o700) -> None:
    """Nest folders of this name, the last one of which has a file and this mode."""
    fd = os.open(folder, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, 0o700, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        if level == depth - 1:
            file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
            os.write(file, b"deep")
            os.close(file)
            os.fchmod(fd, mode)
    os.close(fd)


def deepest(folder: str, name: str) -> int:
    """Return how deeply folders of this name are nested in a folder."""
    fd, depth = os.open(folder, os.O_RDONLY), 0
    while name in _listed(fd):
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd, depth = below, depth + 1
    assert ["file"] == _listed(fd)
    os.close(fd)
    return depth


def _listed(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries]


@pytest.fixture
def few_frames() -> Iterator[None]:
    """Let Python recurse less deeply than the folders of a test."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(350)
    yield
    sys.setrecursionlimit(limit)


DEEP = pytest.mark.parametrize(
    ("depth", "name"), [(400, "d"), (60, "n" * 100)], ids=["levels", "bytes"]
)


@pytest.mark.usefixtures("few_frames")
@DEEP
def test_deep_folders_are_removed_whatever_their_modes_are(
    root: Root, tmp_path: Path, depth: int, name: str
) -> None:
    """Their paths may be longer than the system's calls take."""
    # Not below the home that `as_user` walks.
    work = Path(root.box("ob-1"), "work")
    work.mkdir()

    def remove() -> None:
        nest(str(work), depth, name, 0o500)
        lifecycle.delete(root, "boxes", "ob-1")

    as_user(tmp_path, remove)
    assert [] == names(tmp_path / "root/boxes")


@pytest.mark.usefixtures("few_frames")
@DEEP
def test_home_with_deep_folders_is_saved_and_copied(
    root: Root, depth: int, name: str
) -> None:
    """So a build is not lost because of one folder."""
    nest(root.home("ob-1"), depth, name)
    save_builder(root)
    target = Path(root.box("ob-2"), "home")
    target.parent.mkdir()
    images.furnish(root, "oi-1", str(target), str(target))

    assert depth == deepest(root.image("oi-1") + "/home", name)
    assert depth == deepest(str(target), name)
    for path in (root.image("oi-1"), str(target.parent), root.box("ob-1")):
        removal.remove(path)
        assert not os.path.lexists(path)


@pytest.mark.parametrize("kind", ["boxes", "images"])
def test_folder_that_cannot_be_removed_is_named_and_hides_nothing(
    root: Root, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What a command finds does not depend on what an earlier one has left."""
    save_builder(root)
    name = ".deleted-ob-2" if kind == "boxes" else ".deleted-oi-2"
    bad = Path(root.path, kind, name)
    (bad / "home/closed").mkdir(parents=True)
    (bad / "home/closed/file").touch()
    unlink = os.unlink

    def refuse(path: Any, **options: Any) -> None:
        if path == "file":
            raise PermissionError(1, "Operation not permitted", path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    find = login.find if kind == "boxes" else images.find
    found = find(root, {"owner": "me", "scheduler": {}})

    assert 1 == len(found[kind])
    assert [{"folder": str(bad), "why": "Operation not permitted"}] == found["left"]


def test_removal_that_others_disturb_for_ever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never claims to have removed what is there."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").touch()
    unlink = os.unlink

    def again(path: Any, **options: Any) -> None:
        unlink(path, **options)
        (tmp_path / "tree/file").touch()
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "unlink", again)
    with pytest.raises(OSError, match="not empty") as raised:
        removal.remove(str(tmp_path / "tree"))
    assert str(tmp_path / "tree") == raised.value.filename


@pytest.mark.parametrize("kind", ["box", "builder"])
def test_home_that_is_a_link_is_refused_and_its_target_is_not_touched(
    root: Root, tmp_path: Path, kind: str
) -> None:
    """A job may have linked the user's own home."""
    builder(root, "ob-own")
    own = tmp_path / "own"
    Path(root.home("ob-own")).rename(own)
    lifecycle.delete(root, "boxes", "ob-own")
    before = {path: path.lstat() for path in own.rglob("*")}
    home = Path(root.home("ob-1"))
    removal.remove(str(home))
    home.symlink_to(own)
    record = {"tags": {**TAGS, "kind": kind}, "stopped": True}
    Path(root.box("ob-1"), "record.json").write_text(json.dumps(record))
    with pytest.raises(Refusal, match="/home is not a folder"):
        images.save(root, request(kind))
    with pytest.raises(Refusal, match="/home is not a folder"):
        home_copy.find_paths(str(home), "x")
    lifecycle.delete(root, "boxes", "ob-1")

    assert [] == names(tmp_path / "root/images")
    for path, st in before.items():
        now = path.lstat()
        assert (st.st_mode, st.st_nlink) == (now.st_mode, now.st_nlink)


def package(root: Root) -> Path:
    """Return the installed package in the home of the builder."""
    return Path(root.home("ob-1"), ".venv/lib/python3/site-packages/tool.py")


def test_package_that_cannot_be_shared_keeps_its_mode(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some filesystems have no hard links."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    record = {"tags": TAGS, "stopped": True}
    Path(root.box("ob-1"), "record.json").write_text(json.dumps(record))
    mode = package(root).stat().st_mode
    images.save(root, request("box"))

    assert mode & 0o200
    assert mode == package(root).stat().st_mode
    copy = Path(
        root.image("oi-1"), "home", package(root).relative_to(root.home("ob-1"))
    )
    assert mode == copy.stat().st_mode


def test_package_that_has_a_name_outside_of_the_home_is_copied(
    root: Root, tmp_path: Path
) -> None:
    """Tools link packages to their caches, which must stay writable."""
    os.link(package(root), tmp_path / "cache")
    save_builder(root)

    assert 2 == (tmp_path / "cache").stat().st_nlink
    assert (tmp_path / "cache").stat().st_mode & 0o200


def test_path_is_found_and_replaced_wherever_it_is_in_a_file(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are read in blocks, and a path may begin in one and end in the next."""
    monkeypatch.setattr("onebox.agent.slurm.home_copy.BLOCK", 16, raising=False)
    monkeypatch.setattr("onebox.agent.slurm.entry_copy.BLOCK", 16, raising=False)
    home, final = root.home("ob-1"), root.home("ob-2")
    texts = {f"f{at}": "x" * at + home + home + "y" * at for at in range(40)}
    texts["none"] = home[:-1]
    for name, text in texts.items():
        Path(home, name).write_text(text)
    save_builder(root)
    images.furnish(root, "oi-1", root.image("copy"), final)

    for name, text in texts.items():
        assert text.replace(home, final) == Path(root.image("copy"), name).read_text()


def test_large_file_is_neither_searched_nor_filled(root: Root) -> None:
    """Its holes stay holes, also in a copy."""
    home = root.home("ob-1")
    with Path(home, "model").open("wb") as file:
        file.write(home.encode())
        file.truncate(40 << 30)
        file.seek(20 << 30)
        file.write(b"middle")
    record = {"tags": {**TAGS, "kind": "box"}, "stopped": True}
    Path(root.box("ob-1"), "record.json").write_text(json.dumps(record))
    image = images.save(root, request("box"))["image"]
    saved = Path(root.image("oi-1"), "home/model")

    assert image["stored"] > 40 << 30
    assert 40 << 30 == saved.stat().st_size
    assert saved.stat().st_blocks * 512 < 10 << 20
    with saved.open("rb") as file:
        assert home.encode() == file.read(len(home))
        file.seek(20 << 30)
        assert b"middle" == file.read(6)
    record_of = json.loads(Path(root.image("oi-1"), "image.json").read_text())
    assert "model" not in record_of["paths"]


@pytest.mark.parametrize("source", ["", "home"])
def test_image_whose_old_path_is_not_absolute_is_damaged(
    root: Root, source: str
) -> None:
    """An empty path would be found between all bytes of a file."""
    save_builder(root)
    path = Path(root.image("oi-1"), "image.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": source}))

    assert [root.image("oi-1")] == images.find(root, {"owner": "me"})["damaged"]


def test_save_that_takes_longer_than_an_hour_is_not_swept(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command of its owner looks meanwhile."""
    monkeypatch.setattr(lifecycle, "HEARTBEAT", 0.0, raising=False)
    aged: list[Path] = []

    def age() -> None:
        aged.extend(Path(root.path, "images").glob(".new-*"))
        os.utime(aged[0], (1, 1))

    def look() -> None:
        images.find(root, {"owner": "me"})

    with before_change(12, age), before_change(17, look):
        save_builder(root)
    assert aged
    assert ["oi-1"] == [
        one["image"]["id"] for one in images.find(root, {"owner": "me"})["images"]
    ]


def test_error_names_the_path(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a descriptor nor a name without its folder helps the user."""

    closed = Path(root.home("ob-1"), "closed")
    closed.mkdir()
    closed.chmod(0o100)

    for name in ("chmod", "fchmod"):
        refuse_mode(monkeypatch, name, closed.stat().st_ino)
    with pytest.raises(PermissionError) as raised:
        save_builder(root)
    assert str(closed) == raised.value.filename
    with pytest.raises(PermissionError) as raised:
        removal.permit(str(closed))
    assert str(closed) == raised.value.filename


def refuse_mode(monkeypatch: pytest.MonkeyPatch, name: str, inode: int) -> None:
    """Let a function of `os` refuse to change the mode of this file or folder."""
    call = getattr(os, name)

    def refuse(path: Any, *words: Any, **options: Any) -> None:
        if not options:
            fd = path if isinstance(path, int) else os.open(path, os.O_PATH)
            if os.fstat(fd).st_ino == inode:
                raise PermissionError(1, "Operation not permitted", path)
        call(path, *words, **options)

    monkeypatch.setattr(os, name, refuse)
