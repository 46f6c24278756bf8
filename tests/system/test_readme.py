"""The README is correct: its examples run, and its tables match the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from onebox import errors
from onebox.settings import load
from onebox.settings.schema import keys
from tests.conftest import Project

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TRAIN = """\
import pathlib, sys
pathlib.Path("results").mkdir(exist_ok=True)
pathlib.Path("results/model").write_text(" ".join(sys.argv[1:]))
"""
# Lines that a reader types when there is a box, and what must be so before.
SETUP = "mkdir -p ~/.venv/bin; ln -s $(command -v python3) ~/.venv/bin/python\n"


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def lines(having: str = "inv provision push") -> list[str]:
    """Return the `inv` lines of the README's block that has a certain one."""
    (shown,) = [block for block in blocks("sh") if having in block]
    return [line.split("  #")[0].strip() for line in shown.splitlines()]


def test_every_inv_line_of_the_readme_works(project: Project) -> None:
    """The lines are typed one after another."""
    project.write("setup.sh", SETUP)
    project.write("train.py", TRAIN)
    project.write("other.py", TRAIN)
    (toml,) = [block for block in blocks("toml") if "setup.sh" in block]
    project.write("onebox.toml", toml)

    for line in lines():
        done = project.inv(*shlex.split(line)[1:])
        assert 0 == done.code, f"{line}\n{done.err}"
    assert 10 == len(lines())
    assert [] == project.boxes()


def test_every_line_about_units_works(project: Project) -> None:
    """The lines are typed one after another, with the `[map]` that stands there."""
    project.write("setup.sh", SETUP)
    project.write("fit.py", "import sys; print(*sys.argv[1:])\n")
    (toml,) = [block for block in blocks("toml") if "[map]" in block]
    few = toml.replace("1..50", "1..2")
    project.write("onebox.toml", '[image]\nsetup = "setup.sh"\n' + few)

    printed = {}
    for line in lines("inv plan map"):
        done = project.inv(*shlex.split(line)[1:])
        assert 0 == done.code, f"{line}\n{done.err}"
        printed[line] = done.out
    assert "--seed 1 --alpha 1\n" == printed["inv logs --unit=2"]
    assert toml != few
    assert 6 == project.read("results/units.csv").count(",done,0,")
    assert [] == project.boxes()


def test_each_inv_line_names_a_task_and_its_flags(project: Project) -> None:
    """A line that no test runs is at least one that the parser knows."""
    found = [line for block in blocks("sh") for line in block.splitlines()]
    typed = [line.split("  #")[0].split() for line in found if line.startswith("inv ")]
    for _, *words in typed:
        task = words[0]
        text = project.inv("--help", task).out
        assert f"[--core-opts] {task} " in text, words
        for word in words[1 : words.index("--")] if "--" in words else words[1:]:
            name = word.partition("=")[0]
            assert not name.startswith("--") or f"{name}" in text, words
    assert len(typed) > 15


def test_each_exit_code_is_explained() -> None:
    """The number in an error's first line is an anchor of docs/exit-codes.md."""
    text = (ROOT / "docs" / "exit-codes.md").read_text("utf-8")
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    codes = {one.code for one in classes if hasattr(one, "code")}

    assert {64, 66, 73, 77, 78} <= codes
    for code in codes:
        assert f'<a id="exit-{code}"></a>' in text


@pytest.mark.parametrize("text", blocks("toml"))
def test_settings_in_the_readme_are_valid(tmp_path: Path, text: str) -> None:
    """Every piece of onebox.toml is accepted."""
    (tmp_path / "onebox.toml").write_text(text)

    printed = re.search(r'^provider = "(\w+)"', text, re.M)
    assert (printed[1] if printed else "local") == load(tmp_path, {}, {}).provider


def test_tasks_file_of_the_readme_works(project: Project) -> None:
    """The user's own stage does what the README says."""
    (text,) = [block for block in blocks("python") if "def train" in block]
    project.write("tasks.py", text)
    project.write("train.py", TRAIN)
    project.write("onebox.toml", '[image]\nsetup = "setup.sh"\n')
    project.write("setup.sh", SETUP)
    done = project.inv("train", "--epochs=10", "--vm=large")

    assert 0 == done.code, done.err
    assert "--epochs=10" == project.read("results/model")
    assert [] == project.boxes()


def test_readme_sets_up_runs_and_tests_with_one_command_each() -> None:
    """CI runs the test command of the README."""
    run, check = (block.strip() for block in blocks("sh")[:2])

    assert run.endswith("&& .venv/bin/inv run") and "\n" not in run
    assert check.endswith("&& .venv/bin/inv check") and "\n" not in check
    assert "grep -E 'inv check$' README.md" in (ROOT / ".ci" / "run").read_text()


def test_every_rehearsal_option_is_documented() -> None:
    """The table of docs/local-box.md has all options."""
    options = {key.name for key in keys().values() if key.table == "local.rehearse"}
    text = (ROOT / "docs" / "local-box.md").read_text("utf-8")

    assert options
    for name in options:
        assert f"`{name}`" in text


def test_documents_name_only_files_that_exist() -> None:
    """
    Each path in backticks exists, where `*` stands for any name, and so does the
    file of each link.
    """
    missing, count = [], 0
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        for place in re.findall(r"`((?:onebox|tests|bench)/[\w./*]*)`", text):
            count += 1
            if not any(ROOT.glob(place.rstrip("/"))):
                missing.append((path.name, place))
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            count += 1
            if not (path.parent / link).exists():
                missing.append((path.name, link))

    assert [] == missing
    assert count > 60
