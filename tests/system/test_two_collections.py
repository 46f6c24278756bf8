"""Two boxes of one project, each with its own file of settings and namespace."""

from __future__ import annotations

import pytest

from tests.conftest import Project

TASKS = """\
import onebox
from invoke import Collection, task
from onebox import push, run, stage

gpu = onebox.collection("gpu.toml")

@stage(gpu["push"])
def train(c):
    run(c, command="echo trained with $KIND")

@task
def both(c):
    run(c)
    gpu["run"](c)

ns = Collection(train, both, *onebox.ns.tasks.values())
ns.add_collection(gpu, name="gpu")
"""


def toml(kind: str) -> str:
    """Return a file of settings whose job tells its kind."""
    return (
        f'[run]\ncommand = "echo job on $KIND; mkdir -p {kind}; date > {kind}/x"\n'
        f'env = {{ KIND = "{kind}" }}\n[fetch]\noutputs = ["{kind}/"]\n'
    )


@pytest.fixture
def two(project: Project) -> Project:
    """A project with onebox.toml, gpu.toml and two namespaces."""
    project.write("tasks.py", TASKS)
    project.write("onebox.toml", toml("cpu"))
    project.write("gpu.toml", toml("gpu"))
    return project


def test_each_namespace_has_its_own_file_and_box(two: Project) -> None:
    """One line runs both jobs, although the tasks have the same name and body."""
    done = two.inv("run", "gpu.run")

    assert done.code == 0, done.err
    assert done.out.splitlines() == ["job on cpu", "job on gpu"]
    assert "census/main" in done.err
    assert "census/gpu" in done.err
    assert (two.root / "cpu/x").exists()
    assert (two.root / "gpu/x").exists()
    assert two.boxes() == []


def test_a_stage_of_one_namespace_is_no_request_for_the_other(two: Project) -> None:
    """`gpu.provision` keeps the box of gpu.toml only."""
    done = two.inv("gpu.provision", "run")

    assert done.code == 0, done.err
    assert len(two.boxes()) == 1
    assert "census/gpu " in two.inv("status").out


def test_status_of_each_namespace_is_that_of_its_box(two: Project) -> None:
    """No line is printed twice, with a box and without."""
    two.inv("gpu.provision")
    main, gpu, *_ = two.inv("status", "gpu.status").out.splitlines()
    assert main == "census/main: no box is up"
    assert gpu.startswith("census/gpu   ob-")
    two.inv("gpu.run", "gpu.teardown")
    main, gpu, job = two.inv("status", "gpu.status").out.splitlines()
    assert main == "census/main: no box is up"
    assert gpu == "census/gpu: no box is up"
    assert job.endswith(": succeeded")
    # A line with one of them is about all boxes of the project.
    assert " on census/gpu: succeeded" in two.inv("status").out


def test_messages_name_the_namespace(two: Project) -> None:
    """The commands in messages can be typed as they are."""
    done = two.inv("gpu.run", "--detach")
    assert "follow it: inv gpu.logs     stop it: inv gpu.cancel" in done.err
    assert two.inv("gpu.logs").code == 0
    assert two.inv("gpu.fetch", "gpu.teardown").code == 0
    assert two.boxes() == []


def test_tasks_of_the_user_reach_both_boxes(two: Project) -> None:
    """
    A stage uses the file of the stages it needs, also for the stages it calls; a task
    can call stages of both files.
    """
    assert two.inv("train").out == "trained with gpu\n"
    done = two.inv("both")
    assert done.out == "job on cpu\njob on gpu\n"


def test_shared_flags_apply_to_both(two: Project) -> None:
    """A flag holds for the whole line, in both namespaces."""
    done = two.inv("run", "gpu.run", "--vm=medium")
    assert done.code == 0, done.err
    assert done.err.count("medium: this machine") == 2


def test_one_name_for_two_boxes_is_refused(two: Project) -> None:
    """Two files would otherwise change one box; nothing is started."""
    done = two.inv("run", "gpu.run", "--name=x")
    assert done.code == 64
    assert done.err == (
        "onebox[64]: --name names one box, but the tasks use onebox.toml and gpu.toml\n"
    )
    assert two.boxes() == []
    assert "census/x" in two.inv("gpu.run", "--name=x").err


def test_a_file_that_does_not_exist_is_an_error_of_its_namespace(two: Project) -> None:
    """Tasks of the other namespace work."""
    (two.root / "gpu.toml").unlink()
    done = two.inv("gpu.plan")
    assert (done.code, done.err) == (
        78,
        "onebox[78]: onebox.collection: gpu.toml does not exist\n",
    )
    assert two.inv("plan").code == 0


def test_configuration_of_a_collection_applies_to_its_tasks(two: Project) -> None:
    """Invoke's configuration of one namespace leaves the other alone."""
    config = 'gpu.configure({"onebox": {"vm": "medium"}})\n'
    two.write("tasks.py", TASKS + config)
    assert 'vm\t"medium"\tcollection.configure()' in (
        two.inv("gpu.doctor", "--settings").out
    )
    assert "medium" not in two.inv("doctor", "--settings").out
