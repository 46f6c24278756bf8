"""An answer of a box becomes a typed value, or an error that names the box."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.agent import protocol
from onebox.agent.file_names import Hostile
from onebox.agent.files.manifest import Entry
from onebox.errors import ProtocolError
from onebox.remote import answers, data_answers, job_answers
from onebox.remote.load import Load

RECORD = {
    "job": "j-1",
    "code": 3,
    "signal": None,
    "cause": "exit",
    "log_bytes": 12,
    "started": 1.5,
    "ended": 4,
}
STATUS = {"job": "j-1", "state": "exited", "record": RECORD, "log_bytes": 12}
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\udc80"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
PARSERS: list[Callable[[object], object]] = [
    job_answers.ExitRecord.parse,
    job_answers.JobStatus.parse,
    job_answers.Sample.parse,
    answers.Hello.parse,
    lambda value: answers.buckets(value, 5),
    answers.PushResult.parse,
    lambda value: answers.ScanResult.parse(value, frozenset(["results"]), 5),
    answers.Changes.parse,
    answers.public_key,
    lambda value: answers.dropped_log_bytes(value, 100),
    answers.claimed,
    answers.unit_log,
    job_answers.UnitProgress.parse,
    Load.parse,
    lambda value: data_answers.DownloadResult.parse(value, 5),
    lambda value: data_answers.note(value, 5),
]
NAMES = [
    *RECORD,
    *STATUS,
    *("why", "alive", "survivors", "memory_peak", "memory_largest", "cpu", "cpus"),
    *("agent", "arch", "now", "buckets", "equal", "digest", "deleted", "gone"),
    *(
        "waiting",
        "engine_id",
        "marks",
        "claimed",
        "job_cpu",
        "job_memory",
        "memory_total",
        "gpus",
    ),
    *("disk_free", "disk_total", "job_seconds", "job_processes", "sample"),
    *("missing", "special", "unreadable", "unstable", "public", "memory"),
    *("names", "pushed", "count", "units", "unit", "size"),
    *("links", "files", "bytes", "downloaded", "checked", "changed", "problem"),
    *("total", "done", "failed", "running", "left", "skipped", "at_once", "mean"),
]


def test_answer_of_a_real_agent_is_parsed() -> None:
    """All fields of a real answer are parsed."""
    status = job_answers.JobStatus.parse(STATUS, "j-1")
    record = status.record

    assert record is not None
    assert ("exited", 12, False) == (status.state, status.log_bytes, status.runs)
    assert (3, "exit", 2.5, ()) == (
        record.code,
        record.cause,
        record.seconds,
        record.survivors,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"job": "../../x"},
        {"job": "/etc/cron.d"},
        {"job": ".."},
        {"job": "j-1/../x"},
        {"job": "j-1\n"},
        {"job": "x" * 65},
        {"job": 7},
        {"job": "j-2"},
        {"state": "done"},
        {"state": ["exited"]},
        {"state": None},
        {"record": {}},
        {"record": None},
        {"record": [RECORD]},
        {"log_bytes": "12"},
        {"log_bytes": -1},
        {"log_bytes": 10**400},
        {"log_bytes": True},
        {"alive": "no"},
        {"why": 3},
        {"started": -(10**400)},
        {"started": float("nan")},
        {"started": float("inf")},
        {"marks": "1.0 4"},
        {"marks": [[1.0]]},
        {"marks": [["1.0", 4]]},
        {"marks": [[1.0, -4]]},
        {"marks": [[1.0, 4.5]]},
        {"marks": [[float("nan"), 4]]},
        {"marks": [[1.0, 4]] * 4001},
        {"sample": {"memory_total": "much"}},
    ],
)
def test_job_status_that_breaks_a_rule_is_refused(change: dict[str, Any]) -> None:
    """An id that could be a path, a wrong type or a number out of range is refused."""
    with pytest.raises(ProtocolError, match="no valid"):
        job_answers.JobStatus.parse({**STATUS, **change}, "j-1")


@pytest.mark.parametrize(
    "change",
    [
        {"code": 256},
        {"code": -1},
        {"code": "0"},
        {"code": None},
        {"code": 0.0},
        {"job": "j-2"},
        {"job": "../j-1"},
        {"cause": ESCAPES},
        {"cause": ""},
        {"signal": 10**6},
        {"ended": "later"},
        {"ended": 10**30},
        {"survivors": "sleep"},
        {"survivors": [1]},
        {"memory_peak": 10**400},
    ],
)
def test_exit_record_that_breaks_a_rule_is_refused(change: dict[str, Any]) -> None:
    """An exit code is one that a process can have: 256 would count as success."""
    with pytest.raises(ProtocolError, match=r"exit record|job status"):
        job_answers.JobStatus.parse({**STATUS, "record": {**RECORD, **change}}, "j-1")


@pytest.mark.parametrize(
    "change",
    [
        {"job": "../x"},
        {"cpu": "1"},
        {"cpus": -1},
        {"memory": None},
        {"gpus": {}},
        {"gpus": ["A100"]},
        {"gpus": [{"name": 7}]},
        {"gpus": [{"name": "A100", "percent": -1}]},
        {"job_cpu": float("inf")},
    ],
)
def test_load_that_breaks_a_rule_is_refused(change: dict[str, Any]) -> None:
    """A wrong type or a number out of range is refused; names are escaped."""
    gpu = {"name": ESCAPES, "percent": None, "memory": 1, "memory_total": 2}
    whole = {
        "cpu": 0.5,
        "cpus": 2,
        "memory": 1,
        "memory_total": 2,
        "disk_free": 1,
        "disk_total": 2,
        "gpus": [gpu],
        "job": None,
        "job_seconds": None,
        "job_cpu": 0,
        "job_memory": 0,
        "job_processes": 0,
    }
    assert Load.parse(whole).gpus[0].name.isprintable()
    with pytest.raises(ProtocolError, match="no valid load"):
        Load.parse({**whole, **change})


def test_texts_from_a_box_are_escaped() -> None:
    """Texts of a box contain no control characters after parsing."""
    record = {**RECORD, "survivors": [ESCAPES], "memory_largest": ESCAPES}
    status = job_answers.JobStatus.parse({**STATUS, "record": record, "why": ESCAPES})
    assert status.record is not None
    texts = [*status.record.survivors, status.record.memory_largest, status.why]

    assert all(text.isprintable() and "title" in text for text in texts)


@given(st.sampled_from(PARSERS), JSON | st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_json_is_parsed_or_raises_protocol_error(
    parse: Callable[[object], object], value: object
) -> None:
    """No JSON from a box raises anything else."""
    try:
        parse(value)
    except ProtocolError as error:
        assert error.message.isprintable()


@given(JSON | st.lists(JSON | st.sampled_from(["gone", "change", "lack"]), max_size=6))
def test_any_push_row_is_parsed_or_raises_hostile(row: object) -> None:
    """No row from a box raises anything else."""
    try:
        path, kind, rest = answers.push_row(row)
    except Hostile:
        return
    entry = Entry(path, "f", 0o644, 9)
    try:
        found = answers.offer(entry, rest)
    except Hostile:
        return
    assert kind in ("gone", "change", "lack")
    assert 0 <= found.offset <= 9


def test_deeply_nested_json_is_refused() -> None:
    """Brackets nested 100,000 deep raise an error, not a stack overflow."""
    payload = b'{"job":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

    with pytest.raises(protocol.Garbled, match="not JSON"):
        protocol.loads(payload)
    with pytest.raises(protocol.Garbled):
        protocol.loads(json.dumps(["no object"]).encode())


@pytest.mark.parametrize(
    "job", ["/etc", "../../x", "..", ".", "a/b", "", "x\n", "\x1b"]
)
def test_job_id_that_could_name_another_folder_is_refused(job: str) -> None:
    """An id from a box must match one pattern, even if status and record agree."""
    record = {"job": job, "code": 0, "cause": "exit", "log_bytes": 0}
    record.update(started=1.0, ended=2.0)
    data = {"job": job, "state": "exited", "record": record, "log_bytes": 0}
    with pytest.raises(ProtocolError):
        job_answers.JobStatus.parse(data)
    good = {**data, "job": "j-1", "record": {**record, "job": "j-1"}}
    assert "j-1" == job_answers.JobStatus.parse(good).job


@pytest.mark.parametrize(
    "change",
    [
        {"names": ["../tasks.py"]},
        {"names": ["\ud800"]},
        {"pushed": {"\ud800": []}},
        {"pushed": {"a.ipynb": ["\ud800"]}},
        {"pushed": {"a.ipynb": "f1"}},
        {"count": -1},
    ],
)
def test_changed_files_that_break_a_rule_are_refused(change: dict[str, Any]) -> None:
    """A path that leads elsewhere, or is no text of a path, is refused."""
    good = {"names": ["a.ipynb"], "pushed": {}, "count": 1}
    assert answers.Changes.parse(good).paths == (b"a.ipynb",)

    with pytest.raises(ProtocolError, match="no valid"):
        answers.Changes.parse({**good, **change})


UNITS: dict[str, Any] = {
    "total": 150,
    "done": 17,
    "failed": 2,
    "running": 4,
    "left": 131,
    "skipped": 10,
    "at_once": 4,
    "mean": 1.5,
}


def test_progress_of_units_is_part_of_status_and_sample() -> None:
    """It is None for a job without units, and for a mean without a unit."""
    progress = job_answers.UnitProgress(150, 17, 2, 4, 131, 10, 4, 1.5)
    status = {"job": "j-1", "state": "running", "log_bytes": 0, "units": UNITS}

    assert progress == job_answers.JobStatus.parse(status, "j-1").units
    assert progress == job_answers.Sample.parse({"units": UNITS}).units
    assert job_answers.JobStatus.parse({**status, "units": None}).units is None
    assert job_answers.JobStatus.parse(STATUS).units is None
    assert job_answers.Sample.parse({}).units is None
    unknown = job_answers.UnitProgress.parse({**UNITS, "mean": None})
    assert unknown is not None and unknown.mean is None


@pytest.mark.parametrize(
    "units",
    [
        [],
        "150",
        {},
        {**UNITS, "total": 100_001},
        {**UNITS, "total": 16},
        {**UNITS, "done": 149},
        {**UNITS, "failed": -1},
        {**UNITS, "running": 1.5},
        {**UNITS, "left": None},
        {**UNITS, "at_once": True},
        {**UNITS, "mean": float("nan")},
        {**UNITS, "mean": "1"},
    ],
)
def test_progress_of_units_that_breaks_a_rule_is_refused(units: object) -> None:
    """A wrong type or an impossible number is refused, in a status and in a sample."""
    with pytest.raises(ProtocolError, match="progress of units"):
        job_answers.JobStatus.parse({**STATUS, "units": units}, "j-1")
    with pytest.raises(ProtocolError, match="progress of units"):
        job_answers.Sample.parse({"units": units})


@pytest.mark.parametrize(
    "change",
    [
        {"job": "../x"},
        {"unit": 0},
        {"unit": 100_001},
        {"unit": "17"},
        {"state": "exited"},
        {"code": 256},
        {"size": -1},
        {"size": 10**400},
    ],
)
def test_answer_about_a_units_log_is_checked(change: dict[str, Any]) -> None:
    """A real answer is parsed; a wrong type or an impossible number is refused."""
    good = {"job": "j-1", "unit": 17, "state": "ended", "code": 1, "size": 20}
    assert answers.UnitLogAnswer("j-1", 17, "ended", 1, 20) == answers.unit_log(good)
    left = answers.unit_log({**good, "state": "left", "code": None, "size": 0})
    assert left.code is None

    with pytest.raises(ProtocolError, match="unit's log"):
        answers.unit_log({**good, **change})
