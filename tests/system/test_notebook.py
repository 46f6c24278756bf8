"""`inv notebook`: a real Jupyter server on the box, through a real tunnel."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.system.test_ssh import in_box
from tests.system.test_terminal import exit_code, start_in_terminal

pytest.importorskip("jupyter_server")

# The user interface is large and slow to start. The server below it is the real one.
LAB = "from jupyter_server.serverapp import main\nmain()\n"


@pytest.fixture
def lab(project: Project) -> Project:
    """A project whose box has Jupyter in the job's environment, and three files."""
    places = [sys.prefix, sys.base_prefix]
    project.write(
        "onebox.toml",
        f'[run]\ncommand = "sh job.sh"\n[local]\nread = {json.dumps(places)}\n',
    )
    project.write("jupyterlab/__main__.py", LAB)
    project.write("jupyterlab/__init__.py", "")
    project.write("pushed.ipynb", "{}")
    project.write("edited.ipynb", "{}")
    assert 0 == project.inv("push").code
    script = f"ln -sfn {sys.prefix} ~/.venv"
    assert 0 == project.inv("ssh", "--", script).code
    return project


def url_of(project: Project) -> str:
    """Return the printed URL, once Jupyter answers."""
    project.until("Ctrl-C stops it")
    project.until("/lab?token=")
    return project.out.strip()


def ask(url: str) -> int:
    """Return the status of the answer to a request for Jupyter's own state."""
    base, _, token = url.partition("/lab?token=")
    request = urllib.request.Request(
        f"{base}/api/status", headers={"Authorization": f"token {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def servers(project: Project) -> list[str]:
    """Return the command lines of Jupyter in the user's boxes."""
    found = []
    for pid in project.processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        except OSError:
            continue
        if "jupyterlab" in words:
            found.append(words)
    return found


def ssh_of(pid: int) -> int:
    """Return the ssh process that the command *pid* runs Jupyter with."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
            parent = (path / "stat").read_text().rpartition(") ")[2].split()[1]
        except OSError:
            continue
        if int(parent) == pid and b"session-" in words:
            return int(path.name)
    raise AssertionError("no ssh")


def test_notebooks_come_back_when_ctrl_c_stops_jupyter(lab: Project) -> None:
    """Changed files are here, no program of the box replaces one of the project."""
    line = lab.start("notebook")
    url = url_of(lab)
    assert 200 == ask(url)
    text = rf"a notebook is open since [\d:]+ \(pid {line.pid}\)"
    assert re.search(f"job none yet; {text}", lab.onebox("status").out)
    with start_in_terminal(lab, "top", "--once") as child:
        child.expect(f"no job is running; {text}")
        assert 0 == exit_code(child)
    assert re.search("(?m)^jupyter .* installed$", lab.err), lab.err
    assert 403 == ask(url[:-4] + "beef")
    assert url.partition("=")[2] not in str(servers(lab))
    work = in_box(lab, "work")
    (work / "new.ipynb").write_text('{"new": 1}')
    (work / "pushed.ipynb").write_text('{"changed": "there"}')
    (work / "edited.ipynb").write_text('{"changed": "there"}')
    (work / "tasks.py").write_text("a program of the box")
    (work / "results").mkdir()
    (work / "results" / "answer").write_text("42")
    lab.write("edited.ipynb", '{"changed": "here"}')
    line.send_signal(signal.SIGINT)

    assert 0 == line.wait(60), lab.err

    assert [] == servers(lab)
    assert '{"new": 1}' == lab.read("new.ipynb")
    assert '{"changed": "there"}' == lab.read("pushed.ipynb")
    assert '{"changed": "there"}' == lab.read("edited.ipynb")
    assert '{"changed": "here"}' == lab.read("edited.ipynb~")
    assert not (lab.root / "pushed.ipynb~").exists()
    assert "42" == lab.read("results/answer")
    assert "from onebox import *\n" == lab.read("tasks.py")
    assert "a program of the box" == lab.read(".onebox/notebook/main/files/tasks.py")
    assert "edited.ipynb had been changed here: yours is now edited.ipynb~" in lab.err
    assert "kept" in lab.err
    assert 1 == len(lab.boxes())
    # Everything is here, so nothing holds the box.
    assert 0 == lab.inv("teardown").code


def test_files_of_a_session_are_not_those_of_a_later_job(lab: Project) -> None:
    """They are here. One that the job changes, or that is lost here, is named."""
    line = lab.start("notebook")
    url_of(lab)
    work = in_box(lab, "work")
    for name in ("new.ipynb", "notes.txt", "changed.txt", "lost.txt"):
        (work / name).write_text(name)
    line.send_signal(signal.SIGINT)
    assert 0 == line.wait(60), lab.err
    (lab.root / ".onebox/notebook/main/files/lost.txt").unlink()
    lab.write("job.sh", "mkdir -p results; echo 1 >results/x; echo 2 >>changed.txt")
    outputs = '[fetch]\noutputs = ["results/"]\n'
    lab.write("onebox.toml", lab.read("onebox.toml") + outputs)
    done = lab.inv("run", "--yes")

    assert 0 == done.code, done.err
    named = "2 files that the job created or changed outside of the outputs: "
    assert f"{named}changed.txt, lost.txt: not fetched" in done.err
    assert 0 == lab.inv("teardown").code


def test_notebook_moves_no_file_or_link_out_of_its_way(
    lab: Project, tmp_path: Path
) -> None:
    """A box could otherwise rename tasks.py, by a notebook in a folder of that name."""
    line = lab.start("notebook")
    url_of(lab)
    work = in_box(lab, "work")
    for name in ("job.sh", "linked"):
        (work / name).unlink(missing_ok=True)
        (work / name).mkdir()
        (work / name / "new.ipynb").write_text("{}")
    (lab.root / "linked").symlink_to(tmp_path)
    job = lab.read("job.sh")
    line.send_signal(signal.SIGINT)

    assert 0 == line.wait(60), lab.err

    assert job == lab.read("job.sh")
    assert tmp_path == (lab.root / "linked").readlink()
    assert [] == list(lab.root.glob("*~"))
    for name in ("job.sh", "linked"):
        assert "{}" == lab.read(f".onebox/notebook/main/files/{name}/new.ipynb")
    assert 0 == lab.inv("teardown").code


def test_killed_command_ends_jupyter_and_loses_no_notebook(lab: Project) -> None:
    """The next command that could remove or overwrite the notebooks fetches them."""
    line = lab.start("notebook")
    url_of(lab)
    (in_box(lab, "work") / "new.ipynb").write_text('{"new": 1}')
    line.kill()
    line.wait()
    end = time.monotonic() + 60
    while servers(lab):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert not (lab.root / "new.ipynb").exists()

    done = lab.inv("teardown")

    assert 0 == done.code, done.err
    assert '{"new": 1}' == lab.read("new.ipynb")
    assert [] == lab.boxes()


def test_broken_connection_loses_no_file_that_comes_later(lab: Project) -> None:
    """A kernel may write until the box notices that the connection is gone."""
    line = lab.start("notebook")
    url_of(lab)
    work = in_box(lab, "work")
    (work / "new.ipynb").write_text('{"new": 1}')
    os.kill(ssh_of(line.pid), signal.SIGTERM)
    assert 74 == line.wait(60), lab.err
    assert '{"new": 1}' == lab.read("new.ipynb")
    (work / "new.ipynb").write_text('{"new": 2}')

    done = lab.inv("teardown")

    assert 0 == done.code, done.err
    assert '{"new": 2}' == lab.read("new.ipynb")


def test_notebook_that_cannot_be_fetched_keeps_the_box(lab: Project) -> None:
    """Neither a teardown nor a run removes or overwrites it."""
    line = lab.start("notebook")
    url_of(lab)
    in_box(lab, "precious.csv").write_text("outside of the work folder")
    line.send_signal(signal.SIGINT)

    assert 73 == line.wait(60), lab.err

    assert "only on census/main: ~/precious.csv" in lab.err
    for words in (("teardown",), ("run",)):
        done = lab.inv(*words)
        assert 73 == done.code, done.err
        assert "~/precious.csv" in done.err
    assert 1 == len(lab.boxes())
    assert 0 == lab.inv("teardown", "--discard-outputs", "--yes").code


def test_box_without_jupyter_and_index_says_how_to_add_it(project: Project) -> None:
    """The box stays, and the way out is one line."""
    project.write(
        "onebox.toml",
        '[run]\ncommand = "sh job.sh"\n'
        '[image]\nenv = { UV_DEFAULT_INDEX = "http://127.0.0.1:9/simple" }\n',
    )
    project.write("sitecustomize.py", "")

    done = project.inv("notebook")

    assert 70 == done.code, done.err
    assert "Jupyter cannot be installed on the box" in done.err
    assert "next: add jupyterlab to [image] requirements" in done.err
    assert 1 == len(project.boxes())
