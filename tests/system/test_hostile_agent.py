"""A box whose agent was replaced by a hostile program does no harm."""

from __future__ import annotations

import json
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onebox import agent_bundle
from tests.conftest import Project

# It answers each request with the frames that answers.json has for it.
AGENT = """\
import json, os, struct, sys
here = os.path.dirname(os.path.abspath(sys.argv[0]))
with open(os.path.join(here, "answers.json")) as file:
    answers = json.load(file)
def exactly(count):
    data = sys.stdin.buffer.read(count)
    if len(data) < count:
        sys.exit(0)
    return data
while True:
    kind, length = struct.unpack(">cI", exactly(5))
    payload = exactly(length)
    if kind != b"Q":
        continue
    for kind, text, times in answers[json.loads(payload)["op"]]:
        payload = text.encode("utf-8", "surrogateescape")
        head = struct.pack(">cI", kind.encode(), len(payload))
        for _ in range(times):
            sys.stdout.buffer.write(head + payload)
            sys.stdout.buffer.flush()
"""
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m"
HELLO = {"agent": agent_bundle.version(), "arch": "x86_64", "now": 1.8e9}
RECORD = {
    "job": "j-1",
    "code": 3,
    "signal": None,
    "cause": "exit",
    "log_bytes": 2,
    "started": 1.7e9,
    "ended": 1.7e9,
}
STATUS = {"job": "j-1", "state": "exited", "record": RECORD, "log_bytes": 2}
ENDLESS = 300_000
EMPTY_LIST = zlib.compress(b"[]\n").decode("utf-8", "surrogateescape")

Frames = Sequence[tuple[str, str, int]]
Case = tuple[str, Mapping[str, Frames]]


def answer_frames(value: object) -> Frames:
    """Return the frames of one answer."""
    text = value if isinstance(value, str) else json.dumps(value)
    return [("A", text, 1)]


def status_answer(**changes: Any) -> Mapping[str, Frames]:
    """Return an answer to every kind of request for the job's status."""
    data = {**STATUS, **changes}
    return {
        "job": answer_frames(data),
        "follow": [("D", "ok", 1), *answer_frames(data)],
    }


def record_answer(**changes: Any) -> Mapping[str, Frames]:
    """Return the same with another exit record."""
    return status_answer(record={**RECORD, **changes})


def cases(victim: Path) -> Iterator[Case]:
    """Return commands, and the answers of the box to them."""
    deep = "[" * 100_000 + "]" * 100_000
    for job in (str(victim), f"../../../{victim.name}", "..", ESCAPES, 7, None):
        for command in ("fetch", "teardown"):
            yield command, status_answer(job=job)
            # Also where status and exit record agree on it.
            yield command, status_answer(job=job, record={**RECORD, "job": job})
    yield "logs", status_answer(job=str(victim))
    yield "logs", status_answer(job=str(victim), record={**RECORD, "job": str(victim)})
    for command in ("fetch", "logs", "teardown"):
        yield command, {"job": answer_frames({}), "follow": answer_frames({})}
        yield command, {"job": answer_frames(f'{{"job":{deep}}}')}
        yield command, {"job": [("E", f'{{"kind":"x","message":{deep}}}', 1)]}
    data = {"kind": ESCAPES, "message": ESCAPES}
    yield "fetch", {"job": [("E", json.dumps(data), 1)]}
    yield "fetch", {"job": [("S", "{}", ENDLESS)]}
    yield "fetch", {"job": [("P", "", ENDLESS)]}
    yield "fetch", {"job": answer_frames("x" * (1 << 25))}
    yield "fetch", status_answer(state=ESCAPES)
    yield "fetch", status_answer(log_bytes="2")
    yield "fetch", status_answer(log_bytes=10**400)
    yield "fetch", status_answer(record={})
    yield "logs", record_answer(code=256)
    yield "logs", record_answer(code="0")
    yield "logs", record_answer(cause=ESCAPES)
    yield "logs", record_answer(ended=-(10**400))
    yield (
        "logs",
        record_answer(survivors=[ESCAPES], memory_largest=ESCAPES, cause="oom"),
    )
    yield "logs", status_answer(state="lost", record=None, why=ESCAPES)
    yield "logs", {**status_answer(), "follow": [("G", '{"gone": 1e400}', 1)]}
    yield "logs", {**status_answer(), "follow": [("G", '{"gone": 1}', ENDLESS)]}
    yield "logs", {**status_answer(), "follow": [("S", '{"cpu": "\\u001b]0;x"}', 1)]}
    for scan in (
        answer_frames({}),
        [("D", "no rows", 1), ("Z", "", 1), *answer_frames({})],
        [("D", "", ENDLESS)],
        [("S", "{}", ENDLESS)],
        [("D", deep, 1)],
        [("Z", "", 1), ("D", ESCAPES, 1)],
        [("D", EMPTY_LIST, 1), ("D", "a" * 60_000, ENDLESS)],
        [("D", EMPTY_LIST + "a" * 60_000, 1), ("Z", "", 1)],
    ):
        yield "fetch", {**status_answer(), "scan": scan}
    for push in (
        answer_frames({"equal": "yes"}),
        answer_frames({"equal": True, "digest": 5, "deleted": "all"}),
        [("S", '{"parts": [-1]}', 1)],
        [("S", '{"parts": 10}', 1)],
        [("D", ESCAPES, 1)],
        [("Z", "", 1)],
    ):
        yield "push", {**status_answer(), "push": push}
    yield "fetch", {"hello": answer_frames({**HELLO, "now": []})}
    yield "fetch", {"hello": answer_frames({**HELLO, "agent": ESCAPES})}
    yield "fetch", {"hello": [("S", "{}", ENDLESS)]}


def modes_and_times(folder: Path) -> dict[str, tuple[int, int]]:
    """Return mode and time of everything below a folder except `.onebox`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if ".onebox" not in path.parts and "__pycache__" not in path.parts:
            at = path.lstat()
            found[str(path)] = (stat.S_IFMT(at.st_mode), at.st_mtime_ns)
    return found


def test_hostile_answers_are_named_errors_and_write_nothing(
    project: Project, tmp_path: Path
) -> None:
    """
    No answer causes a traceback, reaches a terminal, or writes a file outside
    `.onebox`.
    """
    assert 0 == project.inv("run", "--keep").code
    (box,) = project.boxes()
    agent = project.home / "local" / "boxes" / box / "disk" / "onebox"
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "log").write_bytes(b"mine")
    (agent / "agent.pyz").write_text(AGENT)
    before = modes_and_times(tmp_path)
    wrong = []
    for command, answers in cases(victim):
        usual = {
            "hello": answer_frames(HELLO),
            "scan": [],
            "push": [],
            **status_answer(),
        }
        (agent / "answers.json").write_text(json.dumps({**usual, **answers}))
        done = project.inv(command)
        kept = [
            "Traceback" not in done.err,
            (done.out + done.err).replace("\n", "").isprintable(),
            # The job's own code where the answer is right but for its texts.
            64 <= done.code <= 78 or (command, done.code) == ("logs", 3),
            "onebox[" in done.err or 3 == done.code,
            before == modes_and_times(tmp_path),
            [box] == project.boxes(),
        ]
        if not all(kept):
            data = str(answers)[:200]
            wrong.append((kept, command, data, done.code, done.err[-1500:]))

    assert [] == wrong
    assert b"mine" == (victim / "log").read_bytes()
