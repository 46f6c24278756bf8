"""Which files count as the inputs and outputs of a stage, and whose record is read."""

from __future__ import annotations

import shutil

import pytest

from tests.conftest import Project

# Each stage writes its own name to the file "ran".
HEAD = """\
import pathlib, onebox
from dataclasses import dataclass
from functools import partial, wraps
from invoke import Collection
from onebox import *

def ran(name):
    with open("ran", "a") as file:
        file.write(name + " ")

@dataclass
class Rows:
    count: int

    def more(self):
        return self.count + 1
"""
SIMPLE = """
@onebox.stage(inputs={inputs}, outputs={outputs})
def prepare(c):
    ran("prepare")
    {body}
"""
TWO = """
def make(tag):
    @onebox.stage(outputs={outputs})
    def prepare(c):
        ran(tag)
        pathlib.Path("out").mkdir(exist_ok=True)
        pathlib.Path("out/" + tag).write_text("")
    return prepare

ns = Collection()
ns.add_collection(Collection("a", make("a")))
ns.add_collection(Collection("b", make("b")))
"""
IMAGE = """
@onebox.stage(onebox.push, inputs=["job.sh"])
def prepare(c):
    ran("prepare")
"""


def declare(
    project: Project, inputs: list[str], outputs: list[str], body: str = "pass"
) -> None:
    """Write a tasks.py with one stage."""
    text = SIMPLE.format(inputs=inputs, outputs=outputs, body=body)
    project.write("tasks.py", HEAD + text)


def skipped(project: Project, *words: str) -> bool:
    """Run the stage `prepare`; return whether it was skipped."""
    done = project.inv(*words or ["prepare"])
    assert 0 == done.code, done.err
    return "up to date" in done.err


class TestIgnoredFolders:
    """Caches and environments are left out below a declared folder only."""

    @pytest.mark.parametrize(
        "folder", [".venv", "node_modules", ".git", "a/__pycache__", ".venv/lib"]
    )
    def test_a_declared_output_with_such_a_name_is_missed(
        self, project: Project, folder: str
    ) -> None:
        """The stage makes a removed environment again."""
        make = f"pathlib.Path('{folder}').mkdir(parents=True, exist_ok=True); "
        make += f"pathlib.Path('{folder}/file').write_text('')"
        declare(project, [], [f"{folder}/"], make)
        assert not skipped(project)
        assert skipped(project)
        (project.root / folder / "file").unlink()
        assert f"{folder}/file is missing" in project.inv("prepare").err
        shutil.rmtree(project.root / folder)

        done = project.inv("prepare")

        assert f"prepare runs: {folder}/ is missing" in done.err
        assert (project.root / folder / "file").exists()

    @pytest.mark.parametrize("name", [".git/HEAD", ".git/HEA*", ".git/"])
    def test_a_declared_input_in_such_a_folder_counts(
        self, project: Project, name: str
    ) -> None:
        """The stage runs again after another branch is checked out."""
        project.write(".git/HEAD", "ref: refs/heads/main\n")
        declare(project, [name], [])
        assert not skipped(project)
        assert skipped(project)
        project.write(".git/HEAD", "ref: refs/heads/other\n")

        assert "prepare runs: .git/HEAD changed" in project.inv("prepare").err

    @pytest.mark.parametrize("name", [".", "**/*.py", "*", "*/*.py"])
    def test_such_folders_below_others_do_not_count(
        self, project: Project, name: str
    ) -> None:
        """A pattern of wildcards does not name them."""
        project.write("code.py", "")
        project.write("lib/code.py", "")
        declare(project, [name], ["ran"])
        assert not skipped(project)
        for folder in (".venv", "lib/node_modules", "__pycache__", "lib/.git"):
            project.write(f"{folder}/x.py", "")

        assert skipped(project)
        project.write("lib/code.py", "new")
        assert not skipped(project)


class TestBackups:
    @pytest.mark.parametrize("output", ["out.txt", "*.txt", "made/"])
    def test_a_backup_of_an_output_is_no_input(
        self, project: Project, output: str
    ) -> None:
        """A fetch keeps an output that was changed here as `out.txt~`."""
        make = "pathlib.Path('made').mkdir(exist_ok=True); "
        make += "pathlib.Path('out.txt').write_text('')"
        declare(project, ["."], [output, "ran"], make)
        project.write("out.txt", "")
        assert not skipped(project)
        project.write("made~" if output == "made/" else "out.txt~2", "edited")
        assert skipped(project)
        project.write("job.sh~", "new")

        assert "prepare runs: job.sh~ changed" in project.inv("prepare").err


class TestFolders:
    """A folder is an output although it has no content to compare."""

    @pytest.mark.parametrize("removed", ["empty", "empty/inner"])
    def test_a_folder_without_files_is_missed(
        self, project: Project, removed: str
    ) -> None:
        """The declared folder, and one in it."""
        make = "pathlib.Path('empty/inner').mkdir(parents=True, exist_ok=True)"
        declare(project, [], ["empty/"], make)
        assert not skipped(project)
        assert skipped(project)
        shutil.rmtree(project.root / removed)

        assert f"prepare runs: {removed}" in project.inv("prepare").err
        assert (project.root / "empty/inner").is_dir()


class TestLinks:
    """A link stands for what it leads to, also below another link."""

    @pytest.mark.parametrize("declared", ["lk", "data/", "lk/latest", "lk/*"])
    def test_a_link_below_a_link_is_followed(
        self, project: Project, declared: str
    ) -> None:
        """lk → ../ext, ext/latest → ../other/v1."""
        project.write("../other/v1/file", "old")
        project.write("../ext/plain", "")
        (project.root / "../ext/latest").symlink_to("../other/v1")
        (project.root / "lk").symlink_to("../ext")
        (project.root / "data").mkdir()
        (project.root / "data/lk").symlink_to("../../ext")
        declare(project, [declared], [])
        assert not skipped(project)
        assert skipped(project)
        project.write("../other/v1/file", "new")

        assert "lk/latest/file changed" in project.inv("prepare").err
        assert skipped(project)

    def test_loops_of_links_end(self, project: Project) -> None:
        """Each folder is read once, so many links to one folder cost little, too."""
        project.write("data/file", "")
        project.write("../ext/0/file", "")
        (project.root / "data/lk").symlink_to("../../ext")
        (project.root / "../ext/back").symlink_to(project.root / "data")
        (project.root / "../ext/self").symlink_to(".")
        (project.root / "../ext/up").symlink_to("..")
        (project.root / "data/one").symlink_to("two")
        (project.root / "data/two").symlink_to("one")
        for level in range(40):
            folder = project.root / f"../ext/{level}"
            folder.mkdir(exist_ok=True)
            for name in ("x", "y"):
                (folder / name).symlink_to(f"../{level + 1}")
        declare(project, ["data/"], [])
        assert not skipped(project)
        assert skipped(project)
        project.write("../ext/0/file", "new")

        assert "data/lk/0/file changed" in project.inv("prepare").err

    def test_an_output_behind_a_link_is_missed(self, project: Project) -> None:
        """Such as results on a scratch disk."""
        (project.root / "../scratch").mkdir()
        (project.root / "out").symlink_to("../scratch")
        declare(project, [], ["out/"], "pathlib.Path('out/file').write_text('')")
        assert not skipped(project)
        assert skipped(project)
        (project.root / "../scratch/file").unlink()

        assert "out/file is missing" in project.inv("prepare").err


class TestRecordOfEachTask:
    """Tasks that a factory has made are different tasks."""

    @pytest.mark.parametrize("outputs", ['["out/" + tag]', '["out"]'])
    def test_each_task_runs(self, project: Project, outputs: str) -> None:
        """On two lines, and on one; the reason names the task as it is typed."""
        project.write("tasks.py", HEAD + TWO.format(outputs=outputs))
        first = project.inv("a.prepare")
        second = project.inv("b.prepare")

        assert "a.prepare runs: a.prepare has not run here yet" in first.err
        assert "b.prepare runs: b.prepare has not run here yet" in second.err
        assert "a b " == project.read("ran")
        assert 2 == project.inv("a.prepare", "b.prepare").err.count("up to date")
        project.inv("a.prepare", "--force", "b.prepare", "--force")
        assert "a b a b " == project.read("ran")

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ('    tag = "a"\n{}', '    tag = "b"\n{}'),
            (
                "    tag = {{'x': (1, {{2.5}})}}\n{}",
                "    tag = {{'x': (1, {{2}})}}\n{}",
            ),
            ("    tag = lambda: 1\n{}", "    tag = lambda: 2\n{}"),
            ("    tag = Rows(1).more\n{}", "    tag = Rows(2).more\n{}"),
            ("    tag = partial(ran, 'a')\n{}", "    tag = partial(ran, 'b')\n{}"),
        ],
    )
    def test_a_value_of_the_enclosing_function_is_part_of_the_task(
        self, project: Project, first: str, second: str
    ) -> None:
        """The source of the task itself is the same."""
        body = (
            '    @onebox.stage(inputs=["job.sh"])\n'
            "    def prepare(c):\n        ran(repr(tag)[:0])\n"
            "    return prepare\n"
        )
        text = f"{HEAD}\ndef make():\n{first.format(body)}\nprepare = make()\n"
        project.write("tasks.py", text)
        assert not skipped(project)
        assert skipped(project)
        text = f"{HEAD}\ndef make():\n{second.format(body)}\nprepare = make()\n"
        project.write("tasks.py", text)

        done = project.inv("prepare")

        assert "prepare runs: the task prepare changed" in done.err

    def test_the_source_of_a_decorator_is_part_of_the_task(
        self, project: Project
    ) -> None:
        """The function that the decorator wraps is part of it, too."""
        text = (
            "\ndef twice(body):\n    @wraps(body)\n    def both(c):\n"
            "        body(c)\n        body(c)\n    return both\n"
            '\n@onebox.stage(inputs=["job.sh"])\n@twice\n'
            'def prepare(c):\n    ran("prepare")\n'
        )
        for old, new in (("", ""), ("body(c)\n    return", "pass\n    return")):
            project.write("tasks.py", HEAD + text.replace(old or "\0", new))
            assert not skipped(project)
            assert skipped(project)
        assert "prepare prepare prepare " == project.read("ran")
        project.write("tasks.py", HEAD + text.replace('"prepare"', '"new"'))
        assert not skipped(project)

    def test_an_object_without_plain_data_is_no_reason(self, project: Project) -> None:
        """Its text has an address, which differs in each process."""
        text = (
            "\ndef make(thing):\n"
            '    @onebox.stage(inputs=["job.sh"])\n'
            "    def prepare(c):\n        ran(str(thing)[:0])\n"
            "    return prepare\n"
            "prepare = make(object())\n"
        )
        project.write("tasks.py", HEAD + text)
        assert not skipped(project)

        assert skipped(project)

    def test_computed_inputs_are_part_of_the_task(self, project: Project) -> None:
        """An output that is declared later is a reason to run."""
        declare(project, [], ["ran"])
        text = project.read("tasks.py").replace("['ran']", "names", 1)
        project.write("tasks.py", text.replace("def ran", 'names = ["ran"]\ndef ran'))
        assert not skipped(project)
        assert skipped(project)
        project.write("tasks.py", text.replace("def ran", 'names = ["r*"]\ndef ran'))

        assert "the task prepare changed" in project.inv("prepare").err


class TestImage:
    """The files of the image's recipe are inputs of a stage on a box."""

    @pytest.mark.parametrize(
        ("settings", "changed"),
        [
            ('setup = "setup.sh"\ninclude = ["tools/"]', "setup.sh"),
            ('setup = "setup.sh"\ninclude = ["tools/"]', "tools/new"),
            ('requirements = "requirements.txt"', "more.txt"),
            ('requirements = "uv.lock"', "uv.lock"),
            ('requirements = "uv.lock"', "pyproject.toml"),
        ],
    )
    def test_a_changed_file_is_a_reason_to_run(
        self, project: Project, settings: str, changed: str
    ) -> None:
        """The plan would build an image, so the stage is not up to date."""
        files = {
            "setup.sh": "true\n",
            "tools/new": "1",
            "requirements.txt": "-r more.txt\n",
            "more.txt": "six\n",
            "uv.lock": "version = 1\n",
            "pyproject.toml": '[project]\nname = "census"\nversion = "1"\n',
        }
        for name, text in files.items():
            project.write(name, text)
        project.write(
            "onebox.toml", f"{project.read('onebox.toml')}[image]\n{settings}\n"
        )
        project.write("tasks.py", HEAD + IMAGE)
        assert not skipped(project, "prepare", "--only")
        assert skipped(project, "prepare", "--only")
        project.write(changed, f"{files[changed]}\n# new\n")
        if changed == "pyproject.toml":
            project.write(changed, files[changed].replace('"1"', '"2"'))

        done = project.inv("prepare", "--only")

        assert f"prepare runs: {changed} changed" in done.err
