"""Start, follow and cancel jobs, as a client does."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from onebox.agent import box, protocol
from onebox.agent.jobs import exec, log_stream
from onebox.remote.channel import AgentChannel, AgentError
from tests.fakes.agent_box import AgentBox, pids, until


def run(box: AgentBox, job: str = "j1", **request: Any) -> tuple[bytes, dict[str, Any]]:
    """Run a job to its end; return its log and the last answer."""
    with box.connect() as link:
        link.request("start", job=job, **request)
        return follow(link, job)


def follow(
    link: AgentChannel, job: str, offset: int = 0
) -> tuple[bytes, dict[str, Any]]:
    """Follow a job to its end; return its log from the offset on, and the answer."""
    log = bytearray()
    link.begin("follow", job=job, offset=offset)
    for kind, payload in link.frames():
        if kind == b"D":
            log += payload
        elif kind == b"A":
            return bytes(log), protocol.loads(payload)
    raise AssertionError("no answer")


@pytest.mark.parametrize("code", [0, 1, 3, 42, 125, 126, 127, 255])
def test_the_record_has_the_commands_exit_code(agent_box: AgentBox, code: int) -> None:
    """The record has the exit code with which the command ended."""
    log, end = run(agent_box, shell=f"echo out; echo err >&2; exit {code}")

    assert log == b"out\nerr\n"
    assert end["state"] == "exited"
    assert end["record"]["code"] == code
    assert end["record"]["cause"] == "exit"
    assert end["record"]["signal"] is None
    assert end["record"]["log_bytes"] == end["log_bytes"] == len(log)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_recorded_beside_the_code(agent_box: AgentBox, signum: int) -> None:
    """A job that a signal ended has code 128+n, and the signal in its record."""
    _, end = run(agent_box, shell=f"kill -{int(signum)} $$")

    assert end["record"]["signal"] == signum
    assert end["record"]["code"] == 128 + signum
    assert end["record"]["cause"] == "signal"


def test_a_command_that_cannot_run_is_named_in_the_log(agent_box: AgentBox) -> None:
    """A missing command exits with 127, and one that may not be executed with 126."""
    plain = agent_box.work / "plain"
    plain.write_text("no program")

    log, end = run(agent_box, argv=["no-such-command", "-x"])
    assert (log, end["record"]["code"]) == (
        b"onebox: no-such-command: command not found\n",
        127,
    )
    log, end = run(agent_box, "j2", argv=["./plain"])
    assert (log, end["record"]["code"]) == (
        b"onebox: ./plain: Permission denied\n",
        126,
    )


def test_a_job_has_only_a_few_of_the_agents_variables(
    agent_box: AgentBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A job has its own variables and secrets, its venv, and few of the agent's variables.
    """
    monkeypatch.setenv("HOME", str(agent_box.home))
    monkeypatch.setenv("STRAY", "of the process that started the agent")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    (agent_box.home / ".venv" / "bin").mkdir(parents=True)

    log, _ = run(
        agent_box,
        argv=[
            sys.executable,
            "-c",
            "import json, os; print(json.dumps([*os.environ.items()]), os.getcwd())",
        ],
        env={"A": "1\n2", "B": "from env", "ODD": "\udcff"},
        secrets={"B": "from secrets"},
    )
    listed, _, cwd = log.decode().strip().rpartition(" ")
    seen = dict(json.loads(listed))

    assert cwd == str(agent_box.work)
    assert seen["A"] == "1\n2"
    assert seen["B"] == "from secrets"
    assert seen["ODD"] == "\udcff"
    assert seen["ONEBOX_JOB"] == "j1"
    assert seen["ONEBOX_BOX"] == agent_box.id
    assert seen["LC_TIME"] == "C"
    assert seen["VIRTUAL_ENV"] == str(agent_box.home / ".venv")
    assert seen["PATH"].split(":")[0] == str(agent_box.home / ".venv" / "bin")
    assert "STRAY" not in seen
    assert (seen["https_proxy"], seen["NO_PROXY"]) == ("http://proxy:3128", "localhost")


def test_etc_environment_is_parsed_as_for_logins(tmp_path: Path) -> None:
    """
    Comments, `export` and quotes are not part of a value; invalid lines are skipped.
    """
    file = tmp_path / "environment"
    file.write_bytes(
        b"# http_proxy=none\nhttp_proxy=http://a:1 # ours\n  export B='b c'#\n"
        b'C="d\'e"\nD=\n=x\n1=2\nno equals sign\nODD=\xff\nHASH="#"\n'
    )
    assert exec.system_environment(str(file)) == {
        "http_proxy": "http://a:1",
        "B": "b c",
        "C": "d'e",
        "D": "",
        "ODD": "\udcff",
        "HASH": "#",
    }
    assert exec.system_environment(str(tmp_path / "none")) == {}


def test_arguments_are_passed_unchanged(agent_box: AgentBox) -> None:
    """The job's argv is exactly the requested list, without a shell or quoting."""
    words = ["$HOME", "a b", "'", '"', "*", "line\nbreak", "", "-x", "\udcfe"]
    program = "import os, sys; print([os.fsencode(w) for w in sys.argv[1:]])"

    log, _ = run(agent_box, argv=[sys.executable, "-c", program, *words])

    assert log.decode().strip() == str([os.fsencode(word) for word in words])


def test_output_folders_exist_when_the_job_starts(agent_box: AgentBox) -> None:
    """Output folders exist when the job starts; a path outside `work` is refused."""
    _, end = run(agent_box, shell="touch out/deep/file", outputs=["out/deep"])
    assert end["record"]["code"] == 0
    assert (agent_box.work / "out/deep/file").exists()

    for path in ("../out", "/out", "a/../../out"):
        with agent_box.connect() as link, pytest.raises(AgentError) as refused:
            link.request("start", job="j2", shell="true", outputs=[path])
        assert refused.value.kind == "path"


def test_start_twice_starts_once(agent_box: AgentBox) -> None:
    """A second start with the same id only returns the state."""
    with agent_box.connect() as link, agent_box.connect() as other:
        wait = "until [ -e go ]; do sleep 0.02; done"
        request = {"job": "j1", "shell": f"echo x >> count; {wait}"}
        assert link.request("start", **request) == {"job": "j1", "state": "running"}
        assert other.request("start", **request) == {"job": "j1", "state": "running"}
        (agent_box.work / "go").touch()
        follow(link, "j1")
        assert other.request("start", **request) == {"job": "j1", "state": "exited"}

    assert (agent_box.work / "count").read_text() == "x\n"


def test_a_second_job_is_refused_while_one_runs(agent_box: AgentBox) -> None:
    """While a job runs, another one is refused with the first job's name."""
    with agent_box.connect() as link:
        link.request("start", job="first", shell="sleep 60", cancel_grace=5)
        with pytest.raises(AgentError, match="first") as refused:
            link.request("start", job="second", shell="true")
        assert refused.value.kind == "busy"
        assert link.request("hello")["job"] == "first"
        link.request("cancel", job="first")
        assert link.request("start", job="second", shell="true")["job"] == "second"
        assert follow(link, "second")[1]["state"] == "exited"
        assert link.request("job")["job"] == "second"


@pytest.mark.parametrize(
    "request_",
    [
        {"job": "../evil", "shell": "true"},
        {"job": "j1"},
        {"job": "j1", "argv": []},
        {"job": "j1", "argv": ["true"], "shell": "true"},
        {"job": "j1", "shell": "a\0b"},
        {"job": "j1", "shell": "true", "env": {"A=B": "1"}},
        {"job": "j1", "shell": "true", "secrets": {"A": 1}},
        {"job": "j1", "shell": "true", "cancel_grace": "long"},
    ],
)
def test_an_invalid_request_is_refused(
    agent_box: AgentBox, request_: dict[str, Any]
) -> None:
    """An invalid request is refused, and leaves no trace."""
    with agent_box.connect() as link:
        with pytest.raises(AgentError) as refused:
            link.request("start", **request_)
        assert refused.value.kind == "argument"
        assert link.request("job")["state"] == "none"


def test_an_unknown_job_has_the_state_none(agent_box: AgentBox) -> None:
    """An unknown job has the state none, and cannot be followed or cancelled."""
    with agent_box.connect() as link:
        assert link.request("job", job="x")["state"] == "none"
        for op in ("follow", "cancel"):
            with pytest.raises(AgentError) as refused:
                link.request(op, job="x")
            assert refused.value.kind == "job"


def test_a_log_of_any_bytes_arrives_unchanged(agent_box: AgentBox) -> None:
    """Binary output arrives byte for byte, from any offset."""
    garbage = secrets.token_bytes(1_000_000) + b"\0\xff\r\n\x1b[2J"
    (agent_box.work / "garbage").write_bytes(garbage)

    log, _ = run(agent_box, shell="cat garbage")
    assert log == garbage

    with agent_box.connect() as link:
        assert follow(link, "j1", 0)[0] == garbage
        assert follow(link, "j1", 999_999)[0] == garbage[999_999:]
        assert follow(link, "j1", len(garbage))[0] == b""
        for offset in (-1, "0"):
            with pytest.raises(AgentError) as refused:
                link.request("follow", job="j1", offset=offset)
            assert refused.value.kind == "offset"


def test_an_offset_behind_the_end_is_accepted_once_the_job_has_ended(
    agent_box: AgentBox,
) -> None:
    """
    After a power cut a log may be shorter than a client's copy, which is no error.
    """
    with agent_box.connect() as link:
        link.request("start", job="j1", argv=["sh", "-c", "echo up; sleep 600"])
        with pytest.raises(AgentError) as refused:
            link.request("follow", job="j1", offset=1000)
        assert "offset" == refused.value.kind
        link.request("cancel", job="j1")
        log, end = follow(link, "j1", 1000)

    assert (b"", "exited") == (log, end["state"])


def test_clients_that_are_killed_neither_lose_nor_repeat_a_byte(
    agent_box: AgentBox,
) -> None:
    """Clients are killed during 50 MB; what they received together is the log, once."""
    program = (
        "import hashlib, os\n"
        "check = hashlib.sha256()\n"
        "for _ in range(800):\n"
        "    data = os.urandom(1 << 16)\n"
        "    check.update(data)\n"
        "    os.write(1, data)\n"
        "open('sum', 'w').write(check.hexdigest())\n"
    )
    with agent_box.connect() as link:
        link.request("start", job="j1", argv=[sys.executable, "-c", program])
    local = bytearray()
    for stop_at in (1_000_000, 5_000_000, 20_000_000, 1 << 30):
        link = agent_box.connect()
        link.begin("follow", job="j1", offset=len(local))
        for kind, payload in link.frames():
            if kind == b"D":
                local += payload
            if len(local) >= stop_at:
                link.process.kill()
                break
            if kind == b"A":
                assert protocol.loads(payload)["log_bytes"] == len(local)

    assert len(local) == 800 << 16
    assert hashlib.sha256(local).hexdigest() == (agent_box.work / "sum").read_text()


def test_follow_sends_lines_and_samples_while_the_job_runs(agent_box: AgentBox) -> None:
    """A line reaches the client while the job runs, and samples do too."""
    with agent_box.connect() as link:
        link.request(
            "start", job="j1", shell="echo first; until [ -e go ]; do sleep 0.02; done"
        )
        link.begin("follow", job="j1", offset=0)
        seen = set()
        for kind, payload in link.frames():
            seen.add(kind)
            if kind == b"S":
                sample = protocol.loads(payload)
                assert sample["memory"] <= sample["memory_total"]
                assert sample["disk_free"] <= sample["disk_total"]
            if kind == b"D":
                assert payload == b"first\n"
            if {b"D", b"S"} <= seen:
                (agent_box.work / "go").touch()
            if kind == b"A":
                assert protocol.loads(payload)["record"]["code"] == 0


def test_an_incomplete_sample_is_not_sent(
    agent_box: AgentBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that is read while it is written is not sent, as it is no valid JSON."""
    run(agent_box, shell="true")
    latest = agent_box.root / "jobs" / "j1" / "latest"
    whole = latest.read_bytes()
    latest.write_bytes(whole[:-20])
    read = box.read

    def read_before_the_rest(path: str) -> bytes:
        data = read(path)
        if path == str(latest):
            latest.write_bytes(whole)
        return data

    monkeypatch.setattr("onebox.agent.jobs.metrics.read", read_before_the_rest)
    far, near = socket.socketpair()
    with far, near, (latest.parent / "log").open("rb") as log:
        channel = protocol.Channel(near.fileno(), near.fileno())
        at = box.BoxConfig.load(str(agent_box.root))
        log_stream.stream(channel, at, "j1", log.fileno())
        channel.send(b"Z")
        client = protocol.Channel(far.fileno(), far.fileno())
        while (frame := client.receive())[0] != b"Z":
            assert frame[0] != b"S" or protocol.loads(frame[1])


def test_follow_renews_the_lease_and_ends_with_the_client(
    agent_box: AgentBox,
) -> None:
    """
    During a follow, a keep-alive renews the lease, and a disconnect ends the agent.
    """
    lease = agent_box.root / "lease"
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="sleep 60")
        link.begin("follow", job="j1", offset=0)
        next(link.frames())
        os.utime(lease, (0, 0))
        link.send(b"P")
        until(lambda: time.time() - lease.stat().st_mtime < 60)
        link.close(wait=60)
        assert link.process.returncode == 0
    with agent_box.connect() as link:
        assert link.request("job")["state"] == "running"


def test_cancel_sends_sigterm_and_records_the_cause(agent_box: AgentBox) -> None:
    """
    A job that handles SIGTERM can print a last line, and its record has the cause.
    """
    with agent_box.connect() as link:
        link.request(
            "start",
            job="j1",
            shell="trap 'echo bye; exit 9' TERM; touch on; sleep 60 & wait",
        )
        until((agent_box.work / "on").exists)
        end = link.request("cancel", job="j1")
        assert end["state"] == "exited"
        assert (end["record"]["code"], end["record"]["cause"]) == (9, "cancel")
        assert follow(link, "j1")[0] == b"bye\n"
    assert agent_box.strays() == []


def test_cancel_kills_a_job_that_ignores_sigterm(agent_box: AgentBox) -> None:
    """A job that ignores SIGTERM is killed after its grace, with all its children."""
    with agent_box.connect() as link:
        link.request(
            "start",
            job="j1",
            shell="trap '' TERM; sleep 61 & touch on; sleep 60",
            cancel_grace=0.3,
        )
        until((agent_box.work / "on").exists)
        record = link.request("cancel", job="j1")["record"]
    assert (record["signal"], record["cause"]) == (signal.SIGKILL, "cancel")
    assert agent_box.strays() == []


def test_a_stopped_job_can_be_cancelled(agent_box: AgentBox) -> None:
    """A job that was stopped with SIGSTOP is continued, so that it handles SIGTERM."""
    with agent_box.connect() as link:
        link.request(
            "start", job="j1", shell="echo $$ > pid; kill -STOP $$", cancel_grace=60
        )
        until(lambda: (agent_box.work / "pid").exists())
        record = link.request("cancel", job="j1")["record"]
    assert record["signal"] == signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="is about Linux' threads")
def test_a_job_that_looks_like_a_zombie_can_be_cancelled(agent_box: AgentBox) -> None:
    """A process whose first thread has ended still runs, and gets SIGTERM."""
    job = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('on', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with agent_box.connect() as link:
        link.request("start", job="j1", argv=[sys.executable, "-c", job])
        until(lambda: link.request("job")["log_bytes"])
        # Such a process has no environment in /proc either.
        until(lambda: not agent_box.strays())
        link.begin("cancel", job="j1")
        record = link.finish(within=60)["record"]
    assert record["signal"] == signal.SIGTERM


def test_children_that_checkpoint_get_their_grace(agent_box: AgentBox) -> None:
    """If the shell dies of SIGTERM at once, its child still gets the whole grace."""
    child = (
        "import signal, time\n"
        "def end(*_):\n"
        "    time.sleep(3)\n"
        "    open('checkpoint', 'w').close()\n"
        "    raise SystemExit\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open('on', 'w').close()\n"
        "time.sleep(60)\n"
    )
    (agent_box.work / "child.py").write_text(child)
    with agent_box.connect() as link:
        link.request("start", job="j1", shell=f"'{sys.executable}' child.py; true")
        until((agent_box.work / "on").exists)
        link.request("cancel", job="j1")
    assert (agent_box.work / "checkpoint").exists()


def test_daemons_end_with_the_job_and_are_recorded(agent_box: AgentBox) -> None:
    """Daemons in sessions of their own end with the job, and the record names them."""
    daemon = "(setsid sh -c '(setsid sh -c \"touch on; exec sleep 71\" &); true' &)"
    wait = "until [ -e on ]; do sleep 0.02; done"
    _, end = run(agent_box, shell=f"{daemon}; {wait}; exit 4")

    assert end["record"]["code"] == 4
    assert end["record"]["survivors"] == ["sleep 71"]
    assert agent_box.strays() == []


def test_secrets_reach_only_the_job(agent_box: AgentBox) -> None:
    """The value of a secret is in no file of the agent and in no command line."""
    canary = f"canary-{secrets.token_hex(8)}"
    with agent_box.connect() as link:
        link.request(
            "start",
            job="j1",
            shell='test -n "$TOKEN" && touch has; until [ -e go ]; do sleep 0.02; done',
            secrets={"TOKEN": canary},
        )
        until((agent_box.work / "has").exists)
        for pid in pids():
            try:
                assert canary.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
        (agent_box.work / "go").touch()
        follow(link, "j1")
    files = [path for path in agent_box.root.rglob("*") if path.is_file()]
    assert agent_box.root / "jobs" / "j1" / "spec.json" in files
    for path in files:
        assert canary.encode() not in path.read_bytes(), path
