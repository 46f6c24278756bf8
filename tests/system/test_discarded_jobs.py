"""A job whose outputs are discarded stays in the history, with its log if possible."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from onebox.boxes import delete as deletion
from onebox.context import BoxContext
from onebox.invocation import Invocation
from onebox.jobs import job_facts
from onebox.signals import Interrupted
from onebox.stages import teardown
from tests.conftest import Project
from tests.system.test_hostile_agent import (
    AGENT,
    ENDLESS,
    HELLO,
    STATUS,
    answer_frames,
)
from tests.system.test_seeing_back import until_not_running

DISCARD = ("teardown", "--discard-outputs", "--yes")


def only_entry(project: Project) -> dict[str, Any]:
    """Return the only entry of the history."""
    (entry,) = json.loads(project.inv("history", "--json").out)["entries"]
    return dict(entry)


def agent_folder(project: Project) -> Path:
    """Return the folder of the agent on the only box."""
    (box,) = project.boxes()
    return project.home / "local" / "boxes" / box / "disk" / "onebox"


def test_job_that_has_ended_keeps_log_exit_code_and_cost(project: Project) -> None:
    """Only the outputs are given up; a run that has ended is not abandoned."""
    project.write("job.sh", "echo precious; mkdir -p results; echo x >results/x")
    assert 0 == project.inv("run", "--detach").code
    until_not_running(project, "main")
    done = project.inv(*DISCARD)
    entry = only_entry(project)
    shown = project.inv("logs", f"--job={entry['job']}")

    assert (0, []) == (done.code, project.boxes())
    assert "abandoned" not in done.err
    assert ("succeeded, discarded", 0, 0) == (
        entry["outcome"],
        entry["exit"],
        entry["cost_usd"],
    )
    assert (0, "precious\n") == (shown.code, shown.out)
    assert not (project.root / "results").exists()


def test_cancelled_job_is_cancelled_in_the_history(project: Project) -> None:
    """Before its outputs are discarded, and after that."""
    project.write("job.sh", "echo up; sleep 600")
    project.inv("run", "--detach")
    project.inv("cancel")
    assert "cancelled, not fetched" == only_entry(project)["outcome"]
    project.inv(*DISCARD)
    entry = only_entry(project)

    assert ("cancelled, discarded", 143) == (entry["outcome"], entry["exit"])
    assert "up\n" == (project.root / entry["log"]).read_text()


def test_job_that_still_runs_is_discarded_with_its_log_up_to_now(
    project: Project,
) -> None:
    """Its exit code is unknown, and its run is abandoned."""
    project.write("job.sh", "echo precious; sleep 600")
    project.inv("run", "--detach")
    while "precious" not in project.inv("logs", "--no-follow").out:
        time.sleep(0.1)
    (log,) = project.root.glob(".onebox/jobs/*/log")
    log.unlink()
    done = project.inv(*DISCARD)
    entry = only_entry(project)

    assert (0, []) == (done.code, project.boxes())
    assert f"the run of job {entry['job']} is abandoned" in done.err
    assert ("discarded", None, 0) == (
        entry["outcome"],
        entry["exit"],
        entry["cost_usd"],
    )
    assert "sh job.sh" == entry["command"]
    assert "precious\n" == log.read_text()


def open_for_discard(project: Project) -> BoxContext:
    """Return a context for the teardown that discards the outputs."""
    line = Invocation("inv teardown --discard-outputs --yes", ("teardown",))
    return BoxContext.open(str(project.root), project.environ, {}, line)


@pytest.mark.parametrize("hostile", [True, False])
def test_box_that_does_not_answer_is_removed_and_its_job_is_listed(
    project: Project, monkeypatch: pytest.MonkeyPatch, *, hostile: bool
) -> None:
    """A log without end is no answer either."""
    project.inv("run", "--detach", "--", "true")
    until_not_running(project, "main")
    (job,) = [path.name for path in project.root.glob(".onebox/jobs/*")]
    agent = agent_folder(project)
    status = {**STATUS, "job": job, "record": None, "state": "running"}
    answers = {
        "hello": answer_frames(HELLO),
        "job": answer_frames(status),
        "follow": [("S", "{}", ENDLESS * 1000)],
    }
    (agent / "answers.json").write_text(json.dumps(answers))
    (agent / "agent.pyz").write_text(
        AGENT if hostile else "import time; time.sleep(99)"
    )
    monkeypatch.setattr(teardown, "ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(teardown, "LOG_SECONDS", 1.0)
    context = open_for_discard(project)
    try:
        teardown.perform(context, discard=True, yes=True)
    finally:
        context.store.unlock()

    assert [] == project.boxes()
    # `status` has reported its end.
    assert ("succeeded, discarded", 0) == (
        only_entry(project)["outcome"],
        only_entry(project)["exit"],
    )
    if not hostile:
        shown = project.inv("logs", f"--job={job}")
        assert 64 == shown.code
        assert f"the log of job {job} is not here, and its box is gone" in shown.err


def test_damaged_facts_of_a_job_are_no_facts(
    project: Project,
) -> None:
    """A cloned project may bring any file."""
    folder = project.root / ".onebox/jobs/20261112-120000-abcd"
    folder.mkdir(parents=True)
    for text in ("", "[]", '{"job": 7}', '{"job": "x"}', '{"job": "' + folder.name):
        (folder / job_facts.FILE).write_text(text)
        assert "no information" == only_entry(project)["outcome"]
    document = {"job": folder.name, "command": "\x1b]0;x", "hourly": "1"}
    (folder / job_facts.FILE).write_text(json.dumps(document))
    assert only_entry(project)["command"] is None
    del document["hourly"]
    (folder / job_facts.FILE).write_text(json.dumps(document))
    assert (only_entry(project)["command"] or "\x1b").isprintable()


@pytest.mark.parametrize(
    "wrong",
    [
        {"started": 1 << 62},
        {"started": -9e10},
        {"hourly": 9e18},
        {"seconds": 9e10 * 100},
        {"exit": 99999},
    ],
)
def test_impossible_number_in_a_file_of_the_project_is_ignored(
    project: Project, wrong: dict[str, float]
) -> None:
    """A project that was cloned may bring any file; the other jobs are listed."""
    job = "20261101-101010-aaaa"
    facts = {"job": job, "exit": 0, "cause": "exit", **wrong}
    project.write(f".onebox/jobs/{job}/job.json", json.dumps(facts))
    done = project.inv("history", "--json")

    assert 0 == done.code, done.err
    (entry,) = json.loads(done.out)["entries"]
    assert "no information" == entry["outcome"]


def test_outputs_that_are_fetched_after_all_are_not_called_discarded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A discard can be interrupted before the box is removed."""
    project.write("job.sh", "mkdir -p results; echo x >results/x")
    assert 0 == project.inv("run", "--detach").code
    until_not_running(project, "main")
    context = open_for_discard(project)

    def interrupted(*about: object) -> None:
        raise Interrupted(signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(deletion, "delete", interrupted)
        teardown.perform(context, discard=True, yes=True)
    context.close()
    context.store.unlock()
    assert "succeeded, discarded" != only_entry(project)["outcome"]
    assert 0 == project.inv("fetch", "teardown").code

    assert "succeeded" == only_entry(project)["outcome"]


def test_interrupt_after_the_removal_does_not_lose_that_outputs_were_discarded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C takes effect when the box is gone."""
    project.write("job.sh", "mkdir -p results; echo x >results/x")
    assert 0 == project.inv("run", "--detach").code
    until_not_running(project, "main")
    context = open_for_discard(project)
    delete = deletion.delete

    def then_interrupted(*about: Any) -> None:
        delete(*about)
        raise Interrupted(signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(deletion, "delete", then_interrupted)
        teardown.perform(context, discard=True, yes=True)
    context.close()
    context.store.unlock()

    project.inv("teardown")
    assert "succeeded, discarded" == only_entry(project)["outcome"]
