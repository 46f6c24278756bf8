"""Lines with several stages and a real box."""

from __future__ import annotations

from tests.conftest import Project


def test_line_with_all_stages_runs_each_once_and_leaves_only_outputs(
    project: Project,
) -> None:
    """All six stages are on one line."""
    done = project.inv(
        *("image", "provision", "push", "run", "fetch", "teardown", "--vm=large")
    )

    assert (0, "working\n") == (done.code, done.out), done.err
    assert 1 == done.err.count("host key verified")
    assert 1 == done.err.count("image ")
    assert "run has fetched the outputs" in done.err
    assert "42\n" == project.read("results/answer.txt")
    assert [] == project.boxes()


def test_chain_deletes_its_box_if_the_users_code_fails_after_the_job(
    project: Project,
) -> None:
    """An exception does not keep the box."""
    project.write(
        "tasks.py",
        "from onebox import *\n"
        "@stage(push)\n"
        "def train(c):\n    run(c)\n    raise ValueError('mine')\n",
    )
    done = project.inv("train")

    assert 1 == done.code
    assert "ValueError: mine" in done.err
    assert "42\n" == project.read("results/answer.txt")
    assert [] == project.boxes()


def test_two_jobs_of_a_plain_task_are_two_chains(project: Project) -> None:
    """Each job gets its own box, even if the second job names it."""
    project.write(
        "tasks.py",
        "from onebox import *\nfrom invoke import task\n"
        "@task\ndef go(c):\n"
        "    run(c, command='echo a')\n"
        "    run(c, command='echo b')\n"
        "    run(c, command='echo c', name='main')\n",
    )
    done = project.inv("go")

    assert (0, "a\nb\nc\n") == (done.code, done.out), done.err
    # Each box is announced, with what it may cost.
    assert 3 == done.err.count("onebox  census/main")
    assert [] == project.boxes()


def test_run_after_a_task_that_ran_it_as_pre_is_one_job(project: Project) -> None:
    """`inv run report` runs one job."""
    project.write(
        "tasks.py",
        "from onebox import *\nfrom invoke import task\n"
        "@task(pre=[run])\ndef report(c):\n    print('report')\n",
    )
    done = project.inv("run", "report")

    assert (0, "working\nreport\n") == (done.code, done.out), done.err
    assert [] == project.boxes()


def test_state_of_a_newer_version_can_be_read_but_not_changed(project: Project) -> None:
    """Commands that change it are refused."""
    assert 0 == project.inv("provision").code
    (path,) = project.home.glob("state/projects/*/main/state.json")
    path.write_text('{"format": 99}')
    assert "running" in project.inv("status").out
    for word in ("run", "teardown"):
        done = project.inv(word)
        assert 78 == done.code
        assert "newer onebox" in done.err
        assert "Traceback" not in done.err
    assert '{"format": 99}' == path.read_text()
    assert 1 == len(project.boxes())
