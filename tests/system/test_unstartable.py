"""A command that cannot start is refused before a box is created for it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import Project


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "problem", "hint"),
    [
        (
            "job.py 0",
            "job.py is a file here, not a program",
            "onebox run -- python job.py 0",
        ),
        (
            "./job.py",
            "./job.py is not executable",
            "onebox run -- python job.py, or chmod +x job.py",
        ),
        ("./tool", "./tool is not executable", "chmod +x tool"),
        (
            "prog.sh a",
            "prog.sh is a file here, not a program",
            "onebox run -- ./prog.sh a",
        ),
        ("bash missing.sh", "missing.sh does not exist", "correct the command"),
        ("sh -eu jb.sh", "jb.sh does not exist", "onebox run -- sh -eu job.sh"),
        (
            "python jbo.py 'a  b'",
            "jbo.py does not exist",
            "onebox run -- python job.py 'a  b'",
        ),
        ("src/no.sh", "src/no.sh does not exist", "correct the command"),
        ("nothing.py 0", "nothing.py does not exist", "correct the command"),
        ("jbo.py 0", "jbo.py does not exist", "onebox run -- python job.py 0"),
        ("no-such.R", "no-such.R does not exist", "correct the command"),
        ("pythn job.py", "there is no program pythn", "onebox run -- python job.py"),
        ("bahs job.sh", "there is no program bahs", "onebox run -- bash job.sh"),
    ],
)
def test_the_reason_and_the_command_that_was_meant_are_named(
    project: Project, line: str, problem: str, hint: str
) -> None:
    """`run` and `plan` refuse with the same words and exit code."""
    project.write("job.py", "print(1)\n")
    project.write("tool", "#!/bin/sh\n")
    project.write("prog.sh", "#!/bin/sh\n").chmod(0o755)
    for task in ("run", "plan"):
        done = project.onebox(task, *shlex.split(line))
        assert 66 == done.code, (done.out, done.err)
        assert problem in done.err
        assert f"  next: {hint}\n" in done.err
    assert [] == project.boxes()


@pytest.mark.fast
def test_the_command_of_the_file_is_corrected_in_the_file(project: Project) -> None:
    """The message names the line, and what to write there."""
    project.write("job.py", "print(1)\n")
    project.write("onebox.toml", '[run]\ncommand = "job.py 1"\n')
    done = project.onebox("run")

    assert 66 == done.code
    problem = "onebox.toml:2: [run] command: job.py is a file here, not a program"
    assert f"onebox[66]: {problem}\n" in done.err
    assert '  next: [run] command = "python job.py 1"\n' in done.err


@pytest.mark.fast
@pytest.mark.parametrize(
    "line",
    [
        ["./prog"],
        ["python", "-m", "missing"],
        ["bash", "-c", "./made.sh"],
        ["--command=cp job.sh x.sh && sh x.sh"],
        ["packaged.py"],
        ["ls"],
        # The image may have these programs.
        ["nextflow", "run", "main.nf"],
        ["xpython", "job.py"],
        ["python9", "job.py"],
        ["pypyx", "job.py"],
        ["pyston", "job.py"],
        ["ptpython", "job.py"],
        ["bashdb", "job.sh"],
        ["tooling.py"],
        ["./link.sh"],
        ["python", "link.py"],
        ["./away/link.sh"],
        ["--command=PYTHONPATH=./src python3 packaged.py"],
        ["--command=DATA=data/x A='b c' D=\"e f\" python packaged.py"],
        ["--command=PATH=bin packaged2.py"],
        ["--command=A=b/c"],
        ["--command=env A=data/x python missing.py"],
        ["--command=time python missing.py"],
        ["--command=nohup python missing.py"],
        ["--command=exec python missing.py"],
    ],
)
def test_a_command_that_can_start_is_left_alone(
    project: Project, line: list[str]
) -> None:
    """A script with a first line and the x bit, programs, and lines for a shell."""
    project.write("prog", "#!/bin/sh\n").chmod(0o755)
    project.write("packaged.py", "")
    project.write("packaged2.py", "")
    project.write("nextflow", "a configuration")
    for name in ("link.sh", "link.py", "away"):
        (project.root / name).symlink_to(f"/nonexistent/{name}")
    project.write("setup.py", "setup(scripts=['packaged.py', 'tooling.py'])\n")
    planned = project.onebox("run", "--dry", *line)

    assert [] == project.boxes()
    assert 0 == planned.code, planned.err


@pytest.mark.fast
def test_variables_before_the_program_are_no_program(project: Project) -> None:
    """The script behind them is checked. In a command of words, they are a program."""
    line = "PYTHONPATH=src/lib python3 job.py"
    project.write("onebox.toml", f'[run]\ncommand = "{line}"\n')
    project.write("job.py", "print(1)\n")
    assert 0 == project.onebox("plan").code
    (project.root / "job.py").rename(project.root / "jobs.py")
    done = project.onebox("plan")
    assert 66 == done.code
    assert "[run] command: job.py does not exist" in done.err
    meant = line.replace("job.py", "jobs.py")
    assert f'  next: [run] command = "{meant}"\n' in done.err

    done = project.onebox("run", "--", "A=src/lib", "python3", "jobs.py")
    assert 66 == done.code
    assert "A=src/lib does not exist" in done.err


@pytest.mark.fast
def test_an_image_can_contain_what_is_missing_here(project: Project) -> None:
    """With a set-up script, nothing is known about the programs of the box."""
    project.write("onebox.toml", '[image]\nsetup = "setup.sh"\n')
    project.write("setup.sh", "")

    assert 0 == project.onebox("plan", "sh", "missing.sh").code
    assert 0 == project.onebox("plan", "missing.sh").code
    assert 0 == project.onebox("plan", "pythn", "job.py").code


@pytest.mark.fast
def test_a_listed_package_can_have_the_program(project: Project) -> None:
    """Some packages have programs such as rst2html.py."""
    project.write("onebox.toml", '[image]\nrequirements = "needs.txt"\n')
    project.write("needs.txt", "docutils\n")

    assert 0 == project.onebox("plan", "rst2html.py", "a.rst").code


def test_program_that_only_the_box_has_is_not_refused(
    project: Project, tmp_path: Path
) -> None:
    """A machine may have python3 and no python, and a path of the job's own."""
    for name in ("ssh", "ssh-keygen", "git", "sh", "bash"):
        found = shutil.which(name)
        if found:
            (tmp_path / name).symlink_to(found)
    project.write("job.py", "")
    project.write("bin/tool.py", "#!/bin/sh\n").chmod(0o755)
    for command in ("python job.py", "make", "julia x.jl"):
        done = project.inv("plan", f"--command={command}", env={"PATH": str(tmp_path)})
        assert "there is no program" not in done.out, command
    done = project.inv("run", "--command=python absent.py", env={"PATH": str(tmp_path)})
    assert 66 == done.code, done.err
    assert "absent.py does not exist" in done.err
    project.write("onebox.toml", '[run]\nenv = { PATH = "bin:/usr/bin:/bin" }\n')
    assert 0 == project.inv("plan", "--command=tool.py").code
