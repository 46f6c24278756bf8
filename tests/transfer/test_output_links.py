"""The target of a link in the outputs is fetched, whatever way it leads there."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from onebox.transfer import fetch_outputs, verify_outputs
from tests.fakes.agent_box import AgentBox
from tests.remote.steps import quiet
from tests.transfer.synced_project import SyncedProject, make_old

RESULT = b"precious"


@pytest.fixture
def project(tmp_path: Path, agent_box: AgentBox) -> SyncedProject:
    """A project and its box, both empty."""
    return SyncedProject(tmp_path, agent_box)


def link(project: SyncedProject, name: str, target: str | Path) -> Path:
    """Create a link on the box, as a job does."""
    path = project.box.work / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def files_through_links(base: Path, name: str = "out") -> dict[str, bytes]:
    """Return the files that a program finds below a folder if it follows links."""
    found = {}
    for folder, _, names in os.walk(base / name, followlinks=True):
        for one in names:
            path = Path(folder, one)
            found[str(path.relative_to(base))] = path.read_bytes()
    return found


def outputs_are_equal(project: SyncedProject) -> bool:
    """
    Return whether the outputs read the same here as on the box, and verify agrees.
    """
    assert project.verify() is None
    return files_through_links(project.root) == files_through_links(project.box.work)


def test_fetch_brings_the_target_of_a_link_that_is_not_an_output(
    project: SyncedProject,
) -> None:
    """A link to a file outside the outputs is fetched as that file."""
    project.job("ckpt/epoch9.pt", RESULT)
    link(project, "out/best.pt", "../ckpt/epoch9.pt")
    done = project.fetch()

    assert RESULT == (project.root / "out/best.pt").read_bytes()
    assert not (project.root / "ckpt").exists()
    assert (1, len(RESULT)) == (done.files, done.bytes)
    assert outputs_are_equal(project)
    assert project.fetch().digest == done.digest


def test_verify_reports_a_link_whose_target_was_not_fetched(
    project: SyncedProject,
) -> None:
    """The box may not be deleted until the target of a link is here unchanged."""
    project.job("ckpt/epoch9.pt", RESULT)
    link(project, "out/best.pt", "../ckpt/epoch9.pt")

    assert "1 of 1 file, 8 B: out/best.pt (8 B)" == project.verify()
    project.fetch()
    project.job("ckpt/epoch9.pt", b"better, at last")
    assert "1 of 1 file, 15 B: out/best.pt (15 B)" == project.verify()
    project.fetch()
    assert outputs_are_equal(project)


def test_fetch_follows_chains_of_links(project: SyncedProject) -> None:
    """The file at the end of a chain is fetched, wherever the links are."""
    project.job("ckpt/3/model.pt", RESULT)
    link(project, "ckpt/newest", "3")
    link(project, "best", "ckpt/newest/model.pt")
    link(project, "out/a", "../best")
    link(project, "out/b", "a")
    link(project, "out/deep/c", "../b")
    project.fetch()

    assert {RESULT} == set(files_through_links(project.root).values())
    assert outputs_are_equal(project)


def test_fetch_brings_the_folder_that_a_link_leads_to(project: SyncedProject) -> None:
    """
    A link to a folder outside the outputs is fetched as that folder, with its
    links.
    """
    project.job("runs/7/weights/w0", RESULT)
    project.job("runs/7/log", b"log")
    project.job("shared/vocabulary", b"words")
    link(project, "runs/7/newest", "weights/w0")
    link(project, "runs/7/vocabulary", "../../shared/vocabulary")
    link(project, "out/run", "../runs/7")
    project.fetch()

    assert files_through_links(project.root) == files_through_links(project.box.work)
    assert "weights/w0" == os.readlink(project.root / "out/run/newest")  # noqa: PTH115 -- as text
    assert not (project.root / "runs").exists()
    assert outputs_are_equal(project)


@pytest.mark.parametrize(
    ("root", "where", "target"),
    [("out", "out", "real"), ("out/sub", "out", "real"), ("out", "out", "a/b/../c")],
)
def test_fetch_follows_an_output_that_is_itself_a_link(
    project: SyncedProject, root: str, where: str, target: str
) -> None:
    """An output folder may be a link, or lie below a link."""
    (project.box.work / "a" / "b").mkdir(parents=True)
    project.job(os.path.normpath(target) + "/sub/result", RESULT)
    link(project, where, target)
    done = project.fetch(root)

    assert RESULT == (project.root / "out/sub/result").read_bytes()
    assert [] == done.missing
    with project.box.connect() as connected:
        found = verify_outputs.verify(connected, [root], project.root, project.memory)
    assert found.missing is None


def test_fetch_follows_absolute_links_into_the_work_folder(
    project: SyncedProject,
) -> None:
    """An absolute path on the box is no valid link here, so its target is fetched."""
    work = project.box.work
    project.job("ckpt/epoch9.pt", RESULT)
    project.job("out/data/x", b"data")
    link(project, "out/best.pt", work / "ckpt/epoch9.pt")
    link(project, "out/sub/x", work / "out/data/x")
    done = project.fetch()

    assert {} == done.refused
    assert "../data/x" == os.readlink(project.root / "out/sub/x")  # noqa: PTH115 -- as text
    assert outputs_are_equal(project)


def test_fetch_keeps_a_link_whose_target_is_an_output(project: SyncedProject) -> None:
    """A link to an output stays a link, even if the target does not exist."""
    project.job("out/3/model.pt", RESULT)
    links = {
        "out/newest": "3",
        "out/odd": ".././out/3/../newest/model.pt",
        "out/nowhere": "4/model.pt",
        "out/itself": "itself",
        "out/up": "..",
    }
    for name, target in links.items():
        link(project, name, target)
    project.fetch()

    for name, target in links.items():
        assert target == os.readlink(project.root / name)  # noqa: PTH115 -- as text
    assert project.verify() is None


def test_fetch_brings_a_link_target_once(project: SyncedProject) -> None:
    """Several links to one target, and folders that link to each other, are no loop."""
    project.job("a/model", RESULT)
    project.job("b/data", b"data")
    link(project, "a/other", "../b")
    link(project, "b/other", "../a")
    for name in ("one", "two"):
        link(project, f"out/{name}", "../a")
        link(project, f"out/{name}.model", "../a/model")
    done = project.fetch()

    assert {} == done.refused
    assert done.bytes == len(RESULT + b"data")
    for name in ("one/model", "two/model", "one.model", "two.model", "one/other/data"):
        there = project.box.work / "out" / name
        assert there.read_bytes() == (project.root / "out" / name).read_bytes()
    assert RESULT == (project.root / "out/one/other/other/model").read_bytes()
    assert project.verify() is None


def test_fetch_keeps_a_link_to_an_unchanged_pushed_file(project: SyncedProject) -> None:
    """A pushed file that is already here is not fetched a second time."""
    make_old(project.write("code/train.py", b"print()"))
    project.push()
    project.job("code/__pycache__/train.pyc", b"compiled")
    link(project, "out/train.py", "../code/train.py")
    link(project, "out/code", "../code")
    project.fetch()

    assert Path("../code/train.py") == (project.root / "out/train.py").readlink()
    assert Path("../code") == (project.root / "out/code").readlink()
    assert project.verify() is None


def test_fetch_into_another_folder_replaces_a_link_to_a_pushed_file_by_the_file(
    project: SyncedProject, tmp_path: Path
) -> None:
    """In another folder than the project, a link to pushed code has no target."""
    make_old(project.write("code/train.py", b"print()"))
    project.push()
    link(project, "out/code", "../code")
    with project.box.connect() as connected:
        into = tmp_path / "elsewhere"
        fetch_outputs.fetch(connected, ["out"], into, tmp_path / "its memory", quiet)

    assert b"print()" == (into / "out/code/train.py").read_bytes()


def test_fetch_brings_a_changed_pushed_file_through_a_link(
    project: SyncedProject,
) -> None:
    """The job's version is fetched as the link, and the file here does not change."""
    make_old(project.write("model.json", b"untrained"))
    project.push()
    project.job("model.json", b"trained")
    link(project, "out/model.json", "../model.json")
    done = project.fetch()

    assert b"trained" == (project.root / "out/model.json").read_bytes()
    assert b"untrained" == (project.root / "model.json").read_bytes()
    assert [] == done.kept_aside
    assert project.verify() is None


def test_fetch_leaves_out_a_dangling_link_out_of_the_work_folder(
    project: SyncedProject,
) -> None:
    """The link is named but does not keep the box: no data could be lost."""
    project.job("out/a", RESULT)
    link(project, "out/gone", "/nowhere/at/all")
    link(project, "out/device", "/dev/null")
    link(project, "out/climbs", "../../../nothing")
    done = project.fetch()

    assert [b"out/climbs", b"out/device", b"out/gone"] == done.dangling
    assert {} == done.refused
    assert ["a"] == [path.name for path in (project.root / "out").iterdir()]
    assert project.verify() is None


def test_outputs_behind_a_link_out_of_the_work_folder_keep_the_box(
    project: SyncedProject, tmp_path: Path
) -> None:
    """Results on a scratch disk keep the box, and the target is named."""
    scratch = tmp_path / "scratch"
    (scratch / "sub").mkdir(parents=True)
    (scratch / "sub" / "result").write_bytes(RESULT)
    link(project, "far", scratch)
    link(project, "near", scratch / "sub")

    for root, target in (("far/sub", scratch / "sub"), ("near", scratch / "sub")):
        done = project.fetch(root)
        assert {root.encode(): os.fsencode(target)} == done.refused


def test_later_fetch_replaces_a_file_by_a_link_and_back(project: SyncedProject) -> None:
    """A file of an earlier fetch is replaced by a link, and the reverse."""
    project.job("ckpt/a", RESULT)
    project.job("ckpt/b", b"other")
    best = link(project, "out/best", "../ckpt/a")
    project.fetch()
    best.unlink()
    project.job("out/kept", RESULT)
    best.symlink_to("kept")
    done = project.fetch()
    assert (project.root / "out/best").is_symlink()
    best.unlink()
    best.symlink_to("../ckpt")
    again = project.fetch()

    assert [] == done.kept_aside + again.kept_aside
    assert outputs_are_equal(project)


@pytest.mark.parametrize("seed", range(6))
def test_any_combination_of_links_reads_the_same_here(
    project: SyncedProject, seed: int
) -> None:
    """Every file that a job's links lead to is here after a fetch."""
    chance = random.Random(seed)
    folders = ["out", "out/x", "a", "a/b", "c", "c/d"]
    for number, folder in enumerate(folders):
        project.job(f"{folder}/file{number}", os.urandom(chance.randrange(1, 99)))
    names = [*folders, *(f"{folder}/file{n}" for n, folder in enumerate(folders))]
    for number in range(12):
        folder = chance.choice(folders)
        # A folder that outputs are in would make what is read here endless.
        target = chance.choice([name for name in names if not name.startswith("out")])
        text = os.path.relpath(target, folder)
        if chance.random() < 0.3:
            text = str(project.box.work / target)
        link(project, f"{folder}/link{number}", text)
        names.append(f"{folder}/link{number}")
    project.fetch()

    assert project.verify() is None
    assert reached(project.root) == reached(project.box.work)


def reached(base: Path) -> dict[str, Any]:
    """Return the contents at each path below `out`, with links, each folder once."""
    found: dict[str, Any] = {}
    waiting = [("out", frozenset({os.path.realpath(base / "out")}))]
    while waiting:
        folder, above = waiting.pop()
        for item in os.scandir(base / folder):
            path = f"{folder}/{item.name}"
            real = os.path.realpath(item.path)
            if not item.is_dir():
                found[path] = Path(item.path).read_bytes()
            elif real not in above and path.count("/") < 5:
                waiting.append((path, above | {real}))
    return {path: found[path] for path in found if path.count("/") < 3}


def test_fetch_of_files_brings_no_folder_and_no_link(project: SyncedProject) -> None:
    """A box could put any program into a folder with the name of a notebook."""
    project.job("a.ipynb/tests/conftest.py", b"import os")
    project.job("deep/b.ipynb", RESULT)
    project.job("c.ipynb", RESULT)
    link(project, "d.ipynb", "c.ipynb")
    names = ("a.ipynb", "c.ipynb", "d.ipynb", "deep/b.ipynb")

    done = project.fetch(*names, only_files=True)

    assert [b"c.ipynb", b"deep", b"deep/b.ipynb"] == project.paths()
    assert {b"a.ipynb", b"d.ipynb"} < set(done.refused)
