"""A job whose box the cloud takes goes on, on the next one, from its checkpoints."""

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

from onebox.providers.local import processes
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


def prepare(
    project: Project, rehearse: str = "", retries: int = 2, job: str = ENDLESS
) -> None:
    """Write a job, and what its boxes do."""
    project.write("onebox.toml", TOML.format(retries=retries, rehearse=rehearse))
    project.write("job.sh", job)


def receipts(project: Project) -> list[dict[str, Any]]:
    """Return the receipts of all jobs, oldest first."""
    paths = sorted((project.root / ".onebox/jobs").glob("*/receipt.json"))
    return [json.loads(path.read_bytes()) for path in paths]


def starts(out: str) -> list[int]:
    """Return the step that each attempt has started from."""
    return [int(number) for number in re.findall(r"^from (\d+)$", out, re.MULTILINE)]


class TestTaken:
    def test_without_notice(self, project: Project) -> None:
        """
        A box that dies is read, removed and replaced; the job goes on from there.
        """
        prepare(project)
        line = project.start("run")
        project.until("step 4\n")
        project.write("job.sh", JOB)
        project.cut_power()

        assert 0 == line.wait(60), project.err
        first, second = starts(project.out)
        assert 0 == first < 4 <= second
        steps = re.findall(r"^step (\d+)$", project.out, re.MULTILINE)
        assert [str(n) for n in range(1, max(10, second) + 1)] == steps
        assert "the provider took the box back" in project.err
        assert "attempt 2 of 3" in project.err
        # While the box may have died with the connection nobody knows.
        assert "runs on" not in project.err
        assert [] == project.boxes()
        big = (project.root / "results/big").read_bytes()
        assert 3_000_000 == len(big)
        for pull in (project.root / ".onebox/checkpoints/main").glob("[0-9]*"):
            assert big == (pull / "files/ckpt/big").read_bytes()
        # The outputs are those of the last attempt, and of no other.
        assert f"{second}\n" == project.read("results/started")
        (paper,) = receipts(project)
        logs = sorted((project.root / ".onebox/jobs").glob("*/log"))
        assert paper["attempts"]["jobs"] == [log.parent.name for log in logs]
        assert paper["job"] == logs[1].parent.name
        assert project.out == "".join(log.read_text() for log in logs)
        assert 2 == paper["attempts"]["boxes"]
        assert paper["attempts"]["seconds"] > paper["seconds"] > 0
        assert not list((project.root / ".onebox/jobs").glob("*/outputs*"))

    def test_with_notice(self, project: Project) -> None:
        """
        What the job saves at the notice is where the next attempt begins.
        """
        prepare(project)
        line = project.start("run")
        project.until("step 4\n")
        project.write("job.sh", JOB)
        give_notice(project)

        assert 0 == line.wait(60), project.err
        first, second = starts(project.out)
        assert 0 == first < 4 <= second
        assert [] == project.boxes()
        assert 2 == len(receipts(project)[-1]["attempts"]["jobs"])
        assert f"{second}\n" == project.read("ckpt/at-term")

    def test_rehearsed(self, project: Project) -> None:
        """
        A job that one box does not live long enough for ends all the same.
        """
        prepare(project, "die_after = 7", 9, JOB.replace("-lt 10", "-lt 32"))
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert len(starts(done.out)) > 1
        assert sorted(starts(done.out)) == starts(done.out)
        assert "32\n" == project.read("ckpt/step")
        assert [] == project.boxes()

    def test_as_often_as_it_may(self, project: Project) -> None:
        """
        After the last retry the code is 75; rescue brings what the last disk holds.
        """
        prepare(project, retries=1)
        line = project.start("run")
        project.until("step 2\n")
        project.cut_power()
        project.until("attempt 2 of 2")
        further = starts(attempt_again(project))[1]
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
        assert starts(again.out)[0] >= further + 2
        assert 3 == len(receipts(project)[-1]["attempts"]["jobs"])
        down = project.inv("teardown")
        assert 0 == down.code, down.err
        assert [] == project.boxes()

    @pytest.mark.parametrize("spot", ["--spot", "--no-spot"])
    def test_run_goes_on_after_the_chain_removed_the_box(
        self, project: Project, spot: str
    ) -> None:
        """
        A run that ends with 75 resumes, also when its box answered to its end.

        The chain's own teardown keeps the attempts; `plan` says what is resumed.
        """
        prepare(project, retries=0)
        line = project.start("run", spot)
        project.until("step 4\n")
        give_notice(project)

        assert 75 == line.wait(60), project.err
        assert "inv run resumes from them" in project.err
        assert [] == project.boxes()
        (job,) = jobs(project)
        step = pulled(project)
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
        assert [step] == starts(again.out)
        assert [] == project.boxes()
        assert "resumes the run" not in project.inv("plan").out

    @pytest.mark.parametrize("words", [("teardown",), ("run", "--", "true")])
    def test_user_ends_an_interrupted_run(
        self, project: Project, words: tuple[str, ...]
    ) -> None:
        """
        After `inv teardown`, or another command, a run starts from its beginning.
        """
        prepare(project, retries=0)
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
        assert [0] == starts(project.inv("run").out)

    def test_nothing_left_of_the_box(self, project: Project) -> None:
        """
        A later line goes on from the last pull, where the disk is gone as well.
        """
        prepare(project, retries=0)
        line = project.start("run")
        while not pulled(project):
            assert line.poll() is None
            time.sleep(0.02)
        project.cut_power()
        assert 75 == line.wait(60), project.err
        assert ".onebox/checkpoints/main/" in project.err
        remove_boxes(project)
        step = pulled(project)
        project.write("job.sh", JOB)
        again = project.inv("run")

        assert 0 == again.code, again.err
        assert [step] == starts(again.out)
        assert "restore" in again.err
        assert [] == project.boxes()

    def test_teardown_forgets(self, project: Project) -> None:
        """
        After a teardown the same command is a new run, from the beginning.
        """
        prepare(project, retries=0)
        line = project.start("run")
        project.until("step 6\n")
        project.cut_power()
        assert 75 == line.wait(60)
        assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code
        project.write("job.sh", JOB.replace("-lt 10", "-lt 3"))
        again = project.inv("run")

        assert 0 == again.code, again.err
        assert [0] == starts(again.out)
        assert 1 == len(receipts(project)[-1]["attempts"]["jobs"])

    def test_no_checkpoints(self, project: Project) -> None:
        """
        Without checkpoints the next attempt starts from the beginning, and says so.

        The box that the user had asked for is replaced by one that stays, too.
        """
        prepare(project, job=SLOW_START)
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

    def test_the_rest_of_the_log(self, project: Project) -> None:
        """
        What the job printed when nobody could hear it is on its disk, then here.
        """
        prepare(
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

    def test_while_another_terminal_pulls(
        self, project: Project, tmp_path: Path
    ) -> None:
        """
        Checkpoints that a pull is in the way of stay on their disk; the job goes on.
        """
        (tmp_path / "sitecustomize.py").write_text(
            "from onebox.stages import salvage\nsalvage.OTHERS_SECONDS = 0.1\n"
        )
        project.environ["PYTHONPATH"] = str(tmp_path)
        prepare(project)
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

    def test_a_disk_that_cannot_be_read(self, project: Project) -> None:
        """
        It stays until the job has ended, and no longer, though the next box stays.
        """
        prepare(project, job=SLOW_START)
        assert 0 == project.inv("provision").code
        (old,) = project.boxes()
        line = project.start("run")
        project.until("from 0")
        project.write("go", "")
        project.cut_power()
        while not processes.marked(old):
            assert line.poll() is None
        project.cut_power()

        assert 0 == line.wait(60), project.err
        assert f"the disk of {old} is kept until the job has ended" in project.err
        assert f"{old}, of an earlier attempt: gone" in project.err
        assert "1\n" == project.read("results/x")
        assert 1 == len(project.boxes())


class TestNotTaken:
    @pytest.mark.parametrize("code", [3, 143])
    def test_failure(self, project: Project, code: int) -> None:
        """
        A job that fails is not run again.
        """
        prepare(project, job=f"echo from 0; exit {code}")
        done = project.inv("run")

        assert (code, [0]) == (done.code, starts(done.out))
        assert [] == project.boxes()

    def test_cancel(self, project: Project) -> None:
        """
        A job that the user cancels is not run again.
        """
        prepare(project)
        line = project.start("run")
        project.until("step 2")
        assert 0 == project.inv("cancel").code

        assert line.wait(60) in (143, 128 + signal.SIGTERM)
        assert [0] == starts(project.out)
        assert [] == project.boxes()

    def test_on_demand(self, project: Project) -> None:
        """
        A box that is no spot capacity is not replaced: how it ended is not known.
        """
        prepare(project)
        line = project.start("run", "--no-spot")
        project.until("step 1\n")
        project.cut_power()

        assert (74, [0]) == (line.wait(60), starts(project.out))
        assert 1 == len(project.boxes())

    def test_detached(self, project: Project) -> None:
        """
        A detached job has nobody to start it again: it is said, and `run` does it.
        """
        prepare(project)
        done = project.inv("run", "--detach")
        assert 0 == done.code
        assert "a detached job is not restarted" in done.err
        (box,) = boxes(project)
        while not (box.home / "work/ckpt/step").exists():
            time.sleep(0.1)
        project.cut_power()
        project.write("job.sh", JOB)
        again = project.inv("run")

        assert 0 == again.code, again.err
        assert starts(again.out)[0] > 0
        assert [] == project.boxes()


class TestInterrupted:
    # What the line has said when it is killed, which tells about where it is.
    @pytest.mark.parametrize("moment", ["took the box back", "restore "])
    def test_killed(self, project: Project, moment: str) -> None:
        """
        Wherever the client is killed between two attempts, `run` goes on.
        """
        killed_after(project, moment)
        again = followed(project)

        assert 0 == again.code, again.err
        assert starts(again.out)[0] >= 4
        assert int(project.read("ckpt/step")) >= 10
        assert [] == project.boxes()
        assert [] == project.processes()

    @pytest.mark.parametrize("moment", ["recover ", "attempt 2 of"])
    def test_killed_then_teardown(self, project: Project, moment: str) -> None:
        """
        Wherever the client is killed between two attempts, a teardown ends it.
        """
        killed_after(project, moment)
        assert 0 == project.inv("status").code
        down = project.inv("teardown", "--discard-outputs", "--yes")

        assert 0 == down.code, down.err
        assert [] == project.boxes()
        assert [] == project.processes()

    def test_stopped_while_provisioning_again(self, project: Project) -> None:
        """
        Ctrl-C while the next box comes up removes it, as it does the first one.
        """
        prepare(project, "boot_delay = 2")
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

    def test_detached_from_the_second(self, project: Project) -> None:
        """
        Ctrl-C while the second attempt runs detaches; the job goes on.
        """
        prepare(project)
        line = project.start("run")
        project.until("step 4\n")
        project.cut_power()
        project.until("attempt 2 of")
        project.until(f"step {starts(attempt_again(project))[1] + 2}\n")
        line.send_signal(signal.SIGINT)

        assert 130 == line.wait(30)
        assert "detached; the job continues" in project.err
        (box,) = boxes(project)
        (box.home / "work/enough").touch()
        assert 0 == project.inv("logs").code
        assert 0 == project.inv("fetch", "teardown").code
        assert int(project.read("ckpt/step")) >= 4
        assert [] == project.boxes()


def jobs(project: Project) -> list[str]:
    """Return the jobs of which there is a log here, oldest first."""
    return sorted(
        log.parent.name for log in (project.root / ".onebox/jobs").glob("*/log")
    )


def attempt_again(project: Project) -> str:
    """Wait for the second attempt's first word; return all that was printed."""
    end = time.monotonic() + 60
    while len(starts(project.out)) < 2:
        assert time.monotonic() < end, project.err
        time.sleep(0.02)
    return project.out


def pulled(project: Project) -> int:
    """Return the step in the newest pull of the job's checkpoints; 0 without any."""
    pulls = (project.root / ".onebox/checkpoints/main").glob("[0-9]*/pull.json")
    for about in sorted(pulls, key=lambda path: int(path.parent.name), reverse=True):
        with suppress(FileNotFoundError):
            return int((about.parent / "files/ckpt/step").read_text())
    return 0


def killed_after(project: Project, moment: str) -> None:
    """Have a job's box taken, and its client killed when it has said this."""
    prepare(project)
    line = project.start("run")
    project.until("step 4\n")
    project.write("job.sh", JOB)
    project.cut_power()
    project.until(moment)
    line.send_signal(signal.SIGKILL)
    line.wait()


def followed(project: Project) -> Done:
    """Type `run` until no job of the killed line is in its way."""
    while True:
        done = project.inv("run")
        if done.code != 64 or "still runs" not in done.err:
            return done
        time.sleep(0.5)


def give_notice(project: Project) -> None:
    """Tell the box, as its cloud would, that it goes in 20 seconds."""
    (box,) = boxes(project)
    write_json(box.agent / "notice", {"at": time.time() + 20})


def remove_boxes(project: Project) -> None:
    """Have the boxes gone with all they hold, as their cloud can."""
    for box in boxes(project):
        shutil.rmtree(box.path)


def boxes(project: Project) -> list[Layout]:
    """Return where the boxes are."""
    return [Layout(project.home / "local" / "boxes" / box) for box in project.boxes()]
