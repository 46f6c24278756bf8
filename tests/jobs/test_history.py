"""The history of a project, from receipts that may be damaged or of other versions."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from onebox.context import BoxContext
from onebox.invocation import Invocation
from onebox.jobs import history, job_facts
from onebox.jobs.receipt import Receipt
from onebox.jobs.run_record import EarlierBox, RunTotals
from tests.conftest import Project
from tests.jobs.test_receipt import BOX, make_receipt


def read(project: Project, *receipts: Receipt, limit: int = 20) -> history.History:
    """Write these receipts into a project; return its history."""
    for each in receipts:
        folder = project.root / ".onebox" / "jobs" / each.job
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "receipt.json").write_bytes(each.encode())
        (folder / "log").write_bytes(b"")
    line = Invocation("inv", ())
    context = BoxContext.open(str(project.root), project.environ, {}, line)
    return history.read(context, limit)


def job(number: int, box: str = "ob-1", **changes: Any) -> Receipt:
    """Return the receipt of the job with this number."""
    return make_receipt(
        job=f"20261112-12{number:02}00-abcd", box=replace(BOX, id=box), **changes
    )


def test_name_selects_the_jobs_of_one_box(project: Project) -> None:
    """Count and cost are those of the jobs that are listed."""
    other = replace(job(2), box=replace(BOX, id="ob-2", name="b"))
    read(project, job(1), other)
    found = json.loads(project.inv("history", "--name=b", "--json").out)
    none = project.inv("history", "--name=zz")

    assert [other.job] == [entry["job"] for entry in found["entries"]]
    assert 1 == found["count"]
    assert 2 == json.loads(project.inv("history", "--json").out)["count"]
    assert (0, "/zz: no job has run yet\n") == (none.code, none.out[-24:])


class TestCost:
    def test_time_of_a_box_counts_once_for_all_of_its_jobs(
        self, project: Project
    ) -> None:
        """A receipt has the cost of its box since the box's creation."""
        first = job(1, costs={"machine": 1.0, "disk": 0.5, "outputs": 0.25})
        second = job(2, costs={"machine": 3.0, "disk": 1.0, "outputs": 0.0})
        found = read(project, first, second)

        assert [2.5, 1.75] == [entry.cost_usd for entry in found.entries]
        assert (4.25, False) == (found.cost_usd, found.cost_is_least)

    def test_attempts_of_a_run_count_once(self, project: Project) -> None:
        """The last receipt has the cost of the earlier boxes, which have receipts."""
        jobs = (job(1).job, job(2).job)
        earlier = (EarlierBox(60.0, None, 60.0),)
        totals = RunTotals(jobs, 2, 9.0, None, earlier)
        first = job(1, "ob-1", costs={"machine": 0.75, "outputs": 0.0})
        last = job(
            2,
            "ob-2",
            attempts=totals,
            costs={"machine": 2.0, "earlier boxes": 1.0, "outputs": 0.0},
        )

        assert 3.0 == read(project, first, last).cost_usd
        (project.root / f".onebox/jobs/{first.job}/receipt.json").unlink()
        found = read(project)
        assert 3.0 == found.cost_usd
        assert found.cost_is_least

    def test_cost_of_a_job_that_no_client_waited_for_is_at_least_its_own_time(
        self, project: Project
    ) -> None:
        """The time that its box was up is unknown."""
        (entry,) = read(project, job(1, seconds=3600.0, ended=3601.0)).entries

        assert entry.cost_usd == pytest.approx(0.11)
        assert entry.cost_is_least

    def test_time_of_a_box_whose_job_has_no_receipt_counts_once(
        self, project: Project
    ) -> None:
        """It counts up to the removal of the box, after that of the earlier job."""
        first = job(1, "ob-1", costs={"machine": 1.0, "outputs": 0.0})
        facts = job_facts.JobFacts(
            job(2).job, box="ob-1", hourly=3.0, created=1.0, removed=3601.0
        )
        folder = project.root / ".onebox/jobs" / facts.job
        folder.mkdir(parents=True)
        (folder / job_facts.FILE).write_text(json.dumps(asdict(facts)))
        found = read(project, first)

        assert [2.0, 1.0] == [entry.cost_usd for entry in found.entries]
        assert (3.0, True) == (found.cost_usd, found.cost_is_least)

    def test_unknown_price_makes_the_sum_a_lower_bound(self, project: Project) -> None:
        """It is not counted as 0."""
        unknown = job(1, "ob-1", costs={"machine": None, "outputs": 0.0})
        found = read(project, unknown, job(2, "ob-2", costs={"machine": 1.0}))

        assert [1.0, None] == [entry.cost_usd for entry in found.entries]
        assert (1.0, True) == (found.cost_usd, found.cost_is_least)


class TestEntries:
    def test_newest_job_is_first_and_the_others_are_counted(
        self, project: Project
    ) -> None:
        """The limit applies to the list, and not to the sum."""
        receipts = [job(n, f"ob-{n}", costs={"machine": 1.0}) for n in range(5)]
        found = read(project, *receipts, limit=2)

        assert [receipts[4].job, receipts[3].job] == [e.job for e in found.entries]
        assert (5, 5.0) == (found.count, found.cost_usd)

    @pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"box": 1}', None])
    def test_damaged_receipt_leaves_its_job_in_the_list(
        self, project: Project, damage: bytes | None
    ) -> None:
        """The time is known from the id, and the log is named."""
        whole = job(1)
        read(project, whole)
        path = project.root / f".onebox/jobs/{whole.job}/receipt.json"
        if damage is None:
            path.unlink()
            path.mkdir()
        else:
            path.write_bytes(damage)
        (entry,) = read(project).entries

        assert (whole.job, "no information") == (entry.job, entry.outcome)
        assert (None, None) == (entry.exit, entry.cost_usd)
        assert entry.started is not None
        assert entry.log == f".onebox/jobs/{whole.job}/log"

    def test_receipt_of_an_earlier_version_is_read(self, project: Project) -> None:
        """It has no advice."""
        document = json.loads(job(1).encode())
        assert "advice" not in document

        assert "succeeded" == read(project, job(1)).entries[0].outcome

    @pytest.mark.parametrize(
        ("changes", "outcome"),
        [
            ({}, "succeeded"),
            ({"exit": 7}, "exit 7"),
            ({"exit": 143, "cause": "cancel"}, "cancelled"),
            ({"exit": 137, "cause": "oom"}, "out of memory"),
            ({"exit": 137, "cause": "signal", "advice": "probably"}, "out of memory"),
            ({"exit": 143, "cause": "preempted"}, "preempted"),
            ({"exit": 143, "cause": "deadline"}, "deadline"),
        ],
    )
    def test_outcome_is_short(
        self, project: Project, changes: dict[str, Any], outcome: str
    ) -> None:
        """It fits a column."""
        assert outcome == read(project, job(1, **changes)).entries[0].outcome


def test_part_of_two_ids_names_them(project: Project) -> None:
    """A part that one id has alone is that id."""
    read(project, job(1), job(2))
    done = project.inv("logs", "--job=abcd")

    assert 64 == done.code
    assert f"part of several ids: {job(1).job}, {job(2).job}\n" in done.err
    assert f"job {job(2).job}, from" in project.inv("logs", "--job=1202").err
