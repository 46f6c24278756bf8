"""Faults that come from outside, met by real `inv` lines: each is named, none loses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from onebox.remote.keys import identity
from onebox.store.box_store import BoxStore

from .conftest import TOML, Project

REHEARSE = TOML + "[local.rehearse]\n"


class TestState:
    def test_damaged(self, project: Project) -> None:
        """
        A torn state file is kept aside and said so; the box is found by its tags.
        """
        project.inv("provision")
        (state,) = project.home.glob("state/projects/*/main/state.json")
        whole = state.read_bytes()
        state.write_bytes(whole[: len(whole) // 2])
        done = project.inv("run", "teardown")

        assert 0 == done.code, done.err
        assert "was damaged: it is kept as state.json.corrupt-1" in done.err
        assert whole.startswith(state.with_name("state.json.corrupt-1").read_bytes())
        assert "42\n" == project.read("results/answer.txt")
        assert [] == project.boxes()

    def test_project_removed(self, project: Project, tmp_path: Path) -> None:
        """
        A box whose project directory is gone is seen and removed from elsewhere.
        """
        project.inv("provision")
        (box,) = project.boxes()
        shutil.rmtree(project.root)
        project.root = tmp_path / "elsewhere"
        project.write("tasks.py", "from onebox import *\n")

        assert box in project.inv("sweep").out

    def test_killed_before_creation(self, project: Project) -> None:
        """
        A command killed before it had made anything is named; nothing is to be done.
        """
        project.inv("teardown")
        (state,) = project.home.glob("state/projects/*/main")
        book = BoxStore(state)
        with pytest.raises(KeyError), book.intent("create", box="ob-x", kind="box"):
            raise KeyError
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert "interrupted before it created a box: nothing to clean up" in done.err
        assert [] == book.open_intents()

    def test_left_by_kills(self, project: Project) -> None:
        """
        Drafts and scratch directories of killed commands are cleared by a later one.
        """
        project.inv("provision")
        (ssh,) = project.home.glob("state/projects/*/main/ssh")
        config = project.home / "config"
        (ssh / ".config-abc").write_text("half")
        (ssh / ".known_hosts-abc").write_text("half")
        (config / ".draft-abc").mkdir()
        (config / ".draft-abc" / "identity").write_text("half a key")
        young = config / ".draft-young"
        young.mkdir()
        jobs, results = project.root / ".onebox" / "jobs", project.root / "results"
        mine = project.write("results/.mine.json-abc", "not ours")
        drafts = [
            *ssh.glob(".*-abc"),
            config / ".draft-abc",
            project.write(".onebox/fetched/main/.last.json-abc", "{"),
            project.write(".onebox/jobs/j0/.receipt.json-abc", "{"),
            project.write("results/.onebox-receipt.json-abc", "{"),
            _draft(project.home / "state" / "providers" / ".local-abc"),
        ]
        _age(mine, *drafts)
        assert 0 == project.inv("run").code
        assert 0 == project.inv("teardown").code
        project.inv("run")

        assert [] == [path for path in drafts if path.exists()]
        assert [] == list(ssh.parent.rglob(".*"))
        assert [] == list(jobs.rglob(".*"))
        assert [mine] == list(results.glob(".*"))
        assert [young] == list(config.glob(".*"))


class TestLine:
    def test_another_machine_answers(self, project: Project) -> None:
        """
        Under a reused address nothing is sent and nothing done: exit 76, box kept.
        """
        project.write("onebox.toml", REHEARSE + "host_key_after = 9\n")
        project.write("job.sh", "echo up; sleep 600")
        line = project.start("run", "--keep")
        project.until("up\n")
        (box,) = project.boxes()
        time.sleep(9)
        _cut(box)

        assert 76 == line.wait(60)
        project.write("new.txt", "not for strangers")
        done = project.inv("push")
        assert 76 == done.code
        assert "another machine answers" in done.err
        assert "nothing was sent to it" in done.err
        assert "is still up" in done.err
        assert [box] == project.boxes()
        work = project.home / "local/boxes" / box / "disk/home/work"
        assert not (work / "new.txt").exists()
        assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code
        assert [] == project.boxes()

    def test_asleep(self, project: Project) -> None:
        """
        A laptop that sleeps through the end of its connection wakes to every byte.
        """
        project.write("onebox.toml", REHEARSE + "drop_after = 4\n")
        project.write(
            "job.sh",
            "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.1; done\n"
            "mkdir -p results; echo x > results/x",
        )
        line = project.start("run")
        project.until("\n5\n")
        (box,) = project.boxes()
        mine = [line.pid, *_ssh(box)]
        for pid in mine:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        for pid in mine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        assert 0 == line.wait(60), project.err
        assert "".join(f"{n}\n" for n in range(60)) == project.out
        assert "x\n" == project.read("results/x")
        assert [] == project.boxes()

    @pytest.mark.parametrize("hours", [-25, 49])
    def test_wrong_clock(self, project: Project, tmp_path: Path, hours: int) -> None:
        """
        A box lives as long as it is to, however wrong the clock is here; that is said.
        """
        wrong = {"PYTHONPATH": str(wrong_clock(tmp_path, hours))}
        done = project.inv("run", "--keep", env=wrong)

        assert 0 == done.code, done.err
        behind = "25:00:00 behind" if hours < 0 else "49:00:00 ahead of"
        assert 1 == done.err.count(f"clock is {behind} that of the boxes"), done.err
        assert "than max_hours allows" not in done.err
        (box,) = project.boxes()
        told = json.loads((project.home / f"local/boxes/{box}/record.json").read_text())
        assert abs(told["deadline"] - told["created"] - 8 * 3600) < 600
        assert "clock is" not in project.inv("provision").err

    def test_sweep_by_a_clock_that_is_ahead(
        self, project: Project, tmp_path: Path
    ) -> None:
        """
        A live box is not removed for an age that only the clock here gives it.
        """
        wrong = {"PYTHONPATH": str(wrong_clock(tmp_path, 49))}
        project.inv("provision")
        (box,) = project.boxes()
        done = project.inv("sweep", "--yes", env=wrong)

        assert 0 == done.code, done.err
        assert [box] == project.boxes()
        assert "running" in project.inv("status").out

    def test_key_refused_for_good(self, project: Project, tmp_path: Path) -> None:
        """
        A follower that is not let in any more says so and ends; it does not wait on.
        """
        project.write("job.sh", "echo up; sleep 600")
        line = project.start("run")
        project.until("up\n")
        (box,) = project.boxes()
        ours = project.home / "config" / "identity"
        kept = ours.read_bytes()
        ours.write_bytes(identity(tmp_path / "another").read_bytes())
        _cut(box)

        assert 74 == line.wait(60)
        assert f"{box} no longer accepts our key" in project.err
        assert "job " in project.err
        assert "is still up" in project.err
        ours.write_bytes(kept)
        assert 0 == project.inv("cancel").code


def wrong_clock(folder: Path, hours: int) -> Path:
    """Return what gives an `inv` line, and nothing else, a clock that is wrong."""
    (folder / "sitecustomize.py").write_text(
        f"import time\nreal = time.time\ntime.time = lambda: real() + {hours * 3600}\n"
    )
    return folder


class TestOutputs:
    def test_no_room_here(self, project: Project) -> None:
        """
        Outputs that do not fit are refused in advance; the box stays, at its price.
        """
        project.write("job.sh", "mkdir -p results; truncate -s 9T results/huge")
        done = project.inv("run")

        assert 73 == done.code
        assert "need 9.4 TB, have " in done.err
        assert "is still up: no charge, powers itself off at" in done.err
        assert "  next: fix it, then inv fetch" in done.err
        assert [] == list((project.root / "results").glob("*"))
        assert 1 == len(project.boxes())

    def test_teardown_without_fetch(self, project: Project) -> None:
        """
        Teardown is refused with the files and sizes that would be lost.
        """
        project.write(
            "job.sh",
            "mkdir -p results; head -c 3000000 /dev/zero > results/big; "
            "head -c 1536 /dev/zero > results/small",
        )
        project.inv("push")
        project.inv("run", "--only")
        done = project.inv("teardown")

        assert 73 == done.code
        assert "results/big (2.9 MB), results/small (1.5 kB)" in done.err
        assert "nothing was removed" in done.err
        assert "is still up: no charge, powers itself off at" in done.err
        assert 1 == len(project.boxes())


class TestBox:
    def test_reboot(self, project: Project) -> None:
        """
        A box that reboots ends its job, on record, and keeps its own deadline.
        """
        project.write(
            "job.sh", "mkdir -p results; echo x > results/x; echo up; sleep 600"
        )
        line = project.start("run", "--keep")
        project.until("up\n")
        (box,) = project.boxes()
        told = project.home / "local/boxes" / box / "disk/onebox/box.json"
        before = json.loads(told.read_text())
        project.inv("ssh", "--", "sudo reboot")

        assert 128 + signal.SIGTERM == line.wait(60)
        assert "the box was powered off" in project.err
        # The client hears of the job's end before the box is down.
        end = time.monotonic() + 60
        while before["boot_id"] == json.loads(told.read_text())["boot_id"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        after = json.loads(told.read_text())
        assert before["deadline"] == after["deadline"]
        assert "x\n" == project.read("results/x")

    def test_crash_and_boot(self, project: Project) -> None:
        """
        A job that a crash of its box has ended is lost: the box has rebooted since.
        """
        project.write(
            "job.sh", "mkdir -p results; echo x > results/x; echo up; sleep 600"
        )
        line = project.start("run")
        project.until("up\n")
        project.cut_power()
        assert 74 == line.wait(60)
        project.inv("provision")

        assert "lost: rebooted" in project.inv("status").out
        done = project.inv("logs")
        assert (74, "up\n") == (done.code, done.out)
        assert "the outcome of job" in done.err
        assert 73 == project.inv("teardown").code
        assert 0 == project.inv("fetch", "teardown").code
        assert "x\n" == project.read("results/x")


class TestSupervisor:
    def test_killed_alone(self, project: Project) -> None:
        """
        A job that outlives its supervisor still runs: nothing is taken from under it.
        """
        project.write("job.sh", "mkdir -p results; echo half > results/x; sleep 600")
        project.inv("run", "--detach")
        (box,) = project.boxes()
        agent = project.home / "local/boxes" / box / "disk/onebox"
        (started,) = agent.glob("jobs/*/started.json")
        os.kill(json.loads(started.read_text())["pid"], signal.SIGKILL)
        for line in (("fetch", "teardown"), ("teardown",), ("push",), ("run",)):
            done = project.inv(*line)
            assert 64 == done.code, done.err
            assert "still runs" in done.err
        assert [box] == project.boxes()

        project.inv("cancel")
        assert 0 == project.inv("fetch", "teardown").code
        assert "half\n" == project.read("results/x")


class TestCtrlC:
    def test_nobody_answers(self, project: Project) -> None:
        """
        Where nobody says which boxes there are, Ctrl-C does not say that none is left.
        """
        project.write("job.sh", "echo up; sleep 600")
        line = project.start("run")
        project.until("up\n")
        (box,) = project.boxes()
        boxes = project.home / "local/boxes"
        boxes.rename(boxes.with_name("away"))
        boxes.touch()
        line.send_signal(signal.SIGINT)

        assert 130 == line.wait(30)
        assert f"({box}) is left" in project.err
        assert "next: inv status" in project.err

    def test_while_it_hangs_up(self, project: Project, tmp_path: Path) -> None:
        """
        TERM in a line's last moments, with the connection still to close, ends it.
        """
        (tmp_path / "sitecustomize.py").write_text(
            "import signal\n"
            "from onebox.context import BoxContext\n"
            "close = BoxContext.close\n"
            "def late(self):\n"
            "    signal.raise_signal(signal.SIGTERM)\n"
            "    close(self)\n"
            "BoxContext.close = late\n"
        )
        project.inv("provision")
        done = project.inv("push", env={"PYTHONPATH": str(tmp_path)})

        assert 128 + signal.SIGTERM == done.code, done.err
        assert 0 == project.inv("teardown").code

    def test_in_a_push(self, project: Project, tmp_path: Path) -> None:
        """
        Ctrl-C in a push stops it and leaves the box; the same command goes on.
        """
        data = os.urandom(1 << 20) * 150
        project.write("big.bin", data)
        project.inv("provision")
        (box,) = project.boxes()
        done = project.inv("push", env=_interrupted(tmp_path, *IN_THE_MIDDLE))

        assert 130 == done.code
        assert "stopped during push" in done.err
        assert "is still up" in done.err
        work = project.home / "local/boxes" / box / "disk/home/work"
        assert not (work / "big.bin").exists()
        assert 0 == project.inv("push").code
        assert data == (work / "big.bin").read_bytes()

    def test_in_a_fetch(self, project: Project, tmp_path: Path) -> None:
        """
        Ctrl-C in a fetch puts nothing in place, keeps what has come, leaves the box.
        """
        project.write("job.sh", "head -c 150M /dev/urandom > results/big")
        project.inv("push")
        project.inv("run", "--only")
        (box,) = project.boxes()
        incoming = project.root / ".onebox/fetched/main/incoming"
        done = project.inv("fetch", env=_interrupted(tmp_path, *IN_THE_MIDDLE))

        assert 130 == done.code
        assert "stopped during fetch" in done.err
        assert not (project.root / "results" / "big").exists()
        assert _weight(incoming) > 1 << 20
        assert 73 == project.inv("teardown").code
        assert 0 == project.inv("fetch").code
        made = project.home / "local/boxes" / box / "disk/home/work/results/big"
        assert (project.root / "results" / "big").read_bytes() == made.read_bytes()

    def test_in_a_teardown(self, project: Project, tmp_path: Path) -> None:
        """
        Ctrl-C while a box is removed waits for that one call, then stops.
        """
        project.inv("provision")
        removing = ("onebox.boxes.delete", "wait_until_gone", "True")
        down = project.inv("teardown", env=_interrupted(tmp_path, *removing))

        assert 130 == down.code
        assert [] == project.boxes()
        assert "no box is left" in down.err
        done = project.inv("teardown")
        assert (0, True) == (done.code, "no box is left" in done.err)


class TestLinks:
    def test_out_of_the_project(self, project: Project) -> None:
        """
        A link that leads out is warned of on push, once, and held back on fetch.
        """
        (project.root / "far").symlink_to("/etc/hostname")
        project.write("job.sh", "mkdir -p results; ln -s /etc/passwd results/sly")
        done = project.inv("run")

        assert 73 == done.code
        assert 1 == done.err.count("far is a link that leads out of the project")
        assert "1 link among the outputs to a place outside of the project" in done.err
        assert "results/sly" in done.err
        assert not (project.root / "results" / "sly").is_symlink()
        assert "is still up" in done.err
        assert 0 == project.inv("fetch", "--unsafe-links").code
        assert "/etc/passwd" == str((project.root / "results" / "sly").readlink())


class TestLog:
    @pytest.mark.parametrize("line", [("fetch",), ("teardown",), ("run",)])
    def test_of_a_job_that_nobody_watched(
        self, project: Project, line: tuple[str, ...]
    ) -> None:
        """
        What a job has printed unwatched comes here before its box, or disk, goes.
        """
        project.write(
            "onebox.toml", '[run]\ncommand = "sh job.sh"\n[fetch]\noutputs = []\n'
        )
        project.write("job.sh", "echo first; sleep 1; echo last")
        project.inv("run", "--detach")
        while "exited" not in project.inv("status").out:
            time.sleep(0.1)
        assert 0 == project.inv(*line).code

        logs = sorted(project.root.glob(".onebox/jobs/*/log"))
        assert "first\nlast\n" == logs[0].read_text()

    def test_longer_than_its_limit(self, project: Project) -> None:
        """
        Of a log beyond max_log both ends come; where the middle was stands one line.
        """
        project.write("onebox.toml", TOML + '[limits]\nmax_log = "1 MB"\n')
        project.write(
            "job.sh", "seq 1000000; while [ ! -e go ]; do sleep 0.1; done; echo end"
        )
        project.inv("run", "--detach")
        (box,) = project.boxes()
        agent = project.home / "local/boxes" / box / "disk/onebox"
        while not list(agent.glob("jobs/*/gap.json")):
            time.sleep(0.05)
        project.inv("ssh", "--", "touch work/go")
        done = project.inv("logs")
        gap = " MB of output were dropped"
        first, last = done.out[:500_000], done.out[-390_000:]

        whole = "".join(f"{n}\n" for n in range(1, 1_000_001)) + "end\n"
        assert 0 == done.code, done.err
        assert whole.startswith(first)
        assert whole.endswith(last)
        assert len(done.out) < 1 << 20
        gone = (len(whole) - len(done.out)) / (1 << 20)
        assert f"[onebox: {gone:.1f}{gap}]" in done.err
        assert done.out == project.inv("logs").out
        assert f"[onebox: {gone:.1f}{gap}" in project.inv("logs").err
        (log,) = project.root.glob(".onebox/jobs/*/log")
        assert len(whole) == log.stat().st_size
        assert log.stat().st_blocks * 512 < 2 << 20


# When so much of a transfer has been counted.
IN_THE_MIDDLE = ("onebox.transfer.progress", "Meter.moved", "here[0]._moved > 16 << 20")


def _interrupted(folder: Path, module: str, name: str, when: str) -> dict[str, str]:
    """Have Ctrl-C pressed as soon as a function is called *when* something is true."""
    (folder / "sitecustomize.py").write_text(
        "import signal\n"
        f"import {module} as there\n"
        f"real = there.{name}\n"
        "def function(*here):\n"
        f"    if {when}:\n"
        f"        there.{name} = real\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    return real(*here)\n"
        f"there.{name} = function\n"
    )
    return {"PYTHONPATH": str(folder)}


def _weight(folder: Path) -> int:
    """Return how many bytes the files in a folder have."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _cut(box: str) -> None:
    """Kill the client's ssh processes that lead to a box."""
    for pid in _ssh(box):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ssh(box: str) -> list[int]:
    """Return the client's ssh processes that lead to a box."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes()
            if words.startswith(b"ssh") and box[:13].encode() in words:
                found.append(int(path.name))
    return found


def _draft(path: Path) -> Path:
    path.write_text("")
    return path


def _age(*paths: Path) -> None:
    long_ago = time.time() - 7200
    for path in paths:
        os.utime(path, (long_ago, long_ago))
