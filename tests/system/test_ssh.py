"""`inv ssh`: the box as a place, with the job's folder and environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.system.test_terminal import exit_code, start_in_terminal

TOML = """\
[run]
command = "sh job.sh"
env = { MODE = "it is a test" }
secrets = ["TOKEN"]
"""
# What a job and a session print about the place in which they run.
SHOW = 'echo "$PWD|$MODE|$TOKEN|$VIRTUAL_ENV|$(command -v tool)|$PYTHONUNBUFFERED"\n'
SECRET = "s3cret-value-of-the-user"


def make_venv(project: Project) -> None:
    """Create an environment like the one of `[image] python`, with one tool."""
    script = "mkdir -p ~/.venv/bin; ln -s /bin/true ~/.venv/bin/tool"
    assert 0 == project.inv("ssh", "--", script).code


def in_box(project: Project, path: str) -> Path:
    """Return the path of a file in the home folder of the only box."""
    (box,) = project.boxes()
    return project.home / "local" / "boxes" / box / "disk" / "home" / path


def test_command_runs_where_and_as_a_job_runs(project: Project) -> None:
    """Folder, variables, secrets and virtual environment are those of a job."""
    project.write("onebox.toml", TOML)
    project.write("job.sh", SHOW)
    project.environ["TOKEN"] = SECRET
    project.inv("push")
    make_venv(project)
    job = project.inv("run", "--keep")
    assert 0 == job.code, job.err
    _, *rest = job.out.strip().split("|")
    assert "it is a test" == rest[0]
    assert SECRET == rest[1]
    assert rest[3].endswith("/.venv/bin/tool")

    one_word = project.inv("ssh", "--", SHOW.strip())
    several = project.inv("ssh", "--", "sh", "-c", SHOW.strip())

    assert job.out == one_word.out
    assert job.out == several.out


def test_command_gives_its_exit_code_and_its_input(project: Project) -> None:
    """A command reads the input of `inv ssh`, and its exit code comes back."""
    project.inv("provision")

    assert 3 == project.inv("ssh", "--", "exit 3").code
    assert 4 == project.inv("ssh", "--", "sh", "-c", "exit 4").code
    done = subprocess.run(
        project.argv("ssh", "--", "sort"),
        cwd=project.root,
        env=project.environ,
        input=b"b\na\n",
        capture_output=True,
        check=True,
    )
    assert b"a\nb\n" == done.stdout


def test_shell_has_the_environment_of_the_job(project: Project) -> None:
    """A start-up file that sets PATH does not hide the job's environment."""
    project.write("onebox.toml", TOML)
    project.environ["TOKEN"] = SECRET
    project.inv("provision")
    make_venv(project)
    bashrc = "PATH=/usr/bin:/bin; MODE=mine; VIRTUAL_ENV=; OWN=own\n"
    in_box(project, ".bashrc").write_text(bashrc)
    with start_in_terminal(project, "ssh", columns=250) as child:
        child.sendline(f"echo $OWN; {SHOW.strip()}; exit 5")
        child.expect(r"own\r\n(\S+)/work\|it is a test\|")
        home = child.match.group(1)
        child.expect_exact(f"{SECRET}|{home}/.venv|{home}/.venv/bin/tool|1")
        assert 5 == exit_code(child)


@pytest.mark.parametrize("bashrc", ["exit 9\n", "set -e\nfalse\n", "if then (\n"])
def test_shell_opens_despite_a_broken_start_up_file(
    project: Project, bashrc: str
) -> None:
    """A start-up file that ends the shell, or has an error, is survived."""
    project.inv("provision")
    in_box(project, ".bashrc").write_text(bashrc)
    with start_in_terminal(project, "ssh") as child:
        child.sendline("echo in $((40 + 2)) $PWD; exit 7")
        child.expect(r"in 42 \S+/work\r\n")
        assert 7 == exit_code(child)


def test_secrets_are_in_no_file_and_no_command_line(project: Project) -> None:
    """A session leaves nothing on the box that holds a secret."""
    project.write("onebox.toml", TOML)
    project.environ["TOKEN"] = SECRET
    project.inv("provision")
    # The session looks at all command lines while it runs.
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; echo; echo ${#TOKEN}"
    done = project.inv("ssh", "--", look)
    assert f"{len(SECRET)}" == done.out.strip().splitlines()[-1]
    assert SECRET not in done.out
    (box,) = project.boxes()
    folder = project.home / "local" / "boxes" / box
    assert [] == list(folder.rglob("session-*"))
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET.encode() not in path.read_bytes(), path


def test_missing_secret_is_named_and_the_shell_opens(project: Project) -> None:
    """`inv run` refuses a missing secret; a look at the box does not need it."""
    project.write("onebox.toml", TOML)
    project.inv("provision")

    done = project.inv("ssh", "--", "echo in ${TOKEN-none}")

    assert "in none\n" == done.out
    assert "not in the environment here, so not on the box either: TOKEN" in done.err


def test_box_whose_agent_cannot_prepare_a_session_is_still_opened(
    project: Project,
) -> None:
    """The session then starts in the home folder, and a warning says so."""
    project.inv("provision")
    in_box(project, "../onebox/files").write_text("not a folder")

    done = project.inv("ssh", "--", "echo in $PWD")

    assert done.out.endswith("/home\n")
    assert "starts in the home folder" in done.err


# The box closes the connection in the moment in which a session is asked for.
CUT_ONCE = """\
from onebox.errors import ConnectionLost
from onebox.remote.channel import AgentChannel
request = AgentChannel.request
cuts = []
def cut_once(self, op, *args, **kwargs):
    if op == "session" and not cuts:
        cuts.append(op)
        raise ConnectionLost("Connection reset by peer")
    return request(self, op, *args, **kwargs)
AgentChannel.request = cut_once
"""


def test_session_begins_although_the_first_connection_breaks(
    project: Project, tmp_path: Path
) -> None:
    """The ssh server of a box that boots may start anew after it has answered."""
    project.inv("provision")
    (tmp_path / "sitecustomize.py").write_text(CUT_ONCE)
    project.environ["PYTHONPATH"] = str(tmp_path)

    done = project.inv("ssh", "--", "echo here; exit 7")

    assert (7, "here\n") == (done.code, done.out)
    assert "connection lost (Connection reset by peer); trying again (1)" in done.err
