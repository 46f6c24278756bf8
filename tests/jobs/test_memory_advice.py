"""A job that was killed near the memory limit: what to try."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from onebox.context import BoxContext
from onebox.jobs.follow import describe, outcome
from onebox.jobs.memory_advice import advice, memory_advice
from onebox.providers.values import Box
from onebox.remote.job_answers import ExitRecord, JobStatus
from onebox.settings.schema import SIZES, Size

GB = 1 << 30
MEMORY = 16 * GB
# A machine of 16 GB has a little less for its programs.
TOTAL = int(15.6 * GB)
NEAR: dict[str, Any] = {
    "code": 137,
    "cause": "signal",
    "signal": 9,
    "memory_peak": int(15.2 * GB),
}
TEXT = "probably out of memory: peak 15.2 of 15.6 GB; try --vm=medium"


def advise(record: dict[str, Any], sizes: tuple[Size, ...] = SIZES) -> str:
    """Return the advice on a job of a cloud's box."""
    ended = ExitRecord("j-1", memory_total=TOTAL, **record)
    return advice(ended, MEMORY, sizes, is_cloud=True)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (NEAR, TEXT),
        ({**NEAR, "cause": "exit", "signal": None}, TEXT),
        (
            {"code": 137, "cause": "oom", "memory_peak": GB},
            "probably out of memory: peak 1 of 15.6 GB; try --vm=medium",
        ),
        ({"code": 1, "cause": "oom"}, "probably out of memory; try --vm=medium"),
        ({**NEAR, "memory_peak": 9 * GB}, ""),
        ({**NEAR, "memory_peak": None}, ""),
        ({**NEAR, "code": 1, "cause": "exit"}, ""),
        ({**NEAR, "code": 0, "cause": "exit"}, ""),
        ({**NEAR, "cause": "cancel"}, ""),
        ({**NEAR, "cause": "preempted"}, ""),
    ],
)
def test_killed_job_near_the_limit_gets_the_next_larger_size(
    record: dict[str, Any], text: str
) -> None:
    """A job that was cancelled, or that used little, does not."""
    assert text == advise(record)


def test_smallest_size_with_clearly_more_memory_is_named() -> None:
    """A size of the same memory does not help, and none may be larger."""
    sizes = (
        Size("same", 4, MEMORY),
        Size("huge", 4, 99 * GB),
        Size("more", 4, 32 * GB),
    )

    assert advise(NEAR, sizes).endswith("; try --vm=more")
    assert advise(NEAR, sizes[:1]).endswith("15.6 GB")


def test_local_box_has_the_same_memory_in_every_size() -> None:
    """So a cloud is named too."""
    record = ExitRecord("j-1", memory_total=TOTAL, **NEAR)
    text = advice(record, MEMORY, SIZES, is_cloud=False)

    assert text.endswith("; try a cloud: --provider=aws --vm=medium")


def test_total_is_that_of_the_latest_sample() -> None:
    """The offer names a little more than the machine has."""
    record = {"job": "j-1", "started": 1, "ended": 2, "log_bytes": 0, **NEAR}
    status = {"job": "j-1", "state": "exited", "record": record, "log_bytes": 0}
    status["sample"] = {"memory_total": TOTAL}
    parsed = JobStatus.parse(status)

    assert parsed.record is not None
    assert TOTAL == parsed.record.memory_total


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"code": 0, "cause": "exit"}, "succeeded"),
        (
            {"code": 0, "cause": "exit", "survivors": ("sleep 9",)},
            "succeeded; ended what it left running: sleep 9",
        ),
        ({"code": 7, "cause": "exit"}, "failed, exit 7"),
        ({"code": 143, "cause": "cancel", "signal": 15}, "cancelled"),
        (
            {"code": 143, "cause": "deadline"},
            "failed, exit 143, the deadline was reached",
        ),
        ({"code": 0, "cause": "deadline"}, "ended, exit 0, the deadline was reached"),
        (
            {"code": 1, "cause": "oom"},
            "failed, exit 1, out of memory: one of its processes was killed",
        ),
    ],
)
def test_outcome_says_whether_the_job_succeeded(
    record: dict[str, Any], text: str
) -> None:
    """The exit code is named if it is not 0."""
    ended = ExitRecord("j-1", **record)

    assert text == outcome(ended)
    assert f"exit {ended.code}" in describe(ended)


def test_job_on_a_cluster_had_what_it_asked_for() -> None:
    """The sample is that of the node, and the larger size is one of the cluster."""
    provider = SimpleNamespace(name="slurm", powers_off=False)
    settings = SimpleNamespace(sizes={size.name: size for size in SIZES})
    context = cast(BoxContext, SimpleNamespace(provider=provider, settings=settings))
    box = cast(Box, SimpleNamespace(offer=SimpleNamespace(cpus=1, memory=GB)))
    ended = ExitRecord("j-1", memory_total=500 * GB, **{**NEAR, "memory_peak": GB})

    text = memory_advice(context, box, ended)
    assert "probably out of memory: peak 1 of 1 GB; try --vm=small" == text
