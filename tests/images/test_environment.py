"""The Python environment of a live box: the project's own package, and new packages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from onebox.images import python_env
from onebox.settings.job_tables import ImageTable
from tests.conftest import Project
from tests.system.lines import let_job_continue

PYPROJECT = """\
[project]
name = "census-lib"
version = "0.1"
dependencies = ["six==1.16.0"]

[project.scripts]
{script} = "census_lib:main"

[build-system]
requires = ["uv_build>=0.9,<0.10"]
build-backend = "uv_build"
"""
MODULE = "import six\n\n\ndef main():\n    print({word!r}, six.__version__)\n"
PRINT_SIX = "[run]\ncommand = \"python -c 'import six; print(six.__version__)'\"\n"
LISTED = '[image]\nrequirements = "needs.txt"\n'


def packages_line(err: str) -> str:
    """Return the line of the stage that updates the environment, "" if none."""
    lines = [line for line in err.splitlines() if line.startswith("packages ")]
    return lines[0] if lines else ""


def images(project: Project) -> list[Path]:
    """Return the stored images."""
    return sorted((project.home / "local" / "images").glob("oi-*"))


@pytest.mark.usefixtures("index")
def test_push_changes_what_the_job_imports(project: Project) -> None:
    """
    The project's package and its scripts come from the pushed code. They are installed
    once on a box, and again after a change of pyproject.toml, which builds no image.
    """
    project.write(
        "onebox.toml",
        '[image]\nrequirements = "pyproject.toml"\n[run]\ncommand = "census"\n',
    )
    project.write("pyproject.toml", PYPROJECT.format(script="census"))
    project.write("src/census_lib/__init__.py", MODULE.format(word="one"))
    done = project.inv("run", "--keep")
    assert (0, "one 1.16.0\n") == (done.code, done.out), done.err
    assert "census-lib, from the pushed code" in packages_line(done.err)

    project.write("src/census_lib/__init__.py", MODULE.format(word="two"))
    project.write(
        "pyproject.toml",
        PYPROJECT.format(script="census") + "\n[tool.ruff]\nline-length = 99\n",
    )
    # `uv run` uses the same environment, and creates no other one.
    done = project.inv("run", "--", "sh", "-c", "uv run census && test ! -e .venv")
    assert (0, "two 1.16.0\n") == (done.code, done.out), done.err
    assert "" == packages_line(done.err)

    pyproject = PYPROJECT.format(script="other").replace("1.16.0", "1.17.0")
    project.write("pyproject.toml", pyproject)
    project.write("onebox.toml", project.read("onebox.toml").replace("census", "other"))
    plan = project.inv("plan").out
    assert "image      • out of date  pyproject.toml changed; built for the" in plan
    assert "would run  pyproject.toml changed; census-lib" in packages_line(plan)
    done = project.inv("run")
    assert (0, "two 1.17.0\n") == (done.code, done.out), done.err
    assert "pyproject.toml changed: 1 package; census-lib" in packages_line(done.err)
    assert 1 == len(images(project))
    assert "" == packages_line(project.inv("plan").out)


@pytest.mark.usefixtures("index")
def test_list_of_packages_is_installed_on_the_live_box(project: Project) -> None:
    """
    No image is built for it until the user asks, or the box is gone. An error of uv
    ends the line, and the next one tries again.
    """
    project.write("onebox.toml", PRINT_SIX)
    project.inv("provision")
    (box,) = project.boxes()
    project.write("onebox.toml", LISTED + PRINT_SIX)
    project.write("needs.txt", "six==0.0.999\n")
    done = project.inv("run")
    assert 70 == done.code
    assert f"needs.txt could not be installed on census/main ({box})" in done.err
    assert "there is no version of six==0.0.999" in done.err
    assert "✗" in packages_line(done.err)

    project.write("needs.txt", "six==1.16.0\n")
    done = project.inv("run")
    assert (0, "1.16.0\n") == (done.code, done.out), done.err
    assert "needs.txt changed: 1 package" in packages_line(done.err)
    assert ([box], []) == (project.boxes(), images(project))
    assert "" == packages_line(project.inv("push").err)
    changed = LISTED + PRINT_SIX + 'when = "changed"\n'
    project.write("onebox.toml", changed)
    assert (0, "1.16.0\n") == ((done := project.inv("run")).code, done.out)
    assert "run        ✓ up to date" in project.inv("run").err

    assert 0 == project.inv("image").code
    assert 1 == len(images(project))
    assert "run        ✓ up to date" in project.inv("run").err
    done = project.inv(
        "run", "--", "python", "-c", "import six; print(six.__version__)"
    )
    assert (0, "1.16.0\n") == (done.code, done.out), done.err
    assert "up to date  needs.txt unchanged" in done.err
    assert [box] == project.boxes()
    project.inv("teardown")
    project.write("needs.txt", "six==1.17.0\n")
    assert "image      • would run  needs.txt changed" in project.inv("plan").out


@pytest.mark.usefixtures("index")
def test_package_that_is_no_longer_listed_is_named(project: Project) -> None:
    """It stays on the live box, so a job that needs it fails on the next one only."""
    project.write("onebox.toml", PRINT_SIX)
    project.inv("provision")
    project.write("onebox.toml", LISTED + PRINT_SIX)
    project.write("needs.txt", "six==1.16.0\niniconfig\n")
    assert "needs.txt changed: 2 packages" in packages_line(project.inv("push").err)

    project.write("needs.txt", "Iniconfig\n")
    text = "six, no longer listed, stays on this box, and the next box lacks it"
    planned = project.onebox("plan").out
    assert f"packages   • would run  needs.txt changed; {text}" in planned
    assert text in packages_line(project.onebox("push").err)
    assert f"packages   ✓ up to date  {text}" in project.onebox("plan").out

    project.write("needs.txt", "six\niniconfig\n")
    assert "no longer listed" not in project.onebox("plan").out


@pytest.mark.usefixtures("index")
def test_package_of_a_failed_update_does_not_stay_on_the_box(project: Project) -> None:
    """Only a package that was installed can stay there without being listed."""
    project.write("onebox.toml", PRINT_SIX)
    project.inv("provision")
    project.write("onebox.toml", LISTED + PRINT_SIX)
    project.write("needs.txt", "six==1.16.0\niniconfig\n")
    assert 0 == project.inv("push").code
    project.write("needs.txt", "six==1.16.0\nno-such-package-zzq\n")
    failed = project.inv("push")
    assert (70, True) == (failed.code, "no-such-package-zzq" in failed.err)

    project.write("needs.txt", "six==1.16.0\n")
    done = project.inv("push")

    stays = "iniconfig, no longer listed, stays on this box"
    assert (0, True) == (done.code, stays in done.err), done.err
    assert "no-such-package-zzq" not in done.err + project.inv("plan").out


@pytest.mark.usefixtures("index")
def test_list_of_before_a_failed_update_is_installed_again(project: Project) -> None:
    """A failed update may have replaced packages before it failed."""
    project.write("onebox.toml", PRINT_SIX)
    project.inv("provision")
    project.write("onebox.toml", LISTED + PRINT_SIX)
    project.write("needs.txt", "six==1.16.0\n")
    assert "1.16.0\n" == project.inv("run").out
    project.write("setup.py", "raise SystemExit('no project')\n")
    project.write("needs.txt", "six==1.17.0\n-e .\n")
    assert 70 == project.inv("run").code

    project.write("needs.txt", "six==1.16.0\n")
    done = project.inv("run")

    assert (0, "1.16.0\n") == (done.code, done.out), done.err


def test_other_changes_of_the_recipe_still_need_a_new_box(project: Project) -> None:
    """A changed script could have done anything, so its box is refused."""
    project.write("onebox.toml", PRINT_SIX)
    project.inv("provision")
    project.write("needs.txt", "six\n")
    project.write("setup.sh", "true\n")
    setup = LISTED + 'setup = "setup.sh"\n' + PRINT_SIX
    for text in (setup, LISTED + 'python = "3.11"\n' + PRINT_SIX):
        project.write("onebox.toml", text)
        done = project.inv("run")
        assert 64 == done.code
        assert "was created from an older image" in done.err
    assert [] == images(project)


def test_no_package_is_installed_while_a_job_runs(project: Project) -> None:
    """The environment of a job does not change under it."""
    project.write("job.sh", "while [ ! -e go ]; do sleep 0.1; done; echo end\n")
    project.inv("provision")
    project.inv("run", "--detach")
    project.write("onebox.toml", LISTED + project.read("onebox.toml"))
    project.write("needs.txt", "six\n")
    done = project.inv("push")
    assert 75 == done.code
    assert "is busy" in done.err
    assert "" == packages_line(done.err)
    let_job_continue(project)
    assert "end\n" == project.inv("logs").out


def test_restarted_job_gets_a_box_from_the_changed_recipe(project: Project) -> None:
    """A recipe that changes during a run is built before the next box is created."""
    project.write(
        "onebox.toml",
        'spot = true\n[image]\nsetup = "setup.sh"\n[run]\n'
        'command = "cat ~/made; sh job.sh"\ncancel_grace = "1 s"\n',
    )
    project.write("setup.sh", "echo first >~/made\n")
    project.write("job.sh", "sleep 600\n")
    line = project.start("run")
    project.until("first\n")
    project.write("setup.sh", "echo second >~/made\n")
    project.write("job.sh", "true\n")
    project.cut_power()

    assert 0 == line.wait(60), project.err
    assert "first\nsecond\n" == project.out


@pytest.mark.usefixtures("index")
def test_index_that_pip_would_use_is_used(tmp_path: Path) -> None:
    """uv itself reads only its own variables."""
    (tmp_path / "needs.txt").write_text("")
    argv = python_env.argv(ImageTable(requirements="needs.txt"))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_HTTP_RETRIES": "0"}
    subprocess.run(argv, cwd=tmp_path, env=env, check=True)
    (tmp_path / "needs.txt").write_text("six\n")
    env["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"
    done = subprocess.run(
        argv, cwd=tmp_path, env=env, check=False, stderr=subprocess.PIPE, text=True
    )

    assert 0 != done.returncode
    assert "http://127.0.0.1:9/simple/six/" in done.stderr


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("requirements", ["pyproject.toml", "needs.txt"])
def test_project_is_installed_without_a_network(
    tmp_path: Path, requirements: str
) -> None:
    """
    What builds the project is in the image, so a new box needs no package index. A list
    of packages may name the project too; the image is built without its files.
    """
    home, work = tmp_path / "home", tmp_path / "work"
    (work / "src/census_lib").mkdir(parents=True)
    home.mkdir()
    (work / "src/census_lib/__init__.py").write_text("word = 1\n")
    build = (
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    )
    (work / "pyproject.toml").write_text(
        f'[project]\nname = "census-lib"\nversion = "0"\n{build}'
    )
    (work / "needs.txt").write_text("six\n-e .  # this project\n")
    image = ImageTable(requirements=requirements)

    def update(
        build_system: str, *, project: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            python_env.argv(
                image, build_system=build_system, packages=not project, project=project
            ),
            cwd=work,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **env},
            capture_output=True,
            text=True,
            check=False,
        )

    pyproject = (work / "pyproject.toml").rename(tmp_path / "pyproject.toml")
    if requirements == "pyproject.toml":
        (work / "pyproject.toml").write_text(pyproject.read_text())
    made = update(build, project="")
    pyproject.rename(work / "pyproject.toml")
    assert not list(work.glob(".onebox*"))
    assert 0 == made.returncode, made.stderr
    # The cache of packages is not part of an image.
    subprocess.run(["rm", "-rf", home / ".cache"], check=True)
    done = update("", project=".", UV_OFFLINE="1")
    assert 0 == done.returncode, done.stderr
    found = subprocess.run(
        [home / ".venv/bin/python", "-c", "import census_lib; print(census_lib.word)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1\n" == found.stdout
