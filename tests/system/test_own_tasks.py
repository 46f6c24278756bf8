"""Stages in the user's own tasks, in Python and in namespaces."""

from __future__ import annotations

from tests.conftest import Project
from tests.system.lines import finished_stages


def test_tasks_can_have_a_namespace(project: Project) -> None:
    """`Collection(train, box=onebox.ns)` puts the tasks into a namespace."""
    project.write(
        "tasks.py",
        "import onebox\nfrom invoke import Collection, task\n"
        "@task\ndef train(c):\n    print('mine')\n"
        "ns = Collection(train, box=onebox.ns)\n",
    )
    done = project.inv("box.run", "--vm=small", "train")

    assert (0, "working\nmine\n") == (done.code, done.out)


def test_plain_task_can_have_a_stage_as_pre(project: Project) -> None:
    """`@task(pre=[push])` finds the box up with the files on it; the box stays."""
    project.write(
        "tasks.py",
        "from onebox import *\nfrom invoke import task\n"
        "@task(pre=[push])\ndef look(c):\n    ssh(c)\n",
    )
    done = project.inv("look", "--", "cat job.sh")

    assert (0, project.read("job.sh")) == (done.code, done.out)
    assert 1 == len(project.boxes())


def test_user_can_write_a_stage(project: Project) -> None:
    """
    `@stage(push)` accepts the shared flags, runs the chain, and deletes the
    box.
    """
    project.write(
        "tasks.py",
        "from onebox import *\n"
        "@stage(push)\n"
        "def train(c, epochs=3):\n"
        "    run(c, command=f'echo {epochs} epochs')\n"
        "    run(c, command='echo again')\n",
    )
    done = project.inv("train", "--epochs=5", "--vm=large")

    assert (0, "5 epochs\nagain\n") == (done.code, done.out)
    assert 1 == finished_stages(done.err).count("provision")
    assert "large" in done.err.splitlines()[0]
    assert [] == project.boxes()


def test_run_in_a_loop_is_a_whole_chain_each_time(project: Project) -> None:
    """`run(c, vm=…, name=…)` creates and deletes a box each time."""
    project.write(
        "tasks.py",
        "from onebox import *\nfrom invoke import task\n"
        "@task\ndef grid(c):\n"
        "    for size in ('small', 'large'):\n"
        "        run(c, vm=size, name=size, command=f'echo {size}')\n",
    )
    done = project.inv("grid")

    assert (0, "small\nlarge\n") == (done.code, done.out)
    assert 2 == finished_stages(done.err).count("teardown")
    assert [] == project.boxes()


def test_failing_job_ends_the_users_task_with_its_code(project: Project) -> None:
    """The job's exit code is inv's."""
    project.write(
        "tasks.py",
        "from onebox import *\nfrom invoke import task\n"
        "@task\ndef go(c):\n    run(c, command='exit 9')\n    print('never')\n",
    )
    done = project.inv("go")

    assert (9, "") == (done.code, done.out)


def test_line_typed_in_a_subfolder_works_on_the_project(project: Project) -> None:
    """The project is the folder with tasks.py."""
    (project.root / "deep" / "er").mkdir(parents=True)
    done = project.inv("run", cwd=project.root / "deep" / "er")

    assert 0 == done.code
    assert "42\n" == project.read("results/answer.txt")
