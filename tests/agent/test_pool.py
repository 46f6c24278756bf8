"""The pool runs the units of a job: each one once, as many at once as fit."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from onebox.agent.units import threads
from tests.agent.test_jobs import follow, run
from tests.agent.test_supervisor import supervisor
from tests.agent.units import has_result, result, run_units, units
from tests.fakes.agent_box import AgentBox, kill, pids, read, until

WAIT = "until [ -e go ]; do sleep 0.02; done"
CPUS = len(os.sched_getaffinity(0))


def pool(box: AgentBox) -> int:
    """Return the pid of the pool of a running job."""
    words = [os.fsencode(box.pyz), b"pool"]

    def found() -> list[int]:
        lines = {pid: read(f"/proc/{pid}/cmdline").split(b"\0") for pid in pids()}
        return [pid for pid, line in lines.items() if set(words) <= set(line)]

    # A unit has the same command line until its exec; the pool is older.
    until(found)
    return min(found())


def seen(box: AgentBox, name: str) -> dict[str, str]:
    """Return the variables that a unit has written to a file."""
    value = json.loads((box.work / name).read_text())
    assert isinstance(value, dict)
    return value


def environ(name: str) -> list[str]:
    """Return a command that writes its environment to a file."""
    program = "import json,os,sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    return [sys.executable, "-c", program, name]


def test_all_units_run_and_have_a_result(agent_box: AgentBox) -> None:
    """A job whose units all exit with 0 exits with 0, and each has a result."""
    log, end = run_units(agent_box, units(*["echo one; echo two"] * 3))

    assert end["record"]["code"] == 0
    assert log == f"3 units, {min(CPUS, 3)} at once\n"
    assert {n: end["units"][n] for n in ("total", "done", "failed", "left")} == {
        "total": 3,
        "done": 3,
        "failed": 0,
        "left": 0,
    }
    assert end["units"]["running"] == end["units"]["skipped"] == 0
    assert end["units"]["mean"] > 0
    found = result(agent_box, 2)
    for name in ("started", "seconds", "cpu_seconds", "memory_peak"):
        assert found.pop(name) > 0
    assert found == {
        "unit": 2,
        "units": 3,
        "run": "r1",
        "job": "j1",
        "parameters": {"n": "2"},
        "command": "echo one; echo two",
        "code": 0,
        "signal": None,
        "cause": "exit",
        "attempts": 1,
        "log_bytes": 8,
        "last": "two",
        "survivors": [],
    }
    folder = agent_box.work / "results" / "2"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["unit.json", "unit.log"]
    assert (folder / "unit.log").read_text() == "one\ntwo\n"


def test_a_unit_that_fails_is_a_line_of_the_log(agent_box: AgentBox) -> None:
    """The other units run, the job exits with 1, and its log names the unit."""
    bad = "echo 'no data' >&2; exit 3"
    log, end = run_units(agent_box, units("true", bad, "kill -9 $$", "true"))

    lines = sorted(log.splitlines()[1:])
    assert lines[0].startswith("unit 2: exit 3 after 0.")
    assert lines[0].endswith(" s: no data")
    assert lines[1].startswith("unit 3: killed by SIGKILL after 0.")
    assert len(lines) == 2
    assert end["record"]["code"] == 1
    assert (end["units"]["done"], end["units"]["failed"]) == (2, 2)
    assert (result(agent_box, 2)["code"], result(agent_box, 2)["cause"]) == (3, "exit")
    assert result(agent_box, 3)["code"] == 137
    assert result(agent_box, 3)["signal"] == signal.SIGKILL
    assert result(agent_box, 3)["cause"] == "signal"


def test_a_missing_command_is_named(agent_box: AgentBox) -> None:
    """A missing command is exit code 127, with the reason as last line."""
    log, _ = run_units(agent_box, units(["no-such-command", "-x"]))

    assert result(agent_box, 1)["code"] == 127
    assert result(agent_box, 1)["last"] == "onebox: no-such-command: command not found"
    assert result(agent_box, 1)["command"] == "no-such-command -x"
    assert "command not found" in log


def test_a_unit_that_fails_runs_again_after_the_others(agent_box: AgentBox) -> None:
    """A retry comes after the units that have not run; only the last result counts."""
    once = "echo $n >> ../order; [ -e $n ] || { touch $n; exit 4; }"
    plan = units(once, *["echo $n >> ../order"] * 5, "exit 5", retries=1)
    log, end = run_units(agent_box, plan)

    order = (agent_box.home / "order").read_text().split()
    assert order.count("1") == 2
    assert order[-1] == "1"
    assert "unit 1: exit 4 after 0." in log
    assert ", runs again\n" in log
    assert (result(agent_box, 1)["code"], result(agent_box, 1)["attempts"]) == (0, 2)
    assert (result(agent_box, 7)["code"], result(agent_box, 7)["attempts"]) == (5, 2)
    assert len([line for line in log.splitlines() if "unit 7" in line]) == 2
    assert (end["units"]["done"], end["units"]["failed"]) == (6, 1)
    assert end["record"]["code"] == 1


def test_units_done_in_the_same_run_are_skipped(agent_box: AgentBox) -> None:
    """A later job of the same run runs only what is not done, in the same folder."""
    count = "echo $n >> ../count; echo x >> results/$n/kept; "
    plan = units(count, count + "[ -e ok ]", count)
    run_units(agent_box, plan)
    (agent_box.work / "ok").touch()
    log, end = run_units(agent_box, plan, "j2")

    assert log.splitlines()[0].endswith(" at once, 2 done before")
    assert end["record"]["code"] == 0
    assert (end["units"]["done"], end["units"]["skipped"]) == (3, 2)
    assert sorted((agent_box.home / "count").read_text().split()) == [
        "1",
        "2",
        "2",
        "3",
    ]
    assert (agent_box.work / "results/2/kept").read_text() == "x\nx\n"
    assert (result(agent_box, 1)["job"], result(agent_box, 2)["job"]) == ("j1", "j2")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"run": "r2"}, False),
        ({"names": ["m"]}, True),
        ({"units": [[1, "touch two; true", "results/1/", ["1"]]]}, True),
    ],
)
def test_a_unit_of_another_run_or_command_runs_again(
    agent_box: AgentBox, change: dict[str, Any], kept: bool
) -> None:
    """It runs again; files of another run are removed, without following links."""
    outside = agent_box.home / "outside"
    outside.mkdir()
    (outside / "file").touch()
    make = f"mkdir results/1/sub; touch results/1/sub/old; ln -s {outside} results/1/l"
    run_units(agent_box, units(make))
    run_units(agent_box, {**units("touch two"), **change}, "j2")

    assert (agent_box.work / "two").exists()
    assert (agent_box.work / "results/1/sub/old").exists() is kept
    assert (agent_box.work / "results/1/l").is_symlink() is kept
    assert (outside / "file").exists()
    assert result(agent_box, 1)["job"] == "j2"


def test_files_of_which_no_run_is_known_stay(agent_box: AgentBox) -> None:
    """Files that were there before the first run stay, such as restored checkpoints."""
    folder = agent_box.work / "results/1"
    folder.mkdir(parents=True)
    (folder / "checkpoint").touch()
    run_units(agent_box, units("true"))

    assert (folder / "checkpoint").exists()


def test_a_folder_behind_a_link_is_not_emptied(agent_box: AgentBox) -> None:
    """A unit whose folder another run has reached through a link is not started."""
    elsewhere = agent_box.home / "elsewhere"
    elsewhere.mkdir()
    (agent_box.work / "results").symlink_to(elsewhere)
    run_units(agent_box, units("touch results/1/old"))
    log, _ = run_units(agent_box, units("touch two", run="r2"), "j2")

    assert (elsewhere / "1/old").exists()
    assert not (agent_box.work / "two").exists()
    assert result(agent_box, 1)["cause"] == "not-started"
    assert "unit 1: not started: " in log


def test_a_unit_that_cannot_be_started_fails_with_126(agent_box: AgentBox) -> None:
    """It is retried as any failure, and the other units run."""
    (agent_box.work / "results").mkdir()
    (agent_box.work / "results/1").touch()
    log, end = run_units(agent_box, units("true", "true", retries=1))

    assert log.count("unit 1: not started: File exists") == 1
    assert log.count("unit 1: not started, runs again: File exists") == 1
    assert (end["units"]["done"], end["units"]["failed"]) == (1, 1)
    assert end["record"]["code"] == 1


def test_killed_pool_is_continued_by_the_same_run(agent_box: AgentBox) -> None:
    """If the pool is killed, its units end; the next job runs only what is not done."""
    once = "echo $n >> ../count"
    half = "results/$n/half"
    again = f"{once}; [ -e {half} ] || {{ touch {half}; {WAIT}; }}"
    plan = units(once, again, again)
    with agent_box.connect() as link:
        link.request("start", job="j1", units=plan)
        until(lambda: has_result(agent_box, 1))
        until((agent_box.work / "results/2/half").exists)
        kill(pool(agent_box))
        _, end = follow(link, "j1")
        assert end["record"]["code"] == 137
        assert agent_box.strays() == []
        assert not has_result(agent_box, 2)
    (agent_box.work / "go").touch()
    log, end = run_units(agent_box, plan, "j2")

    assert "1 done before" in log
    assert end["record"]["code"] == 0
    count = (agent_box.home / "count").read_text().split()
    assert (count.count("1"), count.count("2")) == (1, 2)
    assert (agent_box.work / "results/2/half").exists()


def test_partial_files_of_another_run_are_removed(agent_box: AgentBox) -> None:
    """Also the files of a unit that has not ended belong to its run."""
    with agent_box.connect() as link:
        link.request("start", job="j1", units=units("touch results/1/half; sleep 60"))
        until((agent_box.work / "results/1/half").exists)
        kill(pool(agent_box))
        follow(link, "j1")
    run_units(agent_box, units("true", run="r2"), "j2")

    assert not (agent_box.work / "results/1/half").exists()
    assert not (agent_box.work / "results/1/.unit-run").exists()


DAEMON = """
import os, sys, time
if os.fork():
    sys.exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(0, 3)
os.execve("/bin/sleep", ["sleep", "86.5"], eval(sys.argv[1]))
"""


@pytest.mark.parametrize("variables", ["os.environ", "{}"])
def test_a_daemon_does_not_outlive_its_unit(
    agent_box: AgentBox, variables: str
) -> None:
    """
    What a unit leaves running is ended and named in its result, even with another
    session and environment; other units are not held up, and theirs stays.
    """
    (agent_box.work / "daemon.py").write_text(DAEMON)
    waits = ["sh", "-c", f"sleep 87.5 & {WAIT}; kill $!"]
    daemon = [sys.executable, "daemon.py", variables]
    with agent_box.connect() as link:
        plan = units(daemon, waits) if CPUS > 1 else units(daemon)
        link.request("start", job="j1", units=plan)
        until(lambda: has_result(agent_box, 1))
        commands = [read(f"/proc/{pid}/cmdline") for pid in pids()]
        assert b"sleep\x0086.5\x00" not in commands
        assert CPUS == 1 or b"sleep\x0087.5\x00" in commands
        (agent_box.work / "go").touch()
        _, end = follow(link, "j1")

    assert end["record"]["code"] == 0
    assert result(agent_box, 1)["survivors"] == ["sleep 86.5"]
    assert CPUS == 1 or result(agent_box, 2)["survivors"] == []


def test_a_daemon_is_found_although_its_cpus_are_used_again(
    agent_box: AgentBox,
) -> None:
    """A daemon without its environment is ended while other units use its CPUs."""
    (agent_box.work / "daemon.py").write_text(DAEMON)
    daemon = [sys.executable, "daemon.py", "{}"]
    _, end = run_units(agent_box, units(daemon, *["sleep 0.2"] * 9, cpus=CPUS))

    assert end["units"]["done"] == 10
    found = [name for n in range(1, 11) for name in result(agent_box, n)["survivors"]]
    assert found == ["sleep 86.5"]


def test_a_daemon_that_ignores_sigterm_is_killed(agent_box: AgentBox) -> None:
    """After SIGTERM the processes that are left have two seconds, then SIGKILL."""
    stubborn = "(trap '' TERM; while :; do sleep 0.1; done) & exit 0"
    _, end = run_units(agent_box, units(stubborn, "true"))

    assert end["record"]["code"] == 0
    assert result(agent_box, 1)["survivors"] != []
    assert result(agent_box, 2)["survivors"] == []
    assert agent_box.strays() == []


def test_a_process_that_ends_by_itself_is_no_survivor(agent_box: AgentBox) -> None:
    """A process that ends shortly after the main process is not named."""
    run_units(agent_box, units("sleep 0.05 & exit 0"))

    assert result(agent_box, 1)["survivors"] == []


def test_binary_output_is_kept_and_its_last_line_is_printable(
    agent_box: AgentBox,
) -> None:
    """The log has every byte; the last line has printable characters only."""
    out = b"\0\xff\r\n\x1b[31mred \xc3\xa9\x1b[0m\x07\rdone\x1b]0;t\x07\xff \t\n\r\n \n"
    (agent_box.work / "out").write_bytes(out)
    run_units(agent_box, units("cat out"))

    assert (agent_box.work / "results/1/unit.log").read_bytes() == out
    assert result(agent_box, 1)["last"] == "done\ufffd"


def test_a_log_is_limited(agent_box: AgentBox) -> None:
    """A unit that prints 10 MB without a newline keeps the ends of its log."""
    program = (
        "import os; os.write(1, b'a'); [os.write(1, b'x' * 999) for _ in range(10**4)]"
    )
    command = f'python3 -c "{program}"; until [ -e go ]; do sleep 0.05; done; echo end'
    path = agent_box.work / "results/1/unit.log"
    with agent_box.connect() as link:
        link.request("start", job="j1", units=units(command), max_log=4 << 20)
        until(lambda: path.exists() and b"left out" in path.read_bytes())
        (agent_box.work / "go").touch()
        follow(link, "j1")
    log = path.read_bytes()

    assert len(log) <= 1 << 20
    assert log.startswith(b"axxx")
    assert log.endswith(b"xxxend\n")
    assert result(agent_box, 1)["log_bytes"] == len(log)
    assert result(agent_box, 1)["last"] == "x" * 200


def test_a_unit_whose_folder_was_removed_has_failed(agent_box: AgentBox) -> None:
    """A unit that removes the folder of another one makes that one fail."""
    wait = "until [ -e results/1/unit.json ]; do sleep 0.02; done"
    first = "echo $n > results/$n/out"
    log, end = run_units(agent_box, units(first, f"{wait}; rm -r results/1"))

    assert end["record"]["code"] == 1
    assert (end["units"]["done"], end["units"]["failed"]) == (1, 1)
    found = result(agent_box, 1)
    assert (found["code"], found["cause"]) == (1, "outputs-lost")
    assert found["seconds"] > 0
    assert "unit 1: its outputs were removed\n" in log
    assert result(agent_box, 2)["code"] == 0


def test_a_unit_that_removes_its_own_folder_has_failed(agent_box: AgentBox) -> None:
    """A unit without a folder at its end has lost its outputs."""
    run_units(agent_box, units("rm -r results/1", "rm -r results/2; mkdir results/2"))

    assert result(agent_box, 1)["cause"] == "outputs-lost"
    assert result(agent_box, 2)["code"] == 0


def test_a_unit_has_its_variables(agent_box: AgentBox) -> None:
    """A unit has the job's variables, its parameters, and its place in the plan."""
    plan = units(environ("seen"), total=9, names=["seed", "alpha"])
    plan["units"][0] = [4, environ("seen"), "results/a b/", ["1\n2", "\udcff"]]
    _, end = run_units(
        agent_box, plan, env={"seed": "of the job", "A": "b"}, secrets={"TOKEN": "t"}
    )
    variables = seen(agent_box, "seen")

    assert end["record"]["code"] == 0
    assert variables["seed"] == "1\n2"
    assert variables["alpha"] == "\udcff"
    assert (variables["A"], variables["TOKEN"]) == ("b", "t")
    assert variables["ONEBOX_UNIT"] == "4"
    assert variables["ONEBOX_UNITS"] == "9"
    assert variables["ONEBOX_UNIT_OUTPUTS"] == str(agent_box.work / "results/a b")
    assert (variables["ONEBOX_JOB"], variables["ONEBOX_BOX"]) == ("j1", agent_box.id)


def test_a_unit_gets_as_many_threads_as_cpus(agent_box: AgentBox) -> None:
    """The variables of threads are set, unless the job sets them itself."""
    run_units(agent_box, units(environ("seen")), env={"OMP_NUM_THREADS": "7"})
    variables = seen(agent_box, "seen")

    assert variables["OMP_NUM_THREADS"] == "7"
    for name, value in threads.variables(1).items():
        assert name == "OMP_NUM_THREADS" or variables[name] == value == "1"


def test_an_ordinary_job_gets_few_variables_of_threads(agent_box: AgentBox) -> None:
    """They are those of libraries that do not start threads in each process."""
    run(agent_box, argv=environ("seen"), env={"MC_CORES": "3"})
    variables = seen(agent_box, "seen")

    assert variables["MC_CORES"] == "3"
    assert (
        variables["POLARS_MAX_THREADS"] == variables["RAYON_NUM_THREADS"] == str(CPUS)
    )
    assert variables["JULIA_NUM_THREADS"] == str(CPUS)
    assert "OMP_NUM_THREADS" not in variables


@pytest.mark.skipif(CPUS < 2, reason="this takes two CPUs")
def test_units_run_on_cpus_of_their_own(agent_box: AgentBox) -> None:
    """Units that run at the same time are bound to different CPUs."""
    program = (
        "import os, sys, time\n"
        "open('cpus' + sys.argv[1], 'w').write(repr(os.sched_getaffinity(0)))\n"
        "while not os.path.exists('cpus' + sys.argv[2]): time.sleep(0.02)\n"
    )
    one = [sys.executable, "-c", program, "1", "2"]
    two = [sys.executable, "-c", program, "2", "1"]
    run_units(agent_box, units(one, two))
    first, second = ((agent_box.work / f"cpus{n}").read_text() for n in (1, 2))

    assert first != second
    assert len(first.split(",")) == len(second.split(",")) == 1


@pytest.mark.parametrize("changes", [{"cpus": CPUS + 1}, {"memory": 1 << 60}])
def test_a_unit_larger_than_the_box_runs_alone(
    agent_box: AgentBox, changes: dict[str, int]
) -> None:
    """A unit that wants more than the box has runs alone, with all that it can get."""
    program = "import os; print(len(os.sched_getaffinity(0)))"
    plan = units(*[[sys.executable, "-c", program]] * 2, **changes)
    log, _ = run_units(agent_box, plan)

    assert log == "2 units, 1 at once\n"
    expected = str(CPUS) if "cpus" in changes else "1"
    assert result(agent_box, 2)["last"] == expected


def test_a_unit_has_a_session_without_input_and_is_killed_first(
    agent_box: AgentBox,
) -> None:
    """A unit leads a session, has no input, and a higher OOM score than the pool."""
    program = (
        "import os, sys\n"
        "score = lambda pid: int(open(f'/proc/{pid}/oom_score_adj').read())\n"
        "print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()), os.getcwd(),\n"
        "      score('self') - score(os.getppid()))\n"
    )
    run_units(agent_box, units([sys.executable, "-c", program]))

    assert result(agent_box, 1)["last"] == f"True '' {agent_box.work} 100"


def test_cancel_keeps_what_is_done(agent_box: AgentBox) -> None:
    """
    After a cancel no unit starts. A running unit that exits with 0 is done; all others
    are left, without a result.
    """
    good = "trap 'exit 0' TERM; touch up$n; while :; do sleep 0.02; done"
    bad = "touch up$n; exec sleep 60"
    plan = units("true", good, bad, "touch up$n", "exit 1")
    if CPUS == 1:
        plan = units("true", good, "touch up$n", bad, "exit 1")
    with agent_box.connect() as link:
        link.request("start", job="j1", units=plan)
        until(lambda: has_result(agent_box, 1))
        for number in range(2, min(CPUS, 2) + 2):
            until((agent_box.work / f"up{number}").exists)
        end = link.request("cancel", job="j1")

    assert end["record"]["cause"] == "cancel"
    if CPUS <= 2:
        assert end["record"]["code"] == 143
        assert end["units"]["done"] == 2
        assert end["units"]["left"] == 3
        assert [has_result(agent_box, n) for n in range(1, 6)] == [True, True] + [
            False
        ] * 3
    assert end["units"]["running"] == 0
    assert agent_box.strays() == []


def test_a_unit_that_ends_itself_with_sigterm_has_failed(agent_box: AgentBox) -> None:
    """SIGTERM counts as a failure if the pool does not get it as well."""
    _, end = run_units(agent_box, units("kill -TERM $$", "exit 143", "true"))

    assert (end["units"]["done"], end["units"]["failed"]) == (1, 2)
    assert result(agent_box, 1)["signal"] == signal.SIGTERM
    assert result(agent_box, 2)["code"] == 143


def test_the_pool_finishes_running_units_if_only_it_gets_sigterm(
    agent_box: AgentBox,
) -> None:
    """A SIGTERM for the pool alone starts no more units, and loses no running one."""
    plan = units(f"touch up; sleep 1.5; {WAIT}", *["true"] * (CPUS + 5), cpus=CPUS)
    with agent_box.connect() as link:
        link.request("start", job="j1", units=plan)
        until((agent_box.work / "up").exists)
        time.sleep(1.2)  # Only units that have just started get SIGTERM from the pool.
        os.kill(pool(agent_box), signal.SIGTERM)
        (agent_box.work / "go").touch()
        _, end = follow(link, "j1")

    assert end["record"]["code"] == 143
    assert (end["units"]["done"], end["units"]["left"]) == (1, CPUS + 5)


def test_five_hundred_units_run_once_each(agent_box: AgentBox) -> None:
    """Every unit of a large plan runs once and has its own result."""
    plan = units(*["echo $n >> ../count; exit $((n % 100 == 0))"] * 500)
    log, end = run_units(agent_box, plan)

    count = sorted(map(int, (agent_box.home / "count").read_text().split()))
    assert count == list(range(1, 501))
    assert (end["units"]["done"], end["units"]["failed"]) == (495, 5)
    assert len(log.splitlines()) == 6
    assert all(result(agent_box, n)["parameters"] == {"n": str(n)} for n in count)


def test_memory_of_a_unit_counts_its_whole_family(agent_box: AgentBox) -> None:
    """The peak is that of all processes of a unit together, at one moment."""
    eat = "python3 -c 'x = bytearray(60 << 20); import time; time.sleep(3)'"
    run_units(agent_box, units(f"{eat} & {eat} & wait", "true"))

    assert result(agent_box, 1)["memory_peak"] > 120 << 20
    assert result(agent_box, 2)["memory_peak"] < 60 << 20


def test_a_unit_killed_for_lack_of_memory_has_the_cause_oom(
    agent_box: AgentBox, memory_limit: Path
) -> None:
    """A unit that the kernel killed for lack of memory has the cause "oom"."""
    (agent_box.work / "eat.py").write_text(
        "x = [bytearray(1 << 20) for _ in range(500)]"
    )
    eat = f"echo $$ > {memory_limit}; exec '{sys.executable}' eat.py"
    log, _ = run_units(agent_box, units(eat, "true"))

    assert result(agent_box, 1)["cause"] == "oom"
    assert "unit 1: killed by SIGKILL (out of memory) after " in log


def test_full_disk_ends_no_pool(small_disk: AgentBox) -> None:
    """
    Units that fill the disk fail with that cause; the results of the others are
    written when there is space again.
    """
    fill = (
        "import time\n"
        "with open('big', 'wb', 0) as big:\n"
        "    try:\n"
        "        while True: big.write(bytes(4096))\n"
        "    except OSError: raise SystemExit(5)\n"
    )
    plan = units([sys.executable, "-c", fill], "true", "rm big", "true", cpus=CPUS)
    log, end = run_units(small_disk, plan)

    assert end["record"]["code"] == 1, log
    found = [result(small_disk, n) for n in range(1, 5)]
    assert found[0]["cause"] == "disk-full"
    assert found[3]["code"] == 0
    assert end["units"]["left"] == 0


def test_the_supervisor_knows_the_pool_as_the_job(agent_box: AgentBox) -> None:
    """The pool is a child of the supervisor, in a session of its own."""
    with agent_box.connect() as link:
        link.request("start", job="j1", units=units(WAIT))
        pid = pool(agent_box)
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        assert int(fields[1]) == supervisor(agent_box, "j1")
        assert os.getsid(pid) == pid
        (agent_box.work / "go").touch()
        follow(link, "j1")
