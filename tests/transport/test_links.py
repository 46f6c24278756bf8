"""What a link in the outputs leads to comes here, whatever way it leads there."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from onebox.transfer import fetch_outputs

from .conftest import AgentBox
from .test_sync import Project, age, silent

RESULT = b"precious"


@pytest.fixture
def project(tmp_path: Path, agent_box: AgentBox) -> Project:
    """A project and its box, both empty."""
    return Project(tmp_path, agent_box)


def link(project: Project, name: str, target: str | Path) -> Path:
    """Have the job make a link."""
    path = project.box.work / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def through(base: Path, name: str = "out") -> dict[str, bytes]:
    """Return the files that a program finds below a folder, links followed."""
    found = {}
    for folder, _, names in os.walk(base / name, followlinks=True):
        for one in names:
            path = Path(folder, one)
            found[str(path.relative_to(base))] = path.read_bytes()
    return found


def all_here(project: Project) -> bool:
    """Tell whether the outputs read here as on the box, and teardown agrees."""
    assert project.verify() is None
    return through(project.root) == through(project.box.work)


def test_fetch_brings_the_target_of_a_link_that_is_not_an_output(
    project: Project,
) -> None:
    """A link to a file elsewhere in the work folder comes as that file."""
    project.job("ckpt/epoch9.pt", RESULT)
    link(project, "out/best.pt", "../ckpt/epoch9.pt")
    done = project.fetch()

    assert RESULT == (project.root / "out/best.pt").read_bytes()
    assert not (project.root / "ckpt").exists()
    assert (1, len(RESULT)) == (done.files, done.bytes)
    assert all_here(project)
    assert project.fetch().digest == done.digest


def test_verify_misses_the_target_of_a_link_that_is_not_here(project: Project) -> None:
    """Nothing may be torn down as long as a link's target is not here as it is."""
    project.job("ckpt/epoch9.pt", RESULT)
    link(project, "out/best.pt", "../ckpt/epoch9.pt")

    assert "1 of 1 file, 8 B: out/best.pt (8 B)" == project.verify()
    project.fetch()
    project.job("ckpt/epoch9.pt", b"better, at last")
    assert "1 of 1 file, 15 B: out/best.pt (15 B)" == project.verify()
    project.fetch()
    assert all_here(project)


def test_fetch_follows_links_that_lead_to_links(project: Project) -> None:
    """However long the chain, and wherever its links are, the file comes."""
    project.job("ckpt/3/model.pt", RESULT)
    link(project, "ckpt/newest", "3")
    link(project, "best", "ckpt/newest/model.pt")
    link(project, "out/a", "../best")
    link(project, "out/b", "a")
    link(project, "out/deep/c", "../b")
    project.fetch()

    assert {RESULT} == set(through(project.root).values())
    assert all_here(project)


def test_fetch_brings_the_folder_that_a_link_leads_to(project: Project) -> None:
    """A link to a folder elsewhere comes as that folder, with the links in it."""
    project.job("runs/7/weights/w0", RESULT)
    project.job("runs/7/log", b"log")
    project.job("shared/vocabulary", b"words")
    link(project, "runs/7/newest", "weights/w0")
    link(project, "runs/7/vocabulary", "../../shared/vocabulary")
    link(project, "out/run", "../runs/7")
    project.fetch()

    assert through(project.root) == through(project.box.work)
    assert "weights/w0" == os.readlink(project.root / "out/run/newest")  # noqa: PTH115 -- as text
    assert not (project.root / "runs").exists()
    assert all_here(project)


@pytest.mark.parametrize(
    ("root", "where", "target"),
    [("out", "out", "real"), ("out/sub", "out", "real"), ("out", "out", "a/b/../c")],
)
def test_fetch_follows_an_output_that_is_itself_a_link(
    project: Project, root: str, where: str, target: str
) -> None:
    """An output folder may be a link, or lie below one."""
    (project.box.work / "a" / "b").mkdir(parents=True)
    project.job(os.path.normpath(target) + "/sub/result", RESULT)
    link(project, where, target)
    done = project.fetch(root)

    assert RESULT == (project.root / "out/sub/result").read_bytes()
    assert [] == done.missing
    with project.box.link() as connected:
        found = fetch_outputs.verify(connected, [root], project.root, project.memory)
    assert found.missing is None


def test_fetch_follows_absolute_links_into_the_work_folder(project: Project) -> None:
    """Programs like absolute paths: the box's own would lead nowhere here."""
    work = project.box.work
    project.job("ckpt/epoch9.pt", RESULT)
    project.job("out/data/x", b"data")
    link(project, "out/best.pt", work / "ckpt/epoch9.pt")
    link(project, "out/sub/x", work / "out/data/x")
    done = project.fetch()

    assert {} == done.refused
    assert "../data/x" == os.readlink(project.root / "out/sub/x")  # noqa: PTH115 -- as text
    assert all_here(project)


def test_links_among_the_outputs_stay_links(project: Project) -> None:
    """A link whose target is an output comes as it is, also if it leads nowhere."""
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


def test_a_target_comes_once(project: Project) -> None:
    """Links to one target, and folders that link to each other, come to an end."""
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


def test_a_link_to_what_was_pushed_stays_a_link(project: Project) -> None:
    """What is here already as it was pushed does not come a second time."""
    age(project.write("code/train.py", b"print()"))
    project.push()
    project.job("code/__pycache__/train.pyc", b"compiled")
    link(project, "out/train.py", "../code/train.py")
    link(project, "out/code", "../code")
    project.fetch()

    assert Path("../code/train.py") == (project.root / "out/train.py").readlink()
    assert Path("../code") == (project.root / "out/code").readlink()
    assert project.verify() is None


def test_a_link_to_pushed_files_comes_as_a_file_elsewhere(
    project: Project, tmp_path: Path
) -> None:
    """In another folder than the project's, a link to code would lead nowhere."""
    age(project.write("code/train.py", b"print()"))
    project.push()
    link(project, "out/code", "../code")
    with project.box.link() as connected:
        into = tmp_path / "elsewhere"
        fetch_outputs.fetch(connected, ["out"], into, tmp_path / "its memory", silent)

    assert b"print()" == (into / "out/code/train.py").read_bytes()


def test_a_changed_pushed_file_comes_through_a_link(project: Project) -> None:
    """What the job made of a pushed file comes, and the file here is not touched."""
    age(project.write("model.json", b"untrained"))
    project.push()
    project.job("model.json", b"trained")
    link(project, "out/model.json", "../model.json")
    done = project.fetch()

    assert b"trained" == (project.root / "out/model.json").read_bytes()
    assert b"untrained" == (project.root / "model.json").read_bytes()
    assert [] == done.kept_aside
    assert project.verify() is None


def test_a_link_out_of_the_work_folder_to_nothing_is_left_out(project: Project) -> None:
    """It is named and holds nothing: there is nothing on the box that could be lost."""
    project.job("out/a", RESULT)
    link(project, "out/gone", "/nowhere/at/all")
    link(project, "out/device", "/dev/null")
    link(project, "out/climbs", "../../../nothing")
    done = project.fetch()

    assert [b"out/climbs", b"out/device", b"out/gone"] == done.dangling
    assert {} == done.refused
    assert ["a"] == [path.name for path in (project.root / "out").iterdir()]
    assert project.verify() is None


def test_an_output_below_a_link_out_of_the_work_folder_is_named(
    project: Project, tmp_path: Path
) -> None:
    """Results on a scratch disk hold the box, and the target is named."""
    scratch = tmp_path / "scratch"
    (scratch / "sub").mkdir(parents=True)
    (scratch / "sub" / "result").write_bytes(RESULT)
    link(project, "far", scratch)
    link(project, "near", scratch / "sub")

    for root, target in (("far/sub", scratch / "sub"), ("near", scratch / "sub")):
        done = project.fetch(root)
        assert {root.encode(): os.fsencode(target)} == done.refused


def test_a_link_takes_the_place_of_a_target_and_back(project: Project) -> None:
    """What an earlier fetch brought as a file gives way to a link, and the reverse."""
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
    assert all_here(project)


@pytest.mark.parametrize("seed", range(6))
def test_any_tangle_of_links_reads_here_as_on_the_box(
    project: Project, seed: int
) -> None:
    """Whatever links a job makes, each file that they lead to is here afterwards."""
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
    """Return what is at each path below out, links followed to no folder twice."""
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
