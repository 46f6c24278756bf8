"""A job that Slurm did not take is withdrawn, or it has started: never both."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onebox.agent.box import BoxConfig
from onebox.agent.jobs.exec import JobPlan
from onebox.agent.protocol import Refused
from onebox.agent.slurm import decision, queue_state, submitted
from onebox.agent.units import plan as unit_plan
from tests.agent.crashes import before_change, crash, names
from tests.agent.units import units

JOB = "20260101T000000-abcd"
# A Slurm that refuses every job. Its queue is empty, and scancel knows no job.
PROGRAMS = {
    "squeue": "exit 0",
    "sbatch": "echo 'sbatch: error: invalid account' >&2; exit 1",
    "scancel": "exit 0",
    "scontrol": "exit 1",
    "sacct": "exit 1",
}


@pytest.fixture(params=["job", "array"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> BoxConfig:
    """A box with a prepared job, which may be an array."""
    for name, line in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    root = tmp_path / "ob-1"
    (root / "jobs").mkdir(parents=True)
    config = {
        "box": "ob-1",
        "work": str(root / "work"),
        "home": str(root / "home"),
        "poweroff": [],
        "scheduler": {"folder": str(tmp_path), "cpus": 1},
        **dict.fromkeys(("armed", "deadline", "setup_grace", "idle_grace"), 0),
    }
    (root / "box.json").write_text(json.dumps(config))
    box = BoxConfig.load(str(root))
    prepare(box, is_array=request.param == "array")
    return box


def prepare(box: BoxConfig, *, is_array: bool) -> None:
    """Prepare the job, which has a secret."""
    data = unit_plan.encode(units("true", "true")) if is_array else b""
    environment = {b"TOKEN": b"tiger-and-lemon"}
    plan = JobPlan(JOB, [[b"true"]], environment, 1.0, 0, {}, units=data)
    submitted.prepare(box, plan)


def left(box: BoxConfig) -> list[str]:
    """Return the names of what the folder of jobs contains."""
    return names(box.path("jobs"))


def submit(box: BoxConfig) -> bool:
    """Submit the job; return whether it was refused."""
    try:
        submitted.submit(box, JOB)
    except Refused:
        return True
    return False


@pytest.mark.parametrize("look", [True, False])
def test_withdrawal_that_dies_at_any_step_is_finished_by_the_next_command(
    box: BoxConfig, look: bool
) -> None:
    """It may look, or try again. The job is never lost, and no secret is left."""
    is_array = unit_plan.NAME in names(box.path("jobs", JOB))
    step, withdrawn = 0, 0
    while crash(lambda: submit(box), step):
        step += 1
        if look and submitted.is_withdrawn(box.path("jobs", JOB)):
            withdrawn += 1
            assert "none" == queue_state.read(box, JOB).state
        elif JOB in left(box):
            assert submit(box)
        assert JOB not in left(box)
        prepare(box, is_array=is_array)
        assert [JOB] == left(box)

    assert step > 3
    assert withdrawn or not look


def test_start_at_any_moment_of_a_withdrawal_runs_the_job_or_ends(
    box: BoxConfig,
) -> None:
    """If it has claimed the job, the job stays, and so does its directory."""
    is_array = unit_plan.NAME in names(box.path("jobs", JOB))
    directory = Path(box.path("jobs", JOB))
    kept: list[bool] = []
    while True:
        refused, claims = submit_and_start(box, len(kept))
        if not claims:
            break
        assert refused is not claims[0]
        assert (JOB in left(box)) is claims[0]
        kept += claims
        if refused:
            prepare(box, is_array=is_array)
        else:
            # The other tasks of the array, and second starts, find the claim.
            assert not submitted.claim(str(directory))
            (directory / decision.NAME).unlink()

    assert {True, False} == set(kept)
    assert sorted(kept, reverse=True) == kept


@contextlib.contextmanager
def repeated() -> Iterator[None]:
    """Do changes twice, like a client of NFS to which the first answer is lost."""

    def repeat(call: Callable[..., Any]) -> Callable[..., Any]:
        def twice(*words: Any, **options: Any) -> Any:
            call(*words, **options)
            return call(*words, **options)

        return twice

    with pytest.MonkeyPatch.context() as patch:
        for name in ("link", "mkdir", "rename", "symlink"):
            patch.setattr(os, name, repeat(getattr(os, name)))
        yield


def test_start_whose_request_is_repeated_runs_the_job_once(box: BoxConfig) -> None:
    """A second start waits for it, and no withdrawal comes after it."""
    directory = box.path("jobs", JOB)
    with repeated():
        assert submitted.claim(directory)
        assert not submitted.claim(directory)
        assert not submit(box)
    assert submitted.has_begun(directory)


@pytest.mark.parametrize("box", ["array"], indirect=True)
def test_task_whose_request_is_repeated_runs_its_share_once(box: BoxConfig) -> None:
    """So does each other task of the array."""
    directory = box.path("jobs", JOB)
    with repeated():
        claims = [
            submitted.claim_share(directory, f"{directory}/tasks/{task}")
            for task in (0, 1, 0)
        ]

    assert [True, True, False] == claims


def submit_and_start(box: BoxConfig, step: int) -> tuple[bool, list[bool]]:
    """
    Submit the job, and start it before change number *step* of the submission.

    Return whether it was refused, and whether the start may run it, if it came so far.
    """
    claims: list[bool] = []

    def start() -> None:
        try:
            claims.append(submitted.claim(box.path("jobs", JOB)))
        except OSError:
            claims.append(False)

    with before_change(step, start):
        return submit(box), claims


@pytest.mark.parametrize("box", ["job"], indirect=True)
@pytest.mark.parametrize(
    ("code", "why"), [("75:0", "could not be used on the node"), ("2:0", "root")]
)
def test_job_that_ended_before_it_began_says_what_it_could_not_find(
    box: BoxConfig, tmp_path: Path, code: str, why: str
) -> None:
    """Its agent is in the root too, so the nodes see the root if the agent has run."""
    (Path(box.path("jobs", JOB)) / submitted.ID).write_text('{"id": "7"}')
    shown = f"JobId=7 JobName=onebox-ob-1-{JOB} JobState=FAILED ExitCode={code}"
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho '{shown}'\n")
    state = queue_state.read(box, JOB)

    assert "lost" == state.state
    assert why in state.why
    assert ("[slurm] root" in state.why) is (why == "root")


@pytest.mark.parametrize("box", ["array"], indirect=True)
def test_array_that_slurm_has_forgotten_says_so(box: BoxConfig) -> None:
    """After a loss of the controller's state, no task has a record: nothing exited."""
    directory = Path(box.path("jobs", JOB))
    (directory / submitted.ID).write_text('{"id": "7"}')
    submitted.claim(str(directory))
    state = queue_state.read(box, JOB)

    assert state.record is not None
    assert (1, "forgotten") == (state.record.code, state.record.cause)
