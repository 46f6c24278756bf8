"""A preempted job continues on the next box from its checkpoints."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from onebox.providers.local.layout import Layout, write_json
from tests.conftest import Done, Project

TOML = """\
spot = true
[run]
command = "sh job.sh"
cancel_grace = "3 s"
[fetch]
outputs = ["results/"]
checkpoints = ["ckpt/"]
every = "1 s"
[limits]
retries = {retries}
[local.rehearse]
{rehearse}
"""
# Counts to ten, four steps a second, from where the last attempt was.
JOB = """\
mkdir -p ckpt results
n=$(cat ckpt/step 2>/dev/null || echo 0)
echo "from $n"
[ -e ckpt/big ] || head -c 3000000 /dev/urandom > ckpt/big
echo "$n" >> results/started
trap 'echo "$n" > ckpt/at-term; exit 143' TERM
while [ $n -lt 10 ] && [ ! -e enough ]; do
  sleep 0.25
  n=$((n+1))
  echo "$n" > ckpt/.new && mv ckpt/.new ckpt/step
  echo "step $n"
done
cp ckpt/big results/
"""
# That of an attempt that must not be over before its box is taken.
ENDLESS = JOB.replace("-lt 10", "-lt 9999")
SLOW_START = "echo from 0; [ -e go ] || sleep 600; mkdir results; echo 1 >results/x"


def write_job(
    project: Project, rehearse: str = "", retries: int = 2, job: str = ENDLESS
) -> None:
    """Write a job, and the rehearsed faults of its boxes."""
    project.write("onebox.toml", TOML.format(retries=retries, rehearse=rehearse))
    project.write("job.sh", job)


def receipts(project: Project) -> list[dict[str, Any]]:
    """Return the receipts of all jobs, oldest first."""
    paths = sorted((project.root / ".onebox/jobs").glob("*/receipt.json"))
    return [json.loads(path.read_bytes()) for path in paths]


def first_steps(out: str) -> list[int]:
    """Return the step at which each attempt has started."""
    return [int(number) for number in re.findall(r"^from (\d+)$", out, re.MULTILINE)]


class TestPreempted:
    def test_job_that_a_preemption_ends_has_no_green_mark(
        self, project: Project
    ) -> None:
        """Its exit code may be 0, but the command line fails with 75."""
        job = "trap 'exit 0' TERM; echo working; while :; do sleep 0.1; done"
        write_job(project, "notice_after = 1\nnotice_seconds = 4", retries=0, job=job)
        done = project.onebox("run")

        assert 75 == done.code, done
        (line,) = [text for text in done.err.splitlines() if "exit 0, the pro" in text]
        assert line.startswith("run        ! "), line

    def test_box_that_dies_is_replaced_and_the_job_continues(
        self, project: Project
    ) -> None:
        """
        The disk is read, the box is deleted, and the job continues from its
        last step.
        """
        write_job(project)
        line = project.start("run")
        project.until("step 4\n")
        project.write("job.sh", JOB)
        project.cut_power()

        assert 0 == line.wait(60), project.err
        first, second = first_steps(project.out)
        assert 0 == first < 4 <= second
        before, after = (
            re.findall(r"^step (\d+)$", out, re.MULTILINE)
            for out in project.out.split(f"from {second}\n", 1)
        )
        assert [str(n) for n in range(second + 1, 11)] == after
        # The job may die between its checkpoint of a step and the line about it.
        assert [str(n) for n in range(1, len(before) + 1)] == before
        assert 4 <= len(before) <= second
        assert "the provider took the box back" in project.err
        assert "attempt 2 of 3" in project.err
        # Right after the connection broke, the state of the box is unknown.
        assert "runs on" not in project.err
        assert [] == project.boxes()
        big = (project.root / "results/big").read_bytes()
        assert 3_000_000 == len(big)
        for pull in (project.root / ".onebox/checkpoints/main").glob("[0-9]*"):
            assert big == (pull / "files/ckpt/big").read_bytes()
        # The outputs are those of the last attempt, and of no other.
        assert f"{second}\n" == project.read("results/started")
        (receipt,) = receipts(project)
        logs = sorted((project.root / ".onebox/jobs").glob("*/log"))
        assert receipt["attempts"]["jobs"] == [log.parent.name for log in logs]
        assert receipt["job"] == logs[1].parent.name
        assert project.out == "".join(log.read_text() for log in logs)
        assert 2 == receipt["attempts"]["boxes"]
        assert receipt["attempts"]["seconds"] > receipt["seconds"] > 0
        assert not list((project.root / ".onebox/jobs").glob("*/outputs*"))

    def test_next_attempt_starts_from_what_was_saved_at_the_notice(
        self, project: Project
    ) -> None:
        """What the job saves after the notice is not lost."""
        write_job(project)
        line = project.start("run")
        project.until("step 4\n")
        project.write("job.sh", JOB)
        give_notice(project)

        assert 0 == line.wait(60), project.err
        first, second = first_steps(project.out)
        assert 0 == first < 4 <= second
        assert [] == project.boxes()
        assert 2 == len(receipts(project)[-1]["attempts"]["jobs"])
        assert f"{second}\n" == project.read("ckpt/at-term")

    def test_job_that_needs_several_boxes_ends(self, project: Project) -> None:
        """A job that takes longer than one box lives is completed."""
        write_job(project, "die_after = 7", 9, JOB.replace("-lt 10", "-lt 32"))
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert len(first_steps(done.out)) > 1
        assert sorted(first_steps(done.out)) == first_steps(done.out)
        assert "32\n" == project.read("ckpt/step")
        assert [] == project.boxes()

    def test_after_the_last_retry_the_exit_code_is_75(self, project: Project) -> None:
        """Then `rescue` fetches the files of the last disk."""
        write_job(project, retries=1)
        line = project.start("run")
        project.until("step 2\n")
        project.cut_power()
        project.until("attempt 2 of 2")
        further = first_steps(wait_for_second_attempt(project))[1]
        project.until(f"step {further + 2}\n")
        project.cut_power()

        assert 75 == line.wait(60), project.err
        assert "retries = 1" in project.err
        assert "inv fetch --rescue" in project.err
        assert 1 == len(project.boxes())
        rescue = project.inv("fetch", "--rescue")
        assert 0 == rescue.code, rescue.err
        assert "did not end" in rescue.err
        assert f"{further}\n" == project.read("results/started")
        assert "stopped" in project.inv("status").out
        # The same command goes on where that disk is.
        project.write("job.sh", JOB)
        again = project.inv("run")
        assert 0 == again.code, again.err
        assert first_steps(again.out)[0] >= further + 2
        assert 3 == len(receipts(project)[-1]["attempts"]["jobs"])
        down = project.inv("teardown")
        assert 0 == down.code, down.err
        assert [] == project.boxes()

    @pytest.mark.parametrize("spot", ["--spot", "--no-spot"])
    def test_run_after_exit_75_resumes_although_the_box_was_deleted(
        self, project: Project, spot: str
    ) -> None:
        """The run also resumes if its box answered until its end."""
        write_job(project, retries=0)
        line = project.start("run", spot)
        project.until("step 4\n")
        give_notice(project)

        assert 75 == line.wait(60), project.err
        assert "inv run resumes from them" in project.err
        assert [] == project.boxes()
        (job,) = jobs(project)
        step = pulled_step(project)
        assert step >= 4
        for plan in (("plan",), ("--dry", "run")):
            planned = project.inv(*plan)
            assert f"resumes the run of job {job} from checkpoints of" in (planned.out)
        other = project.inv("--dry", "run", "--", "true")
        assert "resumes the run" not in other.out
        project.write("job.sh", JOB)
        again = project.inv("run", spot)

        assert 0 == again.code, again.err
        assert f"resuming the run of job {job}" in again.err
        assert [step] == first_steps(again.out)
        assert [] == project.boxes()
        assert "resumes the run" not in project.inv("plan").out

    @pytest.mark.parametrize("words", [("teardown",), ("run", "--", "true")])
    def test_teardown_or_another_command_ends_an_interrupted_run(
        self, project: Project, words: tuple[str, ...]
    ) -> None:
        """The next run starts from the beginning."""
        write_job(project, retries=0)
        line = project.start("run")
        project.until("step 4\n")
        give_notice(project)
        assert 75 == line.wait(60), project.err
        done = project.inv(*words)

        assert 0 == done.code, done.err
        if words == ("teardown",):
            assert "is abandoned: inv run starts from the beginning" in done.err
        assert "resumes the run" not in project.inv("plan").out
        project.write("job.sh", JOB.replace("-lt 10", "-lt 3"))
        assert [0] == first_steps(project.inv("run").out)

    def test_run_continues_from_the_last_pull_without_a_disk(
        self, project: Project
    ) -> None:
        """A later command continues although the disk is gone, too."""
        write_job(project, retries=0)
        line = project.start("run")
        while not pulled_step(project):
            assert line.poll() is None
            time.sleep(0.02)
        project.cut_power()
        assert 75 == line.wait(60), project.err
        assert ".onebox/checkpoints/main/" in project.err
        remove_boxes(project)
        step = pulled_step(project)
        project.write("job.sh", JOB)
        again = project.inv("run")

        assert 0 == again.code, again.err
        assert [step] == first_steps(again.out)
        assert "restore" in again.err
        assert [] == project.boxes()

    def test_run_after_a_teardown_starts_from_the_beginning(
        self, project: Project
    ) -> None:
        """The same command is a new run after a teardown."""
        write_job(project, retries=0)
        line = project.start("run")
        project.until("step 6\n")
        project.cut_power()
        assert 75 == line.wait(60)
        assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code
        project.write("job.sh", JOB.replace("-lt 10", "-lt 3"))
        again = project.inv("run")

        assert 0 == again.code, again.err
        assert [0] == first_steps(again.out)
        assert 1 == len(receipts(project)[-1]["attempts"]["jobs"])

    def test_attempt_without_checkpoints_starts_from_the_beginning(
        self, project: Project
    ) -> None:
        """
        Without checkpoints the next attempt repeats the whole job, and a
        message says so.
        """
        write_job(project, job=SLOW_START)
        assert 0 == project.inv("provision").code
        (old,) = project.boxes()
        line = project.start("run")
        project.until("from 0")
        project.write("go", "")
        project.cut_power()

        assert 0 == line.wait(60), project.err
        assert "no checkpoints were pulled: the job starts from the beginning" in (
            project.err
        )
        assert "1\n" == project.read("results/x")
        assert [old] != project.boxes()
        assert 1 == len(project.boxes()), project.err

    def test_log_written_without_a_client_is_fetched_from_the_disk(
        self, project: Project
    ) -> None:
        """Output that no client received is on the disk, and is fetched."""
        write_job(
            project,
            job="echo from 0; [ ! -e ckpt/x ] || exit 0; mkdir -p ckpt; sleep 1;"
            # More than pipes and sockets on the way would hold.
            "head -c 60000000 /dev/zero | tr '\\0' x; echo unheard;"
            "echo 1 >ckpt/x; sleep 600",
        )
        line = project.start("run")
        project.until("from 0")
        line.send_signal(signal.SIGSTOP)
        (box,) = project.boxes()
        written = project.home / "local/boxes" / box / "disk/home/work/ckpt/x"
        while not written.exists():
            time.sleep(0.05)
        project.cut_power()
        line.send_signal(signal.SIGCONT)

        assert 0 == line.wait(60), project.err
        first, _ = sorted((project.root / ".onebox/jobs").glob("*/log"))
        assert "from 0\n" + 60_000_000 * "x" + "unheard\n" == first.read_text()

    def test_job_continues_although_another_pull_blocks_its_checkpoints(
        self, project: Project, tmp_path: Path
    ) -> None:
        """Checkpoints that another pull blocks stay on their disk."""
        (tmp_path / "sitecustomize.py").write_text(
            "from onebox.stages import fetch_preempted as f\nf.OTHERS_SECONDS = 0.1\n"
        )
        project.environ["PYTHONPATH"] = str(tmp_path)
        write_job(project)
        line = project.start("run")
        project.until("step 4\n")
        project.write("job.sh", JOB)
        (box,) = project.boxes()
        pulls = project.root / ".onebox/checkpoints/main"
        pulls.mkdir(parents=True, exist_ok=True)
        with (pulls / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            project.cut_power()
            project.until("is kept until the job has ended")

        assert 0 == line.wait(60), project.err
        assert f"{box}: checkpoints are being pulled already" in project.err
        assert int(project.read("ckpt/step")) >= 10
        assert [] == project.boxes()

    def test_unreadable_disk_is_deleted_with_the_end_of_the_job(
        self, project: Project
    ) -> None:
        """
        The disk stays until the job has ended, and not longer, although the
        next box stays.
        """
        write_job(project, job=SLOW_START)
        assert 0 == project.inv("provision").code
        (old,) = project.boxes()
        line = project.start("run")
        project.until("from 0")
        project.write("go", "")
        # The box is started to read its disk, which fails without this file.
        Layout(project.home / "local/boxes" / old).boot.unlink()
        project.cut_power()

        assert 0 == line.wait(60), project.err
        kept = f"the disk of {old} is kept until the job has ended"
        assert kept in project.err
        assert f"{old}, of an earlier attempt: gone" in project.err
        assert "1\n" == project.read("results/x")
        assert 1 == len(project.boxes())


class TestNotPreempted:
    @pytest.mark.parametrize("code", [3, 143])
    def test_failed_job_does_not_run_again(self, project: Project, code: int) -> None:
        """A job that fails by itself is not retried, and inv exits with its code."""
        write_job(project, job=f"echo from 0; exit {code}")
        done = project.inv("run")

        assert (code, [0]) == (done.code, first_steps(done.out))
        assert [] == project.boxes()

    def test_cancelled_job_does_not_run_again(self, project: Project) -> None:
        """A job that the user cancels is not retried."""
        write_job(project)
        line = project.start("run")
        project.until("step 2")
        assert 0 == project.inv("cancel").code

        assert line.wait(60) in (143, 128 + signal.SIGTERM)
        assert [0] == first_steps(project.out)
        assert [] == project.boxes()

    def test_on_demand_box_is_not_replaced(self, project: Project) -> None:
        """A lost on-demand box is not replaced; the end of its job is unknown."""
        write_job(project)
        line = project.start("run", "--no-spot")
        project.until("step 1\n")
        project.cut_power()

        assert (74, [0]) == (line.wait(60), first_steps(project.out))
        assert 1 == len(project.boxes())

    def test_detached_job_is_restarted_only_by_the_next_run(
        self, project: Project
    ) -> None:
        """No client was connected, so a message says that `run` restarts it."""
        write_job(project)
        done = project.inv("run", "--detach")
        assert 0 == done.code
        assert "a detached job is not restarted" in done.err
        (box,) = box_folders(project)
        while not (box.home / "work/ckpt/step").exists():
            time.sleep(0.1)
        project.cut_power()
        project.write("job.sh", JOB)
        again = project.inv("run")

        assert 0 == again.code, again.err
        assert first_steps(again.out)[0] > 0
        assert [] == project.boxes()


class TestInterrupted:
    # The output after which the line is killed.
    @pytest.mark.parametrize("moment", ["took the box back", "restore "])
    def test_run_continues_after_a_kill_between_two_attempts(
        self, project: Project, moment: str
    ) -> None:
        """Wherever the client is killed, `run` continues."""
        kill_after(project, moment)
        again = run_until_done(project)

        assert 0 == again.code, again.err
        assert first_steps(again.out)[0] >= 4
        assert int(project.read("ckpt/step")) >= 10
        assert [] == project.boxes()
        assert [] == project.processes()

    @pytest.mark.parametrize("moment", ["recover ", "attempt 2 of"])
    def test_teardown_works_after_a_kill_between_two_attempts(
        self, project: Project, moment: str
    ) -> None:
        """Wherever the client is killed, a teardown deletes everything."""
        kill_after(project, moment)
        assert 0 == project.inv("status").code
        down = project.inv("teardown", "--discard-outputs", "--yes")

        assert 0 == down.code, down.err
        assert [] == project.boxes()
        assert [] == project.processes()

    def test_ctrl_c_while_the_next_box_boots_deletes_it(self, project: Project) -> None:
        """Ctrl-C deletes the next box of a run, as it deletes the first one."""
        write_job(project, "boot_delay = 2")
        line = project.start("run")
        project.until("step 4\n")
        project.cut_power()
        project.until("recover ")
        while len(project.boxes()) != 1:
            assert line.poll() is None
        line.send_signal(signal.SIGINT)

        assert 130 == line.wait(30)
        assert "no box is left" in project.err
        assert [] == project.boxes()

    def test_ctrl_c_in_the_second_attempt_detaches(self, project: Project) -> None:
        """The job continues to run."""
        write_job(project)
        line = project.start("run")
        project.until("step 4\n")
        project.cut_power()
        project.until("attempt 2 of")
        project.until(f"step {first_steps(wait_for_second_attempt(project))[1] + 2}\n")
        line.send_signal(signal.SIGINT)

        assert 130 == line.wait(30)
        assert "detached; the job continues" in project.err
        (box,) = box_folders(project)
        (box.home / "work/enough").touch()
        assert 0 == project.inv("logs").code
        assert 0 == project.inv("fetch", "teardown").code
        assert int(project.read("ckpt/step")) >= 4
        assert [] == project.boxes()


def jobs(project: Project) -> list[str]:
    """Return the jobs with a local log, oldest first."""
    return sorted(
        log.parent.name for log in (project.root / ".onebox/jobs").glob("*/log")
    )


def wait_for_second_attempt(project: Project) -> str:
    """Wait for the first output of the second attempt; return all output."""
    end = time.monotonic() + 60
    while len(first_steps(project.out)) < 2:
        assert time.monotonic() < end, project.err
        time.sleep(0.02)
    return project.out


def pulled_step(project: Project) -> int:
    """Return the step in the newest pull of the job's checkpoints; 0 without any."""
    pulls = (project.root / ".onebox/checkpoints/main").glob("[0-9]*/pull.json")
    for about in sorted(pulls, key=lambda path: int(path.parent.name), reverse=True):
        with suppress(FileNotFoundError):
            return int((about.parent / "files/ckpt/step").read_text())
    return 0


def kill_after(project: Project, moment: str) -> None:
    """Preempt a job's box, and kill its client when it has printed this text."""
    write_job(project)
    line = project.start("run")
    project.until("step 4\n")
    project.write("job.sh", JOB)
    project.cut_power()
    project.until(moment)
    line.send_signal(signal.SIGKILL)
    line.wait()


def run_until_done(project: Project) -> Done:
    """Type `run` until the job of the killed command is no longer in its way."""
    while True:
        done = project.inv("run")
        if done.code != 75 or "is busy: job" not in done.err:
            return done
        time.sleep(0.5)


def give_notice(project: Project) -> None:
    """Announce to the box, as its cloud would, a preemption in 20 seconds."""
    (box,) = box_folders(project)
    write_json(box.agent / "notice", {"at": time.time() + 20})


def remove_boxes(project: Project) -> None:
    """Remove the boxes with all their files, as their cloud can."""
    for box in box_folders(project):
        shutil.rmtree(box.path)


def box_folders(project: Project) -> list[Layout]:
    """Return the folder of the boxes."""
    return [Layout(project.home / "local" / "boxes" / box) for box in project.boxes()]
