"""The ids of jobs sort by age, so that the latest job is found."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onebox.jobs import job_ids
from onebox.store.paths import JOB

SECOND = "20261130-215451-"


@pytest.fixture
def context(tmp_path: Path) -> Any:
    """What the ids depend on: the folder of the project's jobs."""
    return SimpleNamespace(local_dir=tmp_path)


def test_jobs_of_one_second_sort_by_age(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may be killed, and the next one start, within a second."""
    monkeypatch.setattr(time, "strftime", lambda _: SECOND)
    made = []
    for folder in ("jobs", "sweeps", "jobs", "jobs"):
        made.append(job_ids.new(context))
        (context.local_dir / folder / made[-1]).mkdir(parents=True)

    assert sorted(set(made)) == made
    assert all(map(JOB.fullmatch, made))


def test_second_without_a_free_id_is_waited_for(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id of the next second is taken."""
    (context.local_dir / f"jobs/{SECOND}ffff").mkdir(parents=True)
    seconds = itertools.chain([SECOND, SECOND], itertools.repeat("20261130-215452-"))
    monkeypatch.setattr(time, "strftime", lambda _: next(seconds))

    assert job_ids.new(context).startswith("20261130-215452-")
