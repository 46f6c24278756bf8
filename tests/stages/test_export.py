"""`inv export` writes a file of the project, and needs no box and no account."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml

from tests.conftest import Project

MAP = '[map]\ncommand = "echo {n}"\nover = { n = "1..3" }\n'
FILES = [("skypilot", "task.yaml"), ("slurm", "job.sbatch")]


@pytest.mark.parametrize(("to", "name"), FILES)
def test_file_is_written_and_an_existing_one_kept(
    project: Project, to: str, name: str
) -> None:
    """--force replaces it, and keeps a copy."""
    done = project.inv("export", f"--to={to}")
    text = project.read(name)
    project.write(name, "mine")
    refused = project.inv("export", f"--to={to}")

    assert (0, "") == (done.code, done.out), done.err
    assert f"`inv export --to={to}` from onebox.toml" in text
    assert (64, "mine") == (refused.code, project.read(name))
    assert f"next: inv export --to={to} --force to replace it" in refused.err
    replaced = project.inv("export", f"--to={to}", "--force")
    assert (0, text) == (replaced.code, project.read(name))
    assert f"the {name} before is now {name}~" in replaced.err
    assert "mine" == project.read(f"{name}~")


@pytest.mark.fast
def test_dash_prints_the_file(project: Project) -> None:
    """It is byte for byte what would be written, also with long lines."""
    project.write(
        "onebox.toml", f'[run]\ncommand = "echo {"long " * 60}[red]x[/red]"\n'
    )
    printed = project.onebox("export", "--to=slurm", "--file=-")

    assert 0 == printed.code, printed.err
    assert not (project.root / "job.sbatch").exists()
    assert 0 == project.onebox("export", "--to=slurm").code
    assert project.read("job.sbatch") == printed.out
    assert f"sbatch {'job.sbatch'}" in printed.out


def test_file_may_be_anywhere(project: Project) -> None:
    """It is relative to the working folder; no folder or pipe is replaced."""
    (project.root / "sub").mkdir()
    outside = project.home / "x.sbatch"
    lines = [f"--file={outside}", "--file=sub/y.sbatch"]

    assert [0, 0] == [project.inv("export", "--to=slurm", w).code for w in lines]
    assert "sbatch x.sbatch" in outside.read_text()
    assert "#SBATCH" in project.read("sub/y.sbatch")
    os.mkfifo(project.root / "pipe")
    for wrong in ("sub", "no/z.sbatch", "pipe"):
        done = project.inv("export", "--to=slurm", f"--file={wrong}", "--force")
        assert (64, True) == (done.code, "next: inv export --to=slurm" in done.err)


@pytest.mark.fast
@pytest.mark.parametrize("words", [[], ["--to=ray"]])
def test_tool_must_be_known(project: Project, words: list[str]) -> None:
    """The lines to type are printed."""
    done = project.onebox("export", *words)

    assert 64 == done.code
    assert "next: onebox export --to=skypilot" in done.err
    assert "onebox export --to=slurm" in done.err


def test_units_are_exported_if_there_is_nothing_else_to_run(project: Project) -> None:
    """With `[run] command`, --units exports them."""
    project.write("onebox.toml", MAP)
    assert 0 == project.inv("export", "--to=slurm").code
    assert "--array=1-3" in project.read("job.sbatch")
    project.write("onebox.toml", MAP + '[run]\ncommand = "echo job"\n')
    job = project.inv("export", "--to=slurm", "--file=-")
    units = project.inv("export", "--to=slurm", "--file=-", "--units")

    assert ("--array" in job.out, "run_line 'echo job'" in job.out) == (False, True)
    assert ("--array" in units.out, "echo job" in units.out) == (True, False)


@pytest.mark.parametrize(("to", "name"), FILES)
def test_nothing_to_run_is_the_error_of_run_and_map(
    project: Project, to: str, name: str
) -> None:
    """No file is written."""
    project.write("onebox.toml", "")
    for words, same in (([], "run"), (["--units"], "map")):
        done = project.inv("export", f"--to={to}", *words)
        assert 78 == done.code
        assert project.inv(same).err == done.err
    assert not (project.root / name).exists()


def test_export_asks_no_cloud_and_makes_no_box(project: Project) -> None:
    """It works without credentials, and a flag of the line counts."""
    project.write("onebox.toml", 'provider = "aws"\n[run]\ncommand = "true"\n')
    done = project.inv("export", "--to=skypilot", "--vm=xlarge", "--spot")
    resources = yaml.safe_load(project.read("task.yaml"))["resources"]

    assert 0 == done.code, done.err
    assert ("512+", True, "aws") == (
        resources["memory"],
        resources["use_spot"],
        resources["cloud"],
    )
    assert [] == project.boxes()


def test_only_data_that_git_ignores_is_mounted(project: Project) -> None:
    """SkyPilot uploads the rest of the project itself."""
    toml = '[run]\ncommand = "true"\n[push]\ndata = ["kept/", "data/", "half/"]\n'
    project.write("onebox.toml", toml)
    project.write(".gitignore", "/data/\n/half/b\n")
    for name in ("kept/a", "data/a", "half/a", "half/b"):
        project.write(name, "x")
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    done = project.inv("export", "--to=skypilot")
    task = yaml.safe_load(project.read("task.yaml"))

    assert 0 == done.code, done.err
    assert {"~/sky_workdir/data": "data", "~/sky_workdir/half": "half"} == task[
        "file_mounts"
    ]


def test_value_of_a_secret_is_in_no_file(project: Project) -> None:
    """The variable is not even needed here."""
    project.write(
        "onebox.toml", '[run]\ncommand = "true"\nsecrets = ["HF_TOKEN", "OTHER"]\n'
    )
    for to, name in FILES:
        done = project.inv("export", f"--to={to}", env={"HF_TOKEN": "hf_value"})
        assert 0 == done.code, done.err
        assert "OTHER" in project.read(name)
        assert "hf_value" not in project.read(name)
