"""Faults from outside, met by real `inv` lines: each is named, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from onebox.remote.keys import ssh_key_file
from onebox.store.box_store import BoxStore
from tests.conftest import TOML, Project
from tests.fakes.short_pauses import short_pauses

REHEARSE = TOML + "[local.rehearse]\n"


class TestState:
    def test_damaged_state_file_is_moved_aside_and_the_box_is_found(
        self, project: Project
    ) -> None:
        """The box is found by its tags."""
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

    def test_unreadable_state_file_is_an_error_with_the_file_and_a_next_command(
        self, project: Project
    ) -> None:
        """The message names the file, and what may be left; the box is not lost."""
        project.inv("provision")
        (state,) = project.home.glob("state/projects/*/main/state.json")
        state.rename(state.with_name("elsewhere"))
        state.mkdir()
        for line in (("status",), ("run", "--keep")):
            done = project.inv(*line)

            assert 78 == done.code, done.err
            assert f"{state}: Is a directory" in done.err
            assert "inv cleanup lists it" in done.err
            assert "Traceback" not in done.err
        state.rmdir()
        state.with_name("elsewhere").rename(state)
        assert 0 == project.inv("teardown").code
        assert [] == project.boxes()

    def test_box_of_a_removed_project_is_listed_and_deleted_elsewhere(
        self, project: Project, tmp_path: Path
    ) -> None:
        """Another folder's cleanup lists it."""
        project.inv("provision")
        (box,) = project.boxes()
        shutil.rmtree(project.root)
        project.root = tmp_path / "elsewhere"
        project.write("tasks.py", "from onebox import *\n")

        assert box in project.inv("cleanup").out

    def test_command_killed_before_the_creation_needs_no_action(
        self, project: Project
    ) -> None:
        """The next command names the killed one, which has created nothing."""
        project.inv("teardown")
        (state,) = project.home.glob("state/projects/*/main")
        book = BoxStore(state)
        with pytest.raises(KeyError), book.intent("create", box="ob-x", kind="box"):
            raise KeyError
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert "interrupted before it created a box: nothing to clean up" in done.err
        assert [] == book.open_intents()

    def test_run_that_is_up_to_date_finishes_an_interrupted_delete(
        self, project: Project
    ) -> None:
        """No stage after it does that, because the job does not run."""
        text = project.read("onebox.toml")
        project.write("onebox.toml", text.replace("[run]", '[run]\nwhen = "changed"'))
        assert 0 == project.inv("run").code
        (state,) = project.home.glob("state/projects/*/main")
        store = BoxStore(state)
        values = {"provider": "local", "place": "this machine", "seen": True}
        with (
            pytest.raises(KeyError),
            store.intent("delete", box="ob-x", kind="box", **values),
        ):
            raise KeyError
        done = project.inv("run")

        assert "up to date" in done.err
        assert [] == store.open_intents()

    def test_drafts_of_killed_commands_are_removed_later(
        self, project: Project
    ) -> None:
        """Scratch directories are removed as well."""
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


class TestConnection:
    def test_other_machine_at_the_address_exits_with_76_and_keeps_the_box(
        self, project: Project
    ) -> None:
        """Nothing is sent to a machine with another host key."""
        project.write("onebox.toml", REHEARSE + "host_key_after = 9\n")
        project.write("job.sh", "echo up; sleep 600")
        line = project.start("run", "--keep")
        project.until("up\n")
        (box,) = project.boxes()
        time.sleep(9)
        kill_ssh(box)

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

    def test_log_is_complete_after_the_laptop_slept(self, project: Project) -> None:
        """A connection that ended during sleep is replaced."""
        project.write("onebox.toml", REHEARSE + "drop_after = 4\n")
        project.write(
            "job.sh",
            "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.1; done\n"
            "mkdir -p results; echo x > results/x",
        )
        line = project.start("run")
        project.until("\n5\n")
        (box,) = project.boxes()
        mine = [line.pid, *ssh_processes(box)]
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
    def test_wrong_local_clock_does_not_change_the_boxs_lifetime(
        self, project: Project, tmp_path: Path, hours: int
    ) -> None:
        """A message says that the clock is wrong."""
        wrong = {"PYTHONPATH": str(wrong_clock_variables(tmp_path, hours))}
        done = project.inv("run", "--keep", env=wrong)

        assert 0 == done.code, done.err
        behind = "25 h 0 min behind" if hours < 0 else "49 h 0 min ahead of"
        assert 1 == done.err.count(f"clock is {behind} that of the boxes"), done.err
        assert "than max_hours allows" not in done.err
        (box,) = project.boxes()
        values = json.loads(
            (project.home / f"local/boxes/{box}/record.json").read_text()
        )
        assert abs(values["deadline"] - values["created"] - 8 * 3600) < 600
        assert "clock is" not in project.inv("provision").err

    def test_cleanup_with_a_fast_local_clock_keeps_a_live_box(
        self, project: Project, tmp_path: Path
    ) -> None:
        """The age of a box is not measured by the local clock alone."""
        wrong = {"PYTHONPATH": str(wrong_clock_variables(tmp_path, 49))}
        project.inv("provision")
        (box,) = project.boxes()
        done = project.inv("cleanup", "--yes", env=wrong)

        assert 0 == done.code, done.err
        assert [box] == project.boxes()
        assert "running" in project.inv("status").out

    def test_follow_ends_if_the_box_refuses_our_key(
        self, project: Project, tmp_path: Path
    ) -> None:
        """
        A follow whose key is refused ends with an error and does not wait
        forever.
        """
        project.write("job.sh", "echo up; sleep 600")
        project.environ.update(short_pauses(project.home / "pauses"))
        line = project.start("run")
        project.until("up\n")
        (box,) = project.boxes()
        ours = project.home / "config" / "identity"
        kept = ours.read_bytes()
        ours.write_bytes(ssh_key_file(tmp_path / "another").read_bytes())
        kill_ssh(box)

        assert 74 == line.wait(60)
        assert f"{box} no longer accepts our key" in project.err
        assert "job " in project.err
        assert "is still up" in project.err
        ours.write_bytes(kept)
        assert 0 == project.inv("cancel").code


def wrong_clock_variables(folder: Path, hours: int) -> Path:
    """Return variables that give an `inv` line, and nothing else, a wrong clock."""
    (folder / "sitecustomize.py").write_text(
        f"import time\nreal = time.time\ntime.time = lambda: real() + {hours * 3600}\n"
    )
    return folder


class TestOutputs:
    def test_outputs_that_do_not_fit_are_refused_before_the_transfer(
        self, project: Project
    ) -> None:
        """The box is kept, and its price is named."""
        project.write("job.sh", "mkdir -p results; truncate -s 9T results/huge")
        done = project.inv("run")

        assert 73 == done.code
        assert "need 9.4 TB, have " in done.err
        assert "is still up: no charge, powers itself off in" in done.err
        assert "  next: fix it, then inv fetch" in done.err
        assert [] == list((project.root / "results").glob("*"))
        assert 1 == len(project.boxes())

    def test_teardown_is_refused_with_the_files_that_would_be_lost(
        self, project: Project
    ) -> None:
        """Files and sizes are listed."""
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
        assert "the box stays" in done.err
        assert "is still up: no charge, powers itself off in" in done.err
        assert 1 == len(project.boxes())


class TestBox:
    def test_reboot_of_the_box_ends_its_job_and_keeps_its_deadline(
        self, project: Project
    ) -> None:
        """The end is in the record."""
        project.write(
            "job.sh", "mkdir -p results; echo x > results/x; echo up; sleep 600"
        )
        line = project.start("run", "--keep")
        project.until("up\n")
        (box,) = project.boxes()
        values = project.home / "local/boxes" / box / "disk/onebox/box.json"
        before = json.loads(values.read_text())
        project.inv("ssh", "--", "sudo reboot")

        assert 128 + signal.SIGTERM == line.wait(60)
        assert "the box was powered off" in project.err
        # The client hears of the job's end before the box is down.
        end = time.monotonic() + 60
        while before["boot_id"] == json.loads(values.read_text())["boot_id"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        after = json.loads(values.read_text())
        assert before["deadline"] == after["deadline"]
        assert "x\n" == project.read("results/x")

    def test_job_of_a_crashed_and_rebooted_box_is_lost(self, project: Project) -> None:
        """The box has booted again since the job started."""
        project.write(
            "job.sh", "mkdir -p results; echo x > results/x; echo up; sleep 600"
        )
        line = project.start("run")
        project.until("up\n")
        project.cut_power()
        assert 74 == line.wait(60)
        project.inv("provision")

        assert "no information (rebooted)" in project.inv("status").out
        done = project.inv("logs")
        assert (74, "up\n") == (done.code, done.out)
        assert "the outcome of job" in done.err
        assert 73 == project.inv("teardown").code
        assert 0 == project.inv("fetch", "teardown").code
        assert "x\n" == project.read("results/x")


class TestSupervisor:
    def test_job_without_its_supervisor_still_counts_as_running(
        self, project: Project
    ) -> None:
        """The box of a job whose supervisor died is not deleted while the job runs."""
        project.write("job.sh", "mkdir -p results; echo half > results/x; sleep 600")
        project.inv("run", "--detach")
        (box,) = project.boxes()
        agent = project.home / "local/boxes" / box / "disk/onebox"
        (started,) = agent.glob("jobs/*/started.json")
        os.kill(json.loads(started.read_text())["pid"], signal.SIGKILL)
        for line in (("fetch", "teardown"), ("teardown",), ("push",), ("run",)):
            done = project.inv(*line)
            assert done.code in (64, 75), done.err
            assert "still runs" in done.err
        assert [box] == project.boxes()

        project.inv("cancel")
        assert 0 == project.inv("fetch", "teardown").code
        assert "half\n" == project.read("results/x")


class TestCtrlC:
    def test_ctrl_c_with_unknown_boxes_does_not_claim_that_none_is_left(
        self, project: Project
    ) -> None:
        """If the boxes are unknown, the message says so."""
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

    def test_sigterm_while_the_connection_closes_ends_the_line(
        self, project: Project, tmp_path: Path
    ) -> None:
        """A signal in the last moments of a line ends it."""
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

    def test_ctrl_c_in_a_push_keeps_the_box_and_the_same_command_continues(
        self, project: Project, tmp_path: Path
    ) -> None:
        """Ctrl-C stops the push; the same command sends only the rest."""
        data = os.urandom(1 << 20) * 150
        project.write("big.bin", data)
        project.inv("provision")
        (box,) = project.boxes()
        done = project.inv("push", env=interrupt_at(tmp_path, *IN_THE_MIDDLE))

        assert 130 == done.code
        assert "stopped during push" in done.err
        assert "is still up" in done.err
        work = project.home / "local/boxes" / box / "disk/home/work"
        assert not (work / "big.bin").exists()
        assert 0 == project.inv("push").code
        assert data == (work / "big.bin").read_bytes()

    def test_ctrl_c_in_a_fetch_places_nothing_and_keeps_received_files(
        self, project: Project, tmp_path: Path
    ) -> None:
        """Ctrl-C in a fetch changes no output here, and the box stays."""
        project.write("job.sh", "head -c 150M /dev/urandom > results/big")
        project.inv("push")
        project.inv("run", "--only")
        (box,) = project.boxes()
        incoming = project.root / ".onebox/fetched/main/incoming"
        done = project.inv("fetch", env=interrupt_at(tmp_path, *IN_THE_MIDDLE))

        assert 130 == done.code
        assert "stopped during fetch" in done.err
        assert not (project.root / "results" / "big").exists()
        assert total_size(incoming) > 1 << 20
        assert 73 == project.inv("teardown").code
        assert 0 == project.inv("fetch").code
        made = project.home / "local/boxes" / box / "disk/home/work/results/big"
        assert (project.root / "results" / "big").read_bytes() == made.read_bytes()

    def test_ctrl_c_in_a_teardown_waits_for_the_delete_call(
        self, project: Project, tmp_path: Path
    ) -> None:
        """Ctrl-C during the delete call ends the line once that call has returned."""
        project.inv("provision")
        removing = ("onebox.boxes.delete", "wait_until_gone", "True")
        down = project.inv("teardown", env=interrupt_at(tmp_path, *removing))

        assert 130 == down.code
        assert [] == project.boxes()
        assert "no box is left" in down.err
        done = project.inv("teardown")
        assert (0, True) == (done.code, "there is no box census/main" in done.err)


class TestLinks:
    def test_link_out_of_the_project_is_warned_of_and_not_fetched(
        self, project: Project
    ) -> None:
        """The push warns once, and the fetch refuses it."""
        (project.root / "far").symlink_to("/etc/hostname")
        project.write("job.sh", "mkdir -p results; ln -s /etc/passwd results/sly")
        done = project.inv("run")

        assert 73 == done.code
        warning = "far is a link to /etc/hostname, outside the project: what it leads "
        assert 1 == done.err.count(f"{warning}to is not pushed\n"), done.err
        assert "1 link among the outputs to a place outside of the project" in done.err
        assert "results/sly" in done.err
        assert not (project.root / "results" / "sly").is_symlink()
        assert "is still up" in done.err
        assert 0 == project.inv("fetch", "--unsafe-links").code
        assert "/etc/passwd" == str((project.root / "results" / "sly").readlink())


class TestLog:
    @pytest.mark.parametrize("line", [("fetch",), ("teardown",), ("run",)])
    def test_log_of_a_detached_job_is_fetched_before_its_box_is_deleted(
        self, project: Project, line: tuple[str, ...]
    ) -> None:
        """It is also fetched from a disk."""
        project.write(
            "onebox.toml", '[run]\ncommand = "sh job.sh"\n[fetch]\noutputs = []\n'
        )
        project.write("job.sh", "echo first; sleep 1; echo last")
        project.inv("run", "--detach")
        while "running" in project.inv("status").out.split("job ")[-1]:
            time.sleep(0.1)
        assert 0 == project.inv(*line).code

        logs = sorted(project.root.glob(".onebox/jobs/*/log"))
        assert "first\nlast\n" == logs[0].read_text()

    def test_log_beyond_max_log_has_both_ends_and_one_line_for_the_gap(
        self, project: Project
    ) -> None:
        """The line is where the middle was."""
        project.write("onebox.toml", TOML + '[limits]\nmax_log = "1 MB"\n')
        project.write(
            "job.sh", "seq 1000000; while [ ! -e go ]; do sleep 0.1; done; echo end"
        )
        project.inv("run", "--detach")
        (box,) = project.boxes()
        agent = project.home / "local/boxes" / box / "disk/onebox"
        while not list(agent.glob("jobs/*/gap.json")):
            time.sleep(0.05)
        project.inv("ssh", "--", "touch go")
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


def interrupt_at(folder: Path, module: str, name: str, when: str) -> dict[str, str]:
    """
    Return variables that press Ctrl-C when a function is called and *when* is true.
    """
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


def total_size(folder: Path) -> int:
    """Return the number of bytes in the files of a folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def kill_ssh(box: str) -> None:
    """Kill the client's ssh processes for a box."""
    for pid in ssh_processes(box):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ssh_processes(box: str) -> list[int]:
    """Return the client's ssh processes for a box."""
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
