"""`inv init` looks around in the project, and writes what fits."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from onebox.context import BoxContext
from onebox.invocation import Invocation
from onebox.settings import load
from onebox.settings.conda import setup_script
from onebox.settings.json_schema import json_schema
from onebox.stages import init, project_survey
from tests.conftest import Project

PYPROJECT = '[project]\nname = "x"\nrequires-python = ">= 3.11, <3.13"\n'


def test_init_finds_everything_a_job_needs(project: Project) -> None:
    """The file is valid, and a plan of it is not refused."""
    empty(project)
    project.write("train.py", "open('outputs/model', 'w')\n")
    for name in ("uv.lock", "ckpt/x", "data/big"):
        project.write(name, "")
    project.write("pyproject.toml", PYPROJECT)
    project.write(".python-version", "3.12\n")
    project.write(".gitignore", "*.pyc\n/data/")
    git(project.root, "init")
    done = project.inv("init")
    text = project.read("onebox.toml")

    assert 0 == done.code, done.err
    assert "#:schema ./.onebox/schema.json" == text.splitlines()[0]
    assert json.loads(project.read(".onebox/schema.json")) == json_schema()
    made = load(project.root, {}, {})
    assert "python train.py" == made.run.command
    assert ("3.12", "uv.lock") == (made.image.python, made.image.requirements)
    assert (("outputs/",), ("ckpt/",)) == (made.fetch.outputs, made.fetch.checkpoints)
    assert ("data/",) == made.push.data
    ignored = "*.pyc\n/data/\n.onebox/\n/outputs/\n/ckpt/\n"
    assert ignored == project.read(".gitignore")
    assert "next: inv plan, then inv run" == done.err.splitlines()[-1].strip()
    assert 0 == project.inv("plan").code


@pytest.mark.parametrize("installed", ["", "pyproject.toml", "setup.py"])
def test_package_in_src_can_be_imported(project: Project, installed: str) -> None:
    """A package that is not installed is in PYTHONPATH."""
    empty(project)
    project.write("src/census_lib/__init__.py", "word = 'found'\n")
    project.write("train.py", "import census_lib; print(census_lib.word)\n")
    if installed:
        project.write(installed, "")
    assert 0 == project.inv("init").code
    env = load(project.root, {}, {}).run.env

    assert ({} if installed else {"PYTHONPATH": "src"}) == env
    if not installed:
        assert "found\n" == project.inv("run").out


def test_init_names_no_script_that_is_not_there(project: Project) -> None:
    """Without a script the command is a comment, and the last line says so."""
    empty(project)
    project.write("test_x.py", "")
    done = project.inv("init")

    assert 0 == done.code, done.err
    assert load(project.root, {}, {}).run.command is None
    assert "next: set [run] command in onebox.toml, then inv plan" in done.err
    assert ".onebox/\n/results/\n" == project.read(".gitignore")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ("fit.py", "train_model.py"),
            "2 scripts, fit.py and train_model.py: choose one",
        ),
        (("a.py", "b.py", "c.py", "d.py"), "4 scripts, a.py, b.py, c.py and 1 more: "),
    ],
)
def test_several_scripts_are_named(
    project: Project, names: tuple[str, ...], text: str
) -> None:
    """None of them is the job for certain, so the command stays a comment."""
    empty(project)
    for name in names:
        project.write(name, "")
    done = project.onebox("init")

    assert f"onebox.toml: {text}" in done.err, done
    assert "no script found" not in done.err
    assert load(project.root, {}, {}).run.command is None
    run = project.onebox("run")
    # A second `init` would be refused.
    assert "next: set [run] command in onebox.toml, or onebox run --" in run.err, run
    (project.root / "onebox.toml").unlink()
    assert "next: onebox init, or onebox run --" in project.onebox("run").err


def test_second_init_is_refused(project: Project) -> None:
    """The file stays; --force replaces it, and keeps a copy that nothing replaces."""
    before = project.read("onebox.toml")
    done = project.inv("init")
    assert (64, before) == (done.code, project.read("onebox.toml"))
    assert "next: inv plan, or inv init --force" in done.err
    replaced = project.inv("init", "--force")
    assert 0 == replaced.code
    assert "the onebox.toml before is now onebox.toml~\n" in replaced.err
    assert "bash job.sh" in project.read("onebox.toml")
    assert before == project.read("onebox.toml~")
    ignored = project.read(".gitignore")
    again = project.inv("init", "--force")
    assert (0, False) == (again.code, "~" in again.err)
    assert ignored == project.read(".gitignore")
    project.write("onebox.toml", "# mine\n")
    assert "is now onebox.toml~2\n" in project.inv("init", "--force").err
    assert (before, "# mine\n") == tuple(
        project.read(name) for name in ("onebox.toml~", "onebox.toml~2")
    )


def test_schema_of_another_version_is_written_again(project: Project) -> None:
    """Any task does so; a project without a schema gets none."""
    path = project.root / ".onebox/schema.json"
    assert 0 == project.inv("plan").code
    assert not path.exists()
    project.write(".onebox/schema.json", '{"title": "of an earlier version"}')
    assert 0 == project.inv("plan").code

    assert json_schema() == json.loads(path.read_text())


def test_schema_is_not_written_through_a_link(project: Project, tmp_path: Path) -> None:
    """A cloned project may have a link in its place; the task runs."""
    place = project.write("secret", "sesame\n")
    link = project.root / ".onebox/schema.json"
    link.parent.mkdir()
    link.symlink_to(place)

    assert 0 == project.inv("plan").code
    assert "sesame\n" == place.read_text()


@pytest.mark.parametrize("text", [None, "import invoke\n", "import onebox\n"])
def test_init_writes_tasks_only_if_there_are_none(
    project: Project, text: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """An existing tasks.py is not changed: the line that it lacks is printed."""
    empty(project)
    (project.root / "tasks.py").unlink()
    if text is not None:
        project.write("tasks.py", text)
    init.perform(
        BoxContext.open(str(project.root), project.environ, {}, Invocation("inv init"))
    )

    assert (text or "from onebox import *\n") == project.read("tasks.py")
    asked = "add this line to tasks.py: from onebox import *" in capfd.readouterr().err
    assert asked == (text == "import invoke\n")


def test_outputs_that_git_tracks_are_not_ignored(project: Project) -> None:
    """Their files belong to the repository."""
    empty(project)
    project.write("results/base", "")
    git(project.root, "init")
    git(project.root, "add", "results")
    assert 0 == project.inv("init").code

    assert ".onebox/\n" == project.read(".gitignore")
    assert ("results/",) == load(project.root, {}, {}).fetch.outputs


def test_init_in_a_home_folder_is_refused(project: Project) -> None:
    """Nothing of it could be pushed."""
    empty(project)
    done = project.inv("init", env={"HOME": str(project.root)})

    assert (64, True) == (done.code, "home folder" in done.err)
    assert not (project.root / "onebox.toml").exists()


def test_example_is_printed_and_nothing_is_written(project: Project) -> None:
    """It is requested output."""
    empty(project)
    done = project.inv("init", "--example")

    assert (0, "") == (done.code, done.err)
    assert "\nmax_hours = 8 " in done.out
    assert not (project.root / "onebox.toml").exists()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"src/main.py": ""}, "python3 src/main.py"),
        ({"model.py": "", "setup.py": ""}, "python3 model.py"),
        ({"a.py": "", "b.py": ""}, ""),
        (
            {"src/net/__init__.py": "", "src/net/train.py": "", "src/x/main.py": ""},
            "python3 src/net/train.py",
        ),
        ({"main.py": "", "train.py": ""}, "python3 train.py"),
        ({"run.sh": "", "requirements.txt": ""}, "bash run.sh"),
        ({"my model.py": "", "requirements.txt": ""}, "python 'my model.py'"),
    ],
)
def test_likely_script(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    """The likeliest name counts, or else the only script."""
    write(tmp_path, files)
    assert expected == project_survey.survey(tmp_path).command


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"pyproject.toml": "[tool.ruff]\n", "uv.lock": ""}, ("", "")),
        ({"pyproject.toml": PYPROJECT}, (">=3.11,<3.13", "pyproject.toml")),
        (
            {"pyproject.toml": PYPROJECT, "requirements.txt": "x"},
            (">=3.11,<3.13", "requirements.txt"),
        ),
        ({".python-version": "3.12.1\n", "environment.yml": ""},
         ("3.12.1", "")),
        ({".python-version": "my-env\n"}, ("", "")),
    ],
)  # fmt: skip
def test_python_and_packages(
    tmp_path: Path, files: dict[str, str], expected: tuple[str, str]
) -> None:
    """They are read from the files that other tools read."""
    write(tmp_path, files)
    found = project_survey.survey(tmp_path)

    assert expected == (found.python, found.requirements)
    (tmp_path / "onebox.toml").write_text(init.template("local", found))
    assert load(tmp_path, {}, {}).image.requirements == (expected[1] or None)


def test_init_says_what_it_has_guessed_and_what_is_left_to_do(
    project: Project,
) -> None:
    """The set-up of a conda environment is a comment, and no folder was found."""
    empty(project)
    project.write("main.py", "open('res.csv', 'w')\n")
    project.write("environment.yml", "")
    done = project.inv("init")
    made = project.read("onebox.toml")
    project.write("main.py", "open('out/res.csv', 'w')\n")
    project.write("requirements.txt", "")
    again = project.inv("init", "--force")

    assert 0 == done.code, done.err
    assert "! environment.yml is not used yet: save setup.sh and uncomment" in done.err
    assert "python3 main.py, outputs in results/ (a guess)\n" in done.err
    assert re.search(r'outputs = \["results/"\] +# a guess: what does the job', made)
    assert "guess" not in again.err + project.read("onebox.toml")
    assert "environment.yml" not in again.err


def test_conda_file_is_named_with_the_line_that_creates_it(tmp_path: Path) -> None:
    """uv cannot read it, so the file is no [image] requirements."""
    write(tmp_path, {"environment.yaml": ""})
    text = init.template("local", project_survey.survey(tmp_path))

    script = [line[4:] for line in text.splitlines() if line.startswith("#   ")]
    assert setup_script("environment.yaml").splitlines() == script
    assert '# setup = "setup.sh"\n# include = ["environment.yaml"]\n' in text
    assert "requirements =" not in text


def test_notebook_is_an_example_only(tmp_path: Path) -> None:
    """Its program may not be installed, so the command is a comment."""
    write(tmp_path, {"my study.ipynb": "{}"})
    text = init.template("local", project_survey.survey(tmp_path))

    assert '# command = "jupyter nbconvert' in text
    assert "'my study.ipynb'" in text


def test_doctor_and_plan_name_a_missing_script(project: Project) -> None:
    """It is a warning, because the job could create the script."""
    project.write("onebox.toml", '[run]\ncommand = "cd src && sh no.sh --x=a.py"\n')
    doctor = project.inv("doctor")
    planned = project.inv("plan")

    assert (0, 0) == (doctor.code, planned.code), doctor
    assert "onebox.toml:2: [run] command: no.sh does not exist" in doctor.out
    assert "no.sh does not exist" in planned.out


def empty(project: Project) -> None:
    """Remove the files of the project except for tasks.py."""
    for name in ("onebox.toml", "job.sh"):
        (project.root / name).unlink()


def write(root: Path, files: dict[str, str]) -> None:
    """Write files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def git(root: Path, *words: str) -> None:
    """Run git in *root*."""
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


@pytest.mark.parametrize("name", [".onebox", ".onebox/schema.json", ".gitignore"])
def test_init_writes_through_no_link(
    project: Project, tmp_path: Path, name: str
) -> None:
    """A project that was cloned may bring links to any place, or to a secret."""
    (project.root / "onebox.toml").unlink()
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "secret").write_text("sesame\n")
    link = project.root / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(place if name == ".onebox" else place / "secret")

    done = project.inv("init")

    assert ["secret"] == [path.name for path in place.iterdir()]
    assert "sesame\n" == (place / "secret").read_text()
    if name == ".onebox/schema.json":
        assert 0 == done.code, done.err
        assert not link.is_symlink()
        return
    assert 78 == done.code, done.err
    assert f"{name} is not a" in done.err
    assert link.is_symlink()
    assert not (project.root / "onebox.toml").exists()


@pytest.mark.parametrize("name", [".onebox", ".onebox/jobs", ".onebox/notebook/main"])
def test_no_file_of_a_box_is_written_through_a_link(
    project: Project, tmp_path: Path, name: str
) -> None:
    """Links in .onebox could lead what a box sends to any place."""
    link = project.root / name
    link.parent.mkdir(parents=True, exist_ok=True)
    place = tmp_path / "elsewhere"
    place.mkdir()
    link.symlink_to(place)

    done = project.inv("run")

    assert 78 == done.code, done.err
    assert f"{name} is not a folder" in done.err
    assert [] == list(place.iterdir())
    link.unlink()
    assert 0 == project.inv("teardown").code


@pytest.mark.parametrize("text", ["[run\n", "vm = 7\n", '[run]\nno = "x"\n'])
def test_force_replaces_a_file_that_is_wrong(project: Project, text: str) -> None:
    """The file is kept under another name; without `--force` it is an error."""
    project.write("onebox.toml", text)
    assert 78 == project.onebox("init").code
    done = project.onebox("init", "--force")

    assert 0 == done.code, done.err
    assert text == project.read("onebox.toml~")
    assert 0 == project.onebox("status").code
