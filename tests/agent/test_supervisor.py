"""A job has at most one exit record, and it is true."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import onebox
from onebox.agent import processes
from onebox.agent.jobs import exit_record
from onebox.agent.jobs.exit_record import StoredExitRecord
from onebox.remote.channel import AgentChannel
from tests.agent.test_jobs import follow, run
from tests.fakes.agent_box import AgentBox, kill, until

KILLS = 50

# A supervisor lists the processes of a job. After it has read the list of pids, and
# before it reads each process, the only process of the job forks and ends.
FORKS = """
import os, time, types
from onebox.agent import processes
from onebox.agent.jobs import supervisor

go, begin = os.pipe()
parent = os.fork()
if not parent:
    os.read(go, 1)
    if not os.fork():
        os.closerange(0, 3)
        time.sleep(85)
    os._exit(0)
here = types.SimpleNamespace(path=os.path.join, id="b")
plan = types.SimpleNamespace(job="j")
one = supervisor.JobSupervisor(here, plan, -1, -1)
one.wake = processes.wake_on_signals()
one.reaper = processes.become_subreaper()

def listed(path, listdir=os.listdir):
    os.listdir = listdir
    found = listdir(path)
    os.write(begin, b"x")
    os.waitid(os.P_PID, parent, os.WEXITED | os.WNOWAIT)
    return found

os.listdir = listed
one.clean_up()
print(one.family())
"""


def supervisor(box: AgentBox, job: str) -> int:
    """Return the pid of a job's supervisor."""
    start = json.loads((box.root / "jobs" / job / "started.json").read_text())
    return int(start["pid"])


def test_a_dead_supervisor_is_a_lost_job(agent_box: AgentBox) -> None:
    """A job whose supervisor died is lost; cancel ends its processes."""
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="echo here; sleep 81")
        until(lambda: link.request("job")["log_bytes"])
        kill(supervisor(agent_box, "j1"))
        log, end = follow(link, "j1")
        assert log == b"here\n"
        assert (end["state"], end["why"]) == ("lost", "supervisor died")
        assert end["record"] is None
        assert agent_box.strays() != []

        assert link.request("cancel", job="j1")["state"] == "lost"
        assert agent_box.strays() == []


def test_cancel_ends_a_job_whose_supervisor_dies_meanwhile(
    agent_box: AgentBox,
) -> None:
    """If the supervisor dies during a cancel, the job is lost, and still ends."""
    folder = agent_box.root / "jobs" / "j1"
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="touch on; sleep 85")
        until((agent_box.work / "on").exists)
        os.kill(supervisor(agent_box, "j1"), signal.SIGSTOP)
        link.begin("cancel", job="j1")
        until((folder / "cancel").exists)
        kill(supervisor(agent_box, "j1"))
        assert link.finish()["state"] == "lost"
    assert agent_box.strays() == []


def test_the_processes_of_a_lost_job_end_before_the_next_job(
    agent_box: AgentBox,
) -> None:
    """The processes of a lost job have ended when the next job starts."""
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="sleep 82")
        kill(supervisor(agent_box, "j1"))
        until(lambda: link.request("job")["state"] == "lost")
        link.request("start", job="j2", shell="true")
        follow(link, "j2")
        until(lambda: agent_box.strays() == [])


def test_a_process_in_an_exec_is_found_by_its_mark() -> None:
    """
    During an exec a process has no environment for a moment: the search waits for it.
    """
    again = 'exec sh -c "$AGAIN"'
    environ = {**os.environ, "AGAIN": again, "MARK": secrets.token_hex(8)}
    with subprocess.Popen(["sh", "-c", again], env=environ) as process:
        try:
            mark = f"MARK={environ['MARK']}"
            until(lambda: processes.with_variables(mark))
            assert all(
                processes.with_variables(mark) == [process.pid] for _ in range(100)
            )
        finally:
            process.kill()


def test_a_job_of_an_earlier_boot_is_lost_by_the_reboot(agent_box: AgentBox) -> None:
    """A job of an earlier boot without a record was lost by the reboot."""
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="sleep 83")
        started = agent_box.root / "jobs" / "j1" / "started.json"
        start = json.loads(started.read_text())
        kill(start["pid"])
        started.write_text(json.dumps(dict(start, boot_id="another")))
        end = until(lambda: [e for e in [link.request("job")] if e["state"] == "lost"])[
            0
        ]
        assert end["why"] == "rebooted"


@pytest.mark.parametrize("how", ["torn", "forged", "foreign", "empty"])
def test_a_damaged_record_is_never_accepted(agent_box: AgentBox, how: str) -> None:
    """A torn, forged, copied or empty record is never accepted."""
    run(agent_box, "good", shell="true")
    run(agent_box, shell="exit 7")
    path = agent_box.root / "jobs" / "j1" / "exit"
    data = path.read_bytes()
    good = (agent_box.root / "jobs" / "good" / "exit").read_bytes()
    made_up = {
        "torn": data[:600],
        "forged": data.replace(b'"code":7', b'"code":0'),
        "foreign": good,
        "empty": b"",
    }
    assert made_up[how] != data
    path.unlink()
    path.write_bytes(made_up[how])
    with agent_box.connect() as link:
        answer = link.request("job", job="j1")
    assert (answer["state"], answer["record"]) == ("lost", None)
    assert "damaged" in answer["why"]


def test_a_record_is_published_once(tmp_path: Path) -> None:
    """A second record is refused, and the first one stays."""
    exit_record.prepare(str(tmp_path))
    assert exit_record.read(str(tmp_path)) is None
    exit_record.publish(str(tmp_path), StoredExitRecord("a", 1))
    with pytest.raises(FileExistsError):
        exit_record.publish(str(tmp_path), StoredExitRecord("a", 0))


def test_survivors_are_shortened_until_the_record_fits() -> None:
    """Hundreds of survivors are shortened; the rest of the record stays complete."""
    names = [f"sleep {number} {'ü' * 60}" for number in range(300)]
    data = exit_record.pack(StoredExitRecord("a", 3, survivors=tuple(names)))

    assert len(data) == exit_record.SIZE
    record = exit_record.unpack(data)
    assert record.code == 3
    assert record.survivors[0] == names[0]
    assert record.survivors[-1].endswith(" more")


@pytest.mark.parametrize("cut", range(0, exit_record.SIZE, 101))
def test_a_partly_written_record_is_damaged(cut: int) -> None:
    """
    A record that is written up to any byte, over an old record or none, is damaged.
    """
    old = exit_record.pack(StoredExitRecord("a", 0))
    new = exit_record.pack(StoredExitRecord("a", 1, cause="signal"))
    for before in (b"\0" * exit_record.SIZE, b""):
        with pytest.raises(exit_record.Damaged):
            exit_record.unpack(new[:cut] + before[cut:])
    mixed = new[:cut] + old[cut:]
    if mixed not in (old, new):
        with pytest.raises(exit_record.Damaged):
            exit_record.unpack(mixed)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"1", b"{}", b'{"job":"a","code":1}', b'{"survivors":[],"unknown":1}'],
)
def test_a_record_with_other_fields_is_damaged(body: bytes) -> None:
    """A valid checksum is not enough: a record must have the fields of a record."""
    body = body.ljust(exit_record.SIZE - 10)
    data = body + b" %08x\n" % zlib.crc32(body)
    with pytest.raises(exit_record.Damaged):
        exit_record.unpack(data)


def test_random_kills_never_cause_a_false_record(agent_box: AgentBox) -> None:
    """Kill supervisor, job or both at any moment, 50 times: no record is false."""
    seed = secrets.randbits(32)
    chance = random.Random(seed)
    with agent_box.connect() as link:
        for number in range(KILLS):
            kill_something(
                link, agent_box, f"j{number}", chance, f"seed {seed}, job {number}"
            )
    assert agent_box.strays() == []


def kill_something(
    link: AgentChannel, box: AgentBox, job: str, chance: random.Random, label: str
) -> None:
    """
    Start a job that would exit with 3, kill a process, and check how the job ended.
    """
    victims = chance.choice([["job"], ["supervisor"], ["job", "supervisor"]])
    link.request("start", job=job, shell="echo $$ > $ONEBOX_JOB; sleep 0.1; exit 3")
    pids = {"supervisor": supervisor(box, job)}
    if "job" in victims:
        pid_file = box.work / job
        pids["job"] = int(until(lambda: pid_file.exists() and pid_file.read_text()))
    time.sleep(chance.random() * 0.12)
    for victim in victims:
        kill(pids[victim])
    end = until(lambda: over(link, job))
    if end["state"] == "lost":
        assert "supervisor" in victims, label
        assert end["record"] is None, label
        link.request("cancel", job=job)
    else:
        assert end["state"] == "exited", label
        ends = [(3, None), (137, 9)] if "job" in victims else [(3, None)]
        assert (end["record"]["code"], end["record"]["signal"]) in ends, label


def over(link: AgentChannel, job: str) -> dict[str, Any] | None:
    """Return the status of a job once it no longer runs."""
    status = link.request("job", job=job)
    return None if status["state"] == "running" else status


def test_sigterm_to_the_supervisor_is_a_power_off(agent_box: AgentBox) -> None:
    """A supervisor that gets SIGTERM from the system ends the job as powered off."""
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="sleep 84")
        os.kill(supervisor(agent_box, "j1"), signal.SIGTERM)
        record = follow(link, "j1")[1]["record"]
    assert (record["cause"], record["signal"]) == ("poweroff", signal.SIGTERM)


@pytest.mark.parametrize("shell", ["exec sleep 84", "sleep 84; exit $?"])
def test_a_power_off_that_reaches_the_job_first_is_recorded(
    agent_box: AgentBox, shell: str
) -> None:
    """
    If a shutdown signals the job before the supervisor, the cause is still "poweroff".
    """
    with agent_box.connect() as link:
        link.request("start", job="j1", shell=f"touch on; {shell}")
        until((agent_box.work / "on").exists)
        main = supervisor(agent_box, "j1")
        # The supervisor reaps each process before it gets a signal itself.
        while family := children(main):
            os.kill(family[0], signal.SIGTERM)
            until(partial(reaped, main, family[0]))
        os.kill(main, signal.SIGTERM)
        record = follow(link, "j1")[1]["record"]
    assert (record["cause"], record["code"]) == ("poweroff", 143)


def reaped(parent: int, child: int) -> bool:
    """Return whether a process has reaped its child."""
    return child not in children(parent)


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies included."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in found.split()]


def test_a_process_that_forks_during_the_listing_is_found() -> None:
    """A process is found even if it was born after the list was read."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        cwd=Path(onebox.__file__).parent.parent,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("below_a_shell", [False, True])
def test_a_job_killed_for_lack_of_memory_has_the_cause_oom(
    agent_box: AgentBox, memory_limit: Path, below_a_shell: bool
) -> None:
    """
    A job that was killed for lack of memory has the cause "oom", even below a shell.
    """
    (agent_box.work / "eat.py").write_text(
        "x = [bytearray(1 << 20) for _ in range(500)]"
    )
    eat = f"'{sys.executable}' eat.py"
    command = f"{eat}; exit $?" if below_a_shell else f"exec {eat}"
    _, end = run(agent_box, shell=f"echo $$ > {memory_limit}; {command}")

    assert end["record"]["code"] == 137
    assert end["record"]["cause"] == "oom"


@pytest.mark.parametrize("slowly", [False, True])
def test_a_job_that_fills_the_disk_has_the_cause_disk_full(
    small_disk: AgentBox, slowly: bool
) -> None:
    """
    A job that fills the disk has a complete record with its cause, and frees space. A
    fast job fails while the ballast exists, and a slow one after it was released.
    """
    fill = (
        "import errno, time\n"
        f"slowly = {slowly}\n"
        "with open('big', 'wb', 0) as big:\n"
        "    try:\n"
        "        while True:\n"
        "            big.write(bytes(4096))\n"
        "    except OSError as error:\n"
        "        assert error.errno == errno.ENOSPC\n"
        "time.sleep(3 if slowly else 0)\n"
        "raise SystemExit(5)\n"
    )
    log, end = run(small_disk, argv=[sys.executable, "-c", fill])

    assert end["record"]["code"] == 5, log
    assert end["record"]["cause"] == "disk-full"
    disk = os.statvfs(small_disk.root)
    assert disk.f_bavail * disk.f_frsize > 1 << 20


def test_a_log_that_fills_the_disk_does_not_prevent_the_record(
    small_disk: AgentBox,
) -> None:
    """A log that fills the disk loses lines, but the exit record is written."""
    _, end = run(small_disk, shell="yes | head -c 40000000; exit 6")

    assert end["record"]["code"] == 6
    assert end["record"]["cause"] == "disk-full"
    assert end["record"]["log_bytes"] == end["log_bytes"] < 16 << 20


def test_samples_and_peaks_are_measured(agent_box: AgentBox) -> None:
    """Samples are stored for the receipt, and the record has the peaks."""
    grow = (
        "import os, time\n"
        "x = bytearray(80 << 20)\n"
        "while not os.path.exists('go'): time.sleep(0.02)\n"
    )
    samples = agent_box.root / "jobs" / "j1" / "samples.jsonl"
    with agent_box.connect() as link:
        link.request("start", job="j1", argv=[sys.executable, "-c", grow])
        until(
            lambda: (
                (link.request("job")["sample"] or {}).get("job_memory", 0) > 80 << 20
            )
        )
        until(lambda: samples.read_text().count("\n") >= 2)
        (agent_box.work / "go").touch()
        _, end = follow(link, "j1")

    lines = samples.read_text().splitlines()
    kept: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert all(0 <= sample["cpu"] <= sample["cpus"] + 1 for sample in kept)
    assert end["record"]["memory_peak"] > 80 << 20
    assert end["record"]["memory_largest"].startswith("python")
    assert end["record"]["box_memory_peak"] >= kept[-1]["memory"]
    assert end["record"]["seconds"] >= kept[-1]["seconds"]
    assert end["heartbeat_age"] < 60
