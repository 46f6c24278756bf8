"""`inv history`, `inv status` and `inv top`, as a user sees them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from onebox.agent.jobs import job_ops, load
from tests.conftest import TOML, Project
from tests.system.lines import let_job_continue
from tests.system.test_terminal import exit_code, start_in_terminal

SPIN = "echo up; while [ ! -e go ]; do :; done; rm go"


def plain(text: str | None) -> list[str]:
    """Return the lines of a terminal's output without control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text or "").splitlines()


class TestHistory:
    def test_jobs_of_all_names_and_of_gone_boxes_are_listed(
        self, project: Project
    ) -> None:
        """The newest is first; in a pipe, tabs separate the cells."""
        assert "census: no job has run yet\n" == project.inv("history").out
        project.write("job.sh", "exit 3")
        project.inv("run")
        project.inv("run", "--name=b", "--", "sh", "-c", "echo two\nexit 0")
        assert [] == project.boxes()
        head, *rows = [
            line.split("\t") for line in project.inv("history").out.splitlines()
        ]
        first, second = [dict(zip(head, row)) for row in rows]

        assert ("b", "0", "succeeded") == (first["name"], first["exit"], first["ended"])
        assert ("main", "3", "exit 3") == (
            second["name"],
            second["exit"],
            second["ended"],
        )
        assert "sh -c 'echo two exit 0'" == first["command"]
        assert (project.root / first["log"]).read_text() == "two\n"
        assert 2 == len(project.inv("history", "--limit=1").out.splitlines())
        (times,) = {len(row) for row in rows}
        assert len(head) == times

    @pytest.mark.parametrize("columns", [80, 140])
    def test_table_fits_the_terminal(self, project: Project, columns: int) -> None:
        """Only the command is cut; the sum and the place of the logs follow."""
        project.inv("run", "--", "echo", "x" * 200)
        shutil.rmtree(project.home / "state")
        with start_in_terminal(project, "history", columns=columns) as child:
            assert 0 == exit_code(child)
            lines = plain(child.before)
        (job,) = [path.name for path in project.root.glob(".onebox/jobs/*")]

        assert all(len(line) <= columns for line in lines), lines
        (row,) = [
            line
            for line in lines
            if line.startswith(job if columns == 140 else job[-4:] + "  ")
        ]
        assert "echo xxxx" in row
        assert "…" in row
        # The end of the id is an id, and the command gets its room.
        assert 0 == project.inv("logs", f"--job={job[-4:]}").code
        assert re.search(r"succeeded +\$0\b", row)
        assert ("this machine" in row) == (columns == 140)
        assert "1 job, total cost $0" in lines
        assert "logs: .onebox/jobs/JOB/log, or inv logs --job=JOB" in lines

    def test_running_job_is_listed_with_its_time(self, project: Project) -> None:
        """The command that runs it is known, so nothing about it is unknown."""
        project.write("job.sh", "echo working; while [ ! -e done ]; do sleep 0.1; done")
        line = project.start("run")
        project.until("working\n")
        lines = project.onebox("history").out.splitlines()
        (entry,) = json.loads(project.onebox("history", "--json").out)["entries"]
        line.send_signal(signal.SIGINT)
        line.wait(60)

        row = dict(zip(*(text.split("\t") for text in lines)))
        assert ("running", "0.0000") == (row["ended"], row["cost"])
        assert 0 < float(row["seconds"]) == pytest.approx(entry["seconds"], abs=60)
        # No command waits for the job any more, and its end is not known.
        assert "\trunning\t0.0000\t" in project.onebox("history").out

    def test_pipe_in_place_of_a_receipt_is_no_receipt(self, project: Project) -> None:
        """A cloned project may bring one, which is named; no command waits for it."""
        folder = project.root / ".onebox/jobs/20261112-120000-abcd"
        folder.mkdir(parents=True)
        os.mkfifo(folder / "receipt.json")
        (project.root / ".onebox/fetched/x").mkdir(parents=True)
        os.mkfifo(project.root / ".onebox/fetched/x/folders.jsonl")
        os.mkfifo(project.root / ".onebox/project.json")
        words = [sys.executable, "-m", "onebox"]
        for task in ("history", "plan"):
            done = subprocess.run(
                [*words, task],
                cwd=project.root,
                env=project.environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert 78 == done.returncode, done
            assert b"neither a file nor a folder" in done.stderr

    def test_detached_job_is_listed_before_it_has_a_receipt(
        self, project: Project
    ) -> None:
        """Its end is known after `inv status`, and with its log after `inv logs`."""
        project.inv("run", "--name=b", "--detach", "--", "true")
        head, row = [
            line.split("\t") for line in project.inv("history").out.splitlines()
        ]
        entry = dict(zip(head, row))
        assert ("b", "true", "running", "0.0000") == (
            entry["name"],
            entry["command"],
            entry["ended"],
            entry["cost"],
        )
        assert "" == entry["log"]
        until_not_running(project, "b")
        assert "\t0\tsucceeded, not fetched\t0.0000\t" in project.inv("history").out
        project.inv("logs", "--name=b")
        assert "\tsucceeded\t" in project.inv("history").out

    @pytest.mark.parametrize("limit", ["-1", "many"])
    def test_wrong_limit_is_one_line(self, project: Project, limit: str) -> None:
        """The right command is named."""
        done = project.inv("history", f"--limit={limit}")

        assert 64 == done.code
        assert "--limit: expected a number of jobs" in done.err
        assert "next: inv history --limit=20" in done.err


# What the provider says of a box in its first moments.
STARTING = """\
from onebox.providers.local import instances
instances._state = lambda reported: "starting"
"""


class TestStatus:
    @pytest.mark.parametrize("sitecustomize", ["", STARTING], ids=["up", "starting"])
    def test_box_that_boots_is_no_box_that_fails(
        self, project: Project, tmp_path: Path, sitecustomize: str
    ) -> None:
        """It does not answer yet, or does not run yet, which is no error."""
        project.write("onebox.toml", TOML + "[local.rehearse]\nboot_delay = 60\n")
        line = project.start("provision")
        end = time.monotonic() + 60
        while not project.boxes() and time.monotonic() < end:
            time.sleep(0.05)
        (tmp_path / "sitecustomize.py").write_text(sitecustomize)
        project.environ["PYTHONPATH"] = str(tmp_path)
        done = project.onebox("status")
        line.kill()
        line.wait()

        assert 0 == done.code, done
        assert "\n    job still booting\n" in done.out

    def test_several_boxes_are_a_table(self, project: Project) -> None:
        """Each has state, price, job, deadline, command, and if outputs are here."""
        project.write("job.sh", "mkdir -p results; echo 1 > results/x; exit 7")
        assert 7 == project.inv("run", "--keep").code
        project.inv("provision", "--name=b")
        project.inv("run", "--name=b", "--detach", "--", "true")
        until_not_running(project, "b")
        project.inv("provision", "--name=c")
        with start_in_terminal(project, "status", columns=120) as child:
            assert 0 == exit_code(child)
            head, b, c, main = [line for line in plain(child.before) if line.strip()]

        assert head.split() == [
            "name",
            "state",
            "type",
            "price",
            "job",
            "powers",
            "off",
            "outputs",
            "command",
        ]
        assert re.search(
            r"^b +running .*no charge +succeeded +in 8 h .*not fetched +true", b
        )
        assert re.search(r"^c +running .*none yet +in 8 h \(\d\d:\d\d\) +-", c)
        assert re.search(r"^main +running .*failed, exit 7 +in 8 h .* fetched", main)
        # A pipe gets the lines that one box has, for each.
        pipe = project.inv("status").out.splitlines()
        titles = [line.split()[0] for line in pipe if not line.startswith(" ")]
        assert ["census/b", "census/c", "census/main"] == titles
        assert all("\t" not in line for line in pipe)

    def test_job_of_a_box_that_is_off_has_no_information(
        self, project: Project
    ) -> None:
        """The id of the job is known from the record."""
        project.inv("run", "--keep")
        project.inv("ssh", "--", "sudo", "-n", "poweroff")
        end = time.monotonic() + 60
        while "stopped" not in (shown := project.inv("status").out):
            assert time.monotonic() < end, shown
        (job,) = [path.name for path in project.root.glob(".onebox/jobs/*")]

        assert f"    job {job} no information (box is off)" in shown

    def test_details_of_one_box_name_the_outcome_of_its_job(
        self, project: Project
    ) -> None:
        """A cancelled job is not a failed one."""
        project.write("job.sh", "echo up; sleep 600")
        project.inv("run", "--detach")
        assert re.search(r"    job \S+ running [\d.]+ s\n", project.inv("status").out)
        project.inv("cancel")

        assert re.search(
            r"    job \S+ cancelled   outputs not f", project.inv("status").out
        )


class TestTop:
    def test_pipe_gets_one_snapshot(self, project: Project) -> None:
        """The job's own load is in the second row."""
        project.write("job.sh", SPIN)
        project.inv("run", "--detach")
        done = project.inv("top")
        head, box, job = [line.split("\t") for line in done.out.splitlines()]

        assert ["", "cpu", "memory", "disk"] == head
        assert ["box", "job"] == [box[0], job[0]]
        assert re.fullmatch(r"[\d.]+ of \d+ cores", job[1])
        assert re.fullmatch(r"[\d.,]+ ([kMG]?B )?of [\d.,]+ [MGT]B", job[2])
        let_job_continue(project)

    @pytest.mark.parametrize("columns", [80, 140])
    def test_terminal_is_refreshed_until_ctrl_c(
        self, project: Project, columns: int
    ) -> None:
        """Ctrl-C is the usual end: the exit code is 0, and the job runs on."""
        project.write("job.sh", SPIN)
        project.inv("run", "--detach")
        with start_in_terminal(project, "top", columns=columns) as child:
            for _ in range(2):
                child.expect(r"job \S+ running \d")
                child.expect("cpu")
                child.expect(r"of \d+ cores")
            child.sendintr()
            child.expect(pexpect.EOF)
            lines = plain(child.before)
            child.close()
            assert 0 == child.exitstatus
        assert all(len(line) <= columns for line in lines), lines
        assert not [line for line in lines if "detached" in line]
        assert " running " in project.inv("status").out
        let_job_continue(project)

    def test_once_prints_once_on_a_terminal(self, project: Project) -> None:
        """Without a job, only the box is shown."""
        project.inv("provision")
        with start_in_terminal(project, "top", "--once") as child:
            child.expect_exact("no job is running")
            assert 0 == exit_code(child)

    def test_without_a_box_the_error_is_the_usual_one(self, project: Project) -> None:
        """It names the command that makes one."""
        done = project.inv("top")

        assert 64 == done.code
        assert "there is no box census/main" in done.err

    def test_older_agent_without_the_request_is_named(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message names another command that works."""
        from onebox.context import BoxContext
        from onebox.errors import UsageError
        from onebox.invocation import Invocation
        from onebox.stages import top

        project.inv("provision")
        line = Invocation("inv", ())
        context = BoxContext.open(str(project.root), project.environ, {}, line)
        box = context.find_box()
        assert box is not None
        channel = context.ssh(box).channel()
        ask = channel.request
        monkeypatch.setattr(channel, "request", lambda op, **more: ask("older", **more))
        with pytest.raises(UsageError, match="has an older agent"):
            top.measure(context, box)
        context.close()
        assert set(load.OPS).isdisjoint(job_ops.OPS)


class TestLiveLine:
    def test_live_line_shows_the_load_of_the_job(self, project: Project) -> None:
        """The memory of the job is far below that of the machine, as in the receipt."""
        project.write("job.sh", SPIN)
        with start_in_terminal(project, "run", columns=140) as child:
            child.expect(r"([\d.]+) of \d+ cores    ([\d.]+ [kM]B) of [\d.]+ GB")
            let_job_continue(project)
            child.expect_exact("peak memory")
            assert 0 == exit_code(child)
        (path,) = project.root.glob(".onebox/jobs/*/receipt.json")
        assert json.loads(path.read_text())["peak"]["memory"] < 1 << 30


def until_not_running(project: Project, name: str) -> None:
    """Wait until the job on the box of this name has ended."""
    while " running " in project.inv("status", f"--name={name}").out.split("job ")[-1]:
        time.sleep(0.1)
