"""`inv` lines, for real, on the local box: what a user types and what comes back."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import JOB, Project
from tests.stages.test_preemption_recovery import give_notice


def stages(err: str) -> list[str]:
    """Return the names of the stages that finished a line, in order."""
    names = ("image", "provision", "push", "run", "fetch", "teardown")
    return [line.split()[0] for line in err.splitlines() if line.startswith(names)]


class TestWholeChain:
    def test_leaves_results_and_nothing_else(self, project: Project) -> None:
        """
        `inv run` goes through every stage and leaves outputs, but no box.
        """
        done = project.inv("run")

        assert (0, "working\n") == (done.code, done.out)
        assert [
            "image",
            "provision",
            "push",
            "run",
            "fetch",
            "teardown",
        ] == stages(done.err)
        assert "42\n" == project.read("results/answer.txt")
        assert "\x1b" not in done.err
        assert [] == project.boxes()
        assert [] == project.processes()

    def test_without_any_file(self, project: Project) -> None:
        """
        With no onebox.toml at all, `inv run -- command` works on local.
        """
        (project.root / "onebox.toml").unlink()
        done = project.inv("run", "--", "sh", "job.sh")

        assert (0, "working\n") == (done.code, done.out)

    def test_nothing_to_run(self, project: Project) -> None:
        """
        Without a command there is one clear line, before any box is made.
        """
        (project.root / "onebox.toml").unlink()
        done = project.inv("run")

        assert 78 == done.code
        assert "onebox: there is nothing to run" in done.err
        assert "provision" not in stages(done.err)
        assert [] == project.boxes()

    @pytest.mark.parametrize("code", [1, 3, 64, 73, 126, 255])
    def test_own_exit_code(self, project: Project, code: int) -> None:
        """
        The job's own exit code is inv's; its outputs come back first.
        """
        project.write("job.sh", f"mkdir -p results; echo x > results/x; exit {code}")
        done = project.inv("run")

        assert code == done.code
        assert f"exit {code}" in done.err
        assert "onebox:" not in done.err
        assert "x\n" == project.read("results/x")
        assert [] == project.boxes()

    def test_killed_job(self, project: Project) -> None:
        """
        A job killed by a signal ends with 128 + its number, named.
        """
        project.write("job.sh", "kill -SEGV $$")
        done = project.inv("run")

        assert 128 + signal.SIGSEGV == done.code
        assert "SIGSEGV" in done.err

    def test_words_arrive_intact(self, project: Project) -> None:
        """
        Every word behind `--` reaches the command as it was typed.
        """
        words = ["a  b", "", "it's", 'say "hi"', "$HOME", "*", "new\nline", "ü"]
        show = "import json,sys; print(json.dumps(sys.argv[1:]))"
        done = project.inv("run", "--", "python3", "-c", show, *words)

        assert words == json.loads(done.out)

    def test_job_output_is_untouched(self, project: Project) -> None:
        """
        stdout is the job's bytes and nothing else.
        """
        project.write("job.sh", r"printf 'a\000\377\033[1mb\r\nno newline'; echo e >&2")
        with subprocess.Popen(
            project.argv("run"),
            cwd=project.root,
            env=project.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as line:
            assert line.stdout is not None
            assert b"a\0\xff\x1b[1mb\r\nno newlinee\n" == line.stdout.read()

    def test_receipt(self, project: Project) -> None:
        """
        The receipt stands beside the outputs and under .onebox.
        """
        project.inv("run")
        beside = json.loads(project.read("results/onebox-receipt.json"))
        (kept,) = project.root.glob(".onebox/jobs/*/receipt.json")

        assert beside == json.loads(kept.read_text())
        assert (0, "exit", "sh job.sh") == (
            beside["exit"],
            beside["cause"],
            beside["command"],
        )
        assert "working\n" == (kept.parent / "log").read_text()

    def test_secrets_reach_only_the_job(self, project: Project) -> None:
        """
        A secret's value is in the job's environment and in no file of ours.
        """
        project.write(
            "onebox.toml",
            '[run]\ncommand = "sh job.sh"\nsecrets = ["TOKEN"]\n',
        )
        project.write("job.sh", "printf %s $TOKEN | sha256sum | cut -c-8")
        done = project.inv("run", "--keep", env={"TOKEN": "canary-8271"})

        digest = hashlib.sha256(b"canary-8271").hexdigest()[:8]
        assert f"{digest}\n" == done.out
        everywhere = [project.home, project.root]
        found = [
            path
            for top in everywhere
            for path in top.rglob("*")
            if path.is_file() and b"canary-8271" in path.read_bytes()
        ]
        assert [] == found

    def test_missing_secret(self, project: Project) -> None:
        """
        A secret that is not in the environment is named before a box is made.
        """
        project.write(
            "onebox.toml", '[run]\ncommand = "sh job.sh"\nsecrets = ["TOKEN"]\n'
        )
        done = project.inv("run")

        assert 64 == done.code
        assert "TOKEN is not in the environment" in done.err
        assert "provision" not in stages(done.err)


class TestOneBoxPerLine:
    def test_each_stage_once(self, project: Project) -> None:
        """
        `inv provision push run --vm=large` is one box, and each stage once.
        """
        done = project.inv("provision", "push", "run", "--vm=large")

        assert 0 == done.code
        assert ["image", "provision", "push", "run", "fetch"] == stages(done.err)
        assert "large" in done.err.splitlines()[0]
        # Asked for by name, so it stays.
        assert 1 == len(project.boxes())
        assert "kept" in done.err

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["provision", "--vm=small", "run", "--vm=large"], "conflicting flags: "),
            (["run", "--spot", "--no-spot"], "conflicting flags: "),
            (["run", "--vm", "--dry"], "--vm needs a value"),
            (["run", "--name="], "--name needs a value"),
        ],
    )
    def test_contradictions_are_refused(
        self, project: Project, words: list[str], message: str
    ) -> None:
        """
        A line that contradicts itself is refused before anything happens.
        """
        done = project.inv(*words)

        assert 64 == done.code
        assert done.err.startswith(f"onebox: {message}")
        assert [] == project.boxes()

    def test_live_box_is_not_contradicted(self, project: Project) -> None:
        """
        A flag that contradicts the live box is refused: no silent second one.
        """
        project.inv("provision", "--vm=small")
        done = project.inv("run", "--vm=large")

        assert 64 == done.code
        assert "requests large" in done.err
        assert "inv teardown" in done.err
        assert 1 == len(project.boxes())

    def test_recorded_box_beats_the_file(self, project: Project) -> None:
        """
        After `inv provision --vm=large`, a plain `inv run` uses that box.
        """
        project.inv("provision", "--vm=large")
        before = project.boxes()
        done = project.inv("run")

        assert 0 == done.code
        assert "up to date" in done.err
        assert before == project.boxes()

    def test_several_names_side_by_side(self, project: Project) -> None:
        """
        `--name` makes a second box, and teardown takes only its own.
        """
        project.inv("provision")
        project.inv("provision", "--name=second")
        assert 2 == len(project.boxes())

        done = project.inv("teardown", "--name=second")

        assert 0 == done.code
        assert 1 == len(project.boxes())
        assert 0 == project.inv("teardown", "--all").code
        assert [] == project.boxes()


class TestComposing:
    def test_namespaced(self, project: Project) -> None:
        """
        `Collection(train, box=onebox.ns)` gives the tasks a namespace.
        """
        project.write(
            "tasks.py",
            "import onebox\nfrom invoke import Collection, task\n"
            "@task\ndef train(c):\n    print('mine')\n"
            "ns = Collection(train, box=onebox.ns)\n",
        )
        done = project.inv("box.run", "--vm=small", "train")

        assert (0, "working\nmine\n") == (done.code, done.out)

    def test_pre_of_a_plain_task(self, project: Project) -> None:
        """
        A plain `@task(pre=[push])` finds the box up and filled; it stays.
        """
        project.write(
            "tasks.py",
            "from onebox import *\nfrom invoke import task\n"
            "@task(pre=[push])\ndef look(c):\n    ssh(c)\n",
        )
        done = project.inv("look", "--", "cat work/job.sh")

        assert (0, project.read("job.sh")) == (done.code, done.out)
        assert 1 == len(project.boxes())

    def test_a_stage_of_the_users_own(self, project: Project) -> None:
        """
        `@stage(push)` takes the shared flags, brings up the chain, ends the box.
        """
        project.write(
            "tasks.py",
            "from onebox import *\n"
            "@stage(push)\n"
            "def train(c, epochs=3):\n"
            "    run(c, command=f'echo {epochs} epochs')\n"
            "    run(c, command='echo again')\n",
        )
        done = project.inv("train", "--epochs=5", "--vm=large")

        assert (0, "5 epochs\nagain\n") == (done.code, done.out)
        assert 1 == stages(done.err).count("provision")
        assert "large" in done.err.splitlines()[0]
        assert [] == project.boxes()

    def test_from_python_in_a_loop(self, project: Project) -> None:
        """
        `run(c, vm=…, name=…)` in a loop is a whole chain each time.
        """
        project.write(
            "tasks.py",
            "from onebox import *\nfrom invoke import task\n"
            "@task\ndef grid(c):\n"
            "    for size in ('small', 'large'):\n"
            "        run(c, vm=size, name=size, command=f'echo {size}')\n",
        )
        done = project.inv("grid")

        assert (0, "small\nlarge\n") == (done.code, done.out)
        assert 2 == stages(done.err).count("teardown")
        assert [] == project.boxes()

    def test_failure_in_python(self, project: Project) -> None:
        """
        A failing job ends the user's task with the job's own code.
        """
        project.write(
            "tasks.py",
            "from onebox import *\nfrom invoke import task\n"
            "@task\ndef go(c):\n    run(c, command='exit 9')\n    print('never')\n",
        )
        done = project.inv("go")

        assert (9, "") == (done.code, done.out)

    def test_from_a_subfolder(self, project: Project) -> None:
        """
        A line typed in a subfolder works on the project, not on the folder.
        """
        (project.root / "deep" / "er").mkdir(parents=True)
        done = project.inv("run", cwd=project.root / "deep" / "er")

        assert 0 == done.code
        assert "42\n" == project.read("results/answer.txt")


class TestStepByStep:
    def test_one_stage_at_a_time(self, project: Project) -> None:
        """
        Each stage alone, in turn, does its part; the second time it is up to date.
        """
        assert 0 == project.inv("provision").code
        assert 0 == project.inv("push").code
        again = project.inv("push")
        assert "up to date" in again.err.splitlines()[-2]
        only = project.inv("run", "--only")
        assert (0, "working\n") == (only.code, only.out)
        assert ["run"] == stages(only.err)
        assert "kept" in only.err.splitlines()[-1]
        assert not (project.root / "results").exists()
        held = project.inv("teardown")
        assert 73 == held.code
        assert "results/answer.txt" in held.err
        assert 1 == len(project.boxes())
        assert 0 == project.inv("fetch").code
        assert "42\n" == project.read("results/answer.txt")
        assert '"exit": 0' in project.read("results/onebox-receipt.json")
        assert 0 == project.inv("teardown").code
        assert [] == project.boxes()
        done = project.inv("teardown")
        assert 0 == done.code
        assert "up to date" in done.err

    def test_only_on_nothing(self, project: Project) -> None:
        """
        `--only` without a box says so, and makes none.
        """
        done = project.inv("run", "--only")

        assert 64 == done.code
        assert "there is no box" in done.err
        assert [] == project.boxes()

    def test_keep(self, project: Project) -> None:
        """
        `--keep` leaves the box up and says what it costs and when it ends.
        """
        done = project.inv("run", "--keep")

        assert 0 == done.code
        assert "teardown" in done.err.splitlines()[-1]
        assert 1 == len(project.boxes())

    def test_discard_needs_a_yes(self, project: Project) -> None:
        """
        Giving up outputs takes a typed id, or --yes.
        """
        project.inv("provision")
        project.inv("push")
        project.inv("run", "--only")
        done = project.inv("teardown", "--discard-outputs")
        assert 64 == done.code
        assert 1 == len(project.boxes())
        done = project.inv("teardown", "--discard-outputs", "--yes")
        assert 0 == done.code
        assert [] == project.boxes()

    def test_status_and_sweep(self, project: Project) -> None:
        """
        `status` and `sweep` show the box; an expired one is swept with --yes.
        """
        assert "no box is up" in project.inv("status").out
        project.inv("provision")
        (box,) = project.boxes()
        assert box in project.inv("status").out
        shown = project.inv("sweep", "--yes")
        assert box in shown.out
        assert "nothing has expired" in shown.err
        assert [box] == project.boxes()

    def test_doctor(self, project: Project) -> None:
        """
        `doctor` looks at everything a run needs, and passes here.
        """
        done = project.inv("doctor")

        assert 0 == done.code, done.out
        assert "a job cannot reach: your home folder" in done.out.lower()

    def test_a_local_box_is_behind_the_users_proxies(self, project: Project) -> None:
        """
        Proxy variables of the user reach jobs and sessions of a local box; no others.
        """
        project.write(
            "job.sh", 'echo "<$https_proxy$NO_PROXY$STRAY>"; echo 1 > results/x\n'
        )
        env = {"https_proxy": "http://a:1", "NO_PROXY": "b", "STRAY": "c"}

        done = project.inv("provision", "push", "run", env=env)

        assert 0 == done.code, done.err
        assert "<http://a:1b>" in done.out

    def test_init(self, project: Project) -> None:
        """
        `init` writes a valid onebox.toml and never over one that is there.
        """
        refused = project.inv("init")
        assert 64 == refused.code
        (project.root / "onebox.toml").unlink()
        done = project.inv("init")
        assert 0 == done.code
        assert "next: [run] command, then inv run" in done.err
        assert ".onebox/" in project.read(".gitignore").splitlines()
        assert 0 == project.inv("plan").code or "command" in project.inv("plan").err


class TestPlan:
    def test_changes_nothing(self, project: Project) -> None:
        """
        `inv plan` and `inv --dry run` say the same, and leave no trace.
        """
        plan = project.inv("plan")
        dry = project.inv("--dry", "run")

        assert (0, 0) == (plan.code, dry.code)
        assert plan.out == dry.out
        assert "there is no box census/main" in plan.out
        assert [] == project.boxes()
        assert not (project.root / ".onebox").exists()

    def test_dry_line_with_several_stages(self, project: Project) -> None:
        """
        `--dry` holds for every stage of a line.
        """
        done = project.inv("--dry", "provision", "push", "run", "teardown")

        assert 0 == done.code
        assert [] == project.boxes()

    def test_says_why(self, project: Project) -> None:
        """
        The plan names the files that differ.
        """
        project.inv("run", "--keep")
        project.write("new.py", "pass\n")
        done = project.inv("plan")

        assert "new.py" in done.out


class TestUpToDate:
    def test_unchanged_job_is_skipped(self, project: Project) -> None:
        """
        With when = "changed", the same command, code and outputs are not run again.
        """
        project.write("onebox.toml", TOML_CHANGED)
        first = project.inv("run")
        second = project.inv("run")
        assert (0, 0) == (first.code, second.code)
        assert ["run"] == stages(second.err)
        assert "" == second.out

        project.write("results/answer.txt", "changed by hand\n")
        third = project.inv("run")
        assert "working\n" == third.out
        assert "42\n" == project.read("results/answer.txt")
        assert "changed by hand\n" == project.read("results/answer.txt~")

    def test_edited_while_it_runs(self, project: Project) -> None:
        """
        What is edited while the job runs has not been run: it is no longer up to date.
        """
        project.write("onebox.toml", TOML_CHANGED)
        project.write("job.sh", JOB + "while [ ! -e go ]; do sleep 0.1; done\n")
        line = project.start("run")
        project.until("working\n")
        project.write("job.sh", JOB.replace("42", "43"))
        go_on(project)
        assert 0 == line.wait(60)
        assert "42\n" == project.read("results/answer.txt")

        assert "working\n" == project.inv("run").out
        assert "43\n" == project.read("results/answer.txt")
        assert "" == project.inv("run").out

    def test_failed_job_runs_again(self, project: Project) -> None:
        """
        A job that failed is not up to date.
        """
        project.write("onebox.toml", TOML_CHANGED)
        project.write("job.sh", "exit 1")
        assert 1 == project.inv("run").code
        assert 1 == project.inv("run").code


class TestImage:
    RECIPE = '[image]\nsetup = "setup.sh"\n[run]\ncommand = "hello"\n'

    def test_recipe_is_built_once(self, project: Project) -> None:
        """
        A recipe is run once; what it installed is there in every box after.
        """
        project.write("onebox.toml", self.RECIPE)
        project.write(
            "setup.sh",
            "mkdir -p ~/.venv/bin; printf '#!/bin/sh\\necho from the image\\n' "
            "> ~/.venv/bin/hello; chmod +x ~/.venv/bin/hello",
        )
        first = project.inv("run")
        assert (0, "from the image\n") == (first.code, first.out), first.err
        assert "built" in first.err
        second = project.inv("run")
        assert "image      ✓ up to date" in second.err
        assert "from the image\n" == second.out
        assert [] == project.boxes()

        project.write("setup.sh", project.read("setup.sh") + "\ntrue\n")
        assert "setup.sh changed" in project.inv("plan").out

    def test_failing_recipe(self, project: Project) -> None:
        """
        A recipe that fails shows its last lines and leaves no builder.
        """
        project.write("onebox.toml", self.RECIPE)
        project.write("setup.sh", "echo getting there; echo no such thing >&2; exit 4")
        done = project.inv("run")

        assert 70 == done.code
        assert "no such thing" in done.err
        assert "setup.sh failed with exit 4" in done.err
        assert [] == project.boxes()

    def test_by_hand(self, project: Project) -> None:
        """
        A box set up by hand is saved with --from-box, and used by its name.
        """
        project.inv("provision")
        project.inv("ssh", "--", "echo by hand > note")
        done = project.inv("image", "--from-box", "--as=geo")
        assert 0 == done.code, done.err
        assert "geo" in project.inv("image", "--list").out
        project.inv("teardown")
        project.write(
            "onebox.toml", '[image]\nuse = "geo"\n[run]\ncommand = "cat ~/note"\n'
        )
        again = project.inv("run")
        assert (0, "by hand\n") == (again.code, again.out)


class TestComingBack:
    def test_detach_logs_fetch_teardown(self, project: Project) -> None:
        """
        `--detach` returns at once; `logs` gives every byte and the exit code.
        """
        project.write(
            "job.sh",
            "seq 3; while [ ! -e go ]; do sleep 0.1; done; seq 4 6\n"
            "mkdir -p results; echo done > results/x; exit 5",
        )
        begun = project.inv("run", "--detach")
        assert 0 == begun.code
        assert "inv logs" in begun.err
        assert 64 == project.inv("fetch").code
        assert 64 == project.inv("run").code
        go_on(project)
        back = project.inv("logs")
        assert (5, "1\n2\n3\n4\n5\n6\n") == (back.code, back.out)
        assert back.out == project.inv("logs").out
        end = project.inv("fetch", "teardown")
        assert 0 == end.code, end.err
        assert "done\n" == project.read("results/x")
        assert [] == project.boxes()

    def test_client_killed(self, project: Project) -> None:
        """
        A killed client does not harm the job; logs goes on where it was.
        """
        project.write(
            "job.sh",
            "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.1; done",
        )
        line = project.start("run")
        project.until("\n5\n")
        line.send_signal(signal.SIGKILL)
        line.wait()
        back = project.inv("logs")

        assert 0 == back.code
        assert "".join(f"{n}\n" for n in range(30)) == back.out
        # The chain had made the box for itself: the next one ends it.
        again = project.inv("run")
        assert 0 == again.code
        assert [] == project.boxes()

    def test_cancel(self, project: Project) -> None:
        """
        `cancel` ends the job from another terminal; outputs still come home.
        """
        project.write(
            "job.sh", "mkdir -p results; echo half > results/x; echo up; sleep 600"
        )
        line = project.start("run")
        project.until("up\n")
        done = project.inv("cancel")
        assert 0 == done.code, done.err
        assert 128 + signal.SIGTERM == line.wait(60)
        assert "cancelled" in project.err
        assert "half\n" == project.read("results/x")
        assert [] == project.boxes()

    def test_busy(self, project: Project) -> None:
        """
        A second command that would change the box is told who is busy.
        """
        project.write("job.sh", "echo up; sleep 600")
        line = project.start("run")
        project.until("up\n")
        second = project.inv("run")
        assert 75 == second.code
        assert f"pid {line.pid}" in second.err
        assert '"inv run"' in second.err
        assert "running" in project.inv("status").out
        project.inv("cancel")
        line.wait(60)


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "code"),
        [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    )
    def test_while_the_job_runs(self, project: Project, number: int, code: int) -> None:
        """
        The first signal detaches: the job goes on, and the way back is named.
        """
        project.write(
            "job.sh", "echo up; while [ ! -e go ]; do sleep 0.1; done; rm go; echo end"
        )
        line = project.start("run")
        project.until("up\n")
        line.send_signal(number)

        assert code == line.wait(20)
        assert "detached" in project.err
        assert "inv logs" in project.err
        go_on(project)
        back = project.inv("logs")
        assert (0, "up\nend\n") == (back.code, back.out)
        assert 0 == project.inv("fetch", "teardown").code

    def test_while_provisioning(self, project: Project) -> None:
        """
        Ctrl-C while a box comes up removes it.
        """
        project.write("onebox.toml", TOML_SLOW)
        line = project.start("run")
        while not project.boxes():
            assert line.poll() is None
        line.send_signal(signal.SIGINT)

        assert 130 == line.wait(30)
        assert [] == project.boxes()
        assert "no box is left" in project.err

    def test_twice(self, project: Project) -> None:
        """
        The second Ctrl-C ends at once, with the box's id, price and end.
        """
        project.write("onebox.toml", TOML_SLOW)
        project.inv("provision")
        (box,) = project.boxes()
        project.write("job.sh", "echo up; sleep 600")
        line = project.start("run")
        project.until("up\n")
        line.send_signal(signal.SIGINT)
        time.sleep(0.3)
        line.send_signal(signal.SIGINT)

        assert 130 == line.wait(10)
        assert [box] == project.boxes()


class TestRehearsals:
    REHEARSE = '[run]\ncommand = "sh job.sh"\n[local.rehearse]\n'

    def test_preemption(self, project: Project) -> None:
        """
        A job that saves its work at the notice has it here; the exit code is 75.
        """
        project.write(
            "job.sh",
            "trap 'mkdir -p results; echo saved > results/x; exit 0' TERM\n"
            "echo up; while :; do sleep 0.1; done\n",
        )
        line = project.start("run")
        project.until("up\n")
        give_notice(project)

        assert (75, "up") == (line.wait(60), project.out.split()[0])
        assert "was taken back by the provider" in project.err
        assert "saved\n" == project.read("results/x")
        assert [] == project.boxes()

    def test_power_cut(self, project: Project) -> None:
        """
        A box that dies with its job is lost, named, and its disk can be fetched.
        """
        project.write(
            "job.sh", "mkdir -p results; echo half > results/x; echo up; sleep 600"
        )
        line = project.start("run")
        project.until("up\n")
        project.cut_power()

        assert (74, "up\n") == (line.wait(60), project.out)
        assert "its disk is kept" in project.err
        assert 0 == project.inv("fetch", "teardown").code
        assert "half\n" == project.read("results/x")
        assert [] == project.boxes()

    def test_full_disk(self, project: Project) -> None:
        """
        A box whose disk is full says so; what fitted comes back.
        """
        project.write("onebox.toml", self.REHEARSE + 'disk = "4 MB"\n')
        project.write(
            "job.sh",
            "mkdir results; echo first > results/a; head -c 9000000 /dev/zero > big",
        )
        done = project.inv("run")

        assert 1 == done.code
        assert "the box's disk is full" in done.err
        assert "first\n" == project.read("results/a")


class TestMistakes:
    def test_typo_in_the_file(self, project: Project) -> None:
        """
        A typo gives one line with file, line, key and the nearest name.
        """
        project.write("onebox.toml", '[run]\ncomand = "sh job.sh"\n')
        done = project.inv("run")

        assert (78, "") == (done.code, done.out)
        assert done.err.startswith("onebox: onebox.toml:2: [run] comand: unknown key")
        assert "command?" in done.err
        assert "Traceback" not in done.err

    def test_missing_data(self, project: Project) -> None:
        """
        Data that is not there is named before a box is made.
        """
        project.write(
            "onebox.toml", '[push]\ndata = ["dta/"]\n[run]\ncommand = "true"\n'
        )
        done = project.inv("run")

        assert done.code in (66, 78)
        assert "dta" in done.err
        assert "Traceback" not in done.err
        assert [] == project.boxes()

    def test_unknown_flag_value(self, project: Project) -> None:
        """
        A provider that there is not gives one line.
        """
        done = project.inv("run", "--provider=azure")

        assert 78 == done.code
        assert "Traceback" not in done.err

    def test_cloud_without_account(self, project: Project) -> None:
        """
        A cloud that is not set up says what to set, after it has been named.
        """
        env = {"AWS_EC2_METADATA_DISABLED": "true"}
        done = project.inv("run", "--provider=aws", env=env)

        assert 64 == done.code
        first, error, hint = done.err.strip().splitlines()
        assert first.startswith("onebox  census/main   aws   ")
        assert "onebox: no AWS region is set" == error
        assert "[aws]" in hint

    def test_image_without_a_name(self, project: Project) -> None:
        """
        Saving a box asks for a name before it looks for the box.
        """
        done = project.inv("image", "--from-box")

        assert 64 == done.code
        assert "--as=" in done.err

    def test_reader_gone(self, project: Project) -> None:
        """
        `inv run | head -1`: the job and the chain go on to their end, exit 141.
        """
        project.write("job.sh", "seq 200000; mkdir -p results; echo y > results/y")
        pipe = subprocess.run(
            ["bash", "-c", PIPED, "-", *project.argv("run")],
            cwd=project.root,
            env=project.environ,
            capture_output=True,
            check=False,
        )

        assert (141, b"1\n") == (pipe.returncode, pipe.stdout)
        assert "y\n" == project.read("results/y")
        (log,) = project.root.glob(".onebox/jobs/*/log")
        assert 200000 == len(log.read_bytes().splitlines())
        assert [] == project.boxes()


class TestState:
    def test_emptied_state_finds_the_box(self, project: Project) -> None:
        """
        With the state directory gone, the box is found, used and torn down.
        """
        project.inv("provision")
        (box,) = project.boxes()
        subprocess.run(["rm", "-r", str(project.home / "state")], check=True)
        done = project.inv("run")

        assert (0, "working\n") == (done.code, done.out)
        assert [box] == project.boxes()
        assert 0 == project.inv("teardown").code
        assert [] == project.boxes()

    def test_another_owner_is_untouched(self, project: Project) -> None:
        """
        Another owner's boxes in the same place are neither seen nor removed.
        """
        project.inv("provision", env={"ONEBOX_IDENTITY": str(project.home / "other")})
        (theirs,) = project.boxes()
        assert "no box is up" in project.inv("status").out
        project.inv("run")
        project.inv("teardown", "--all", "--yes")
        project.inv("sweep", "--yes")

        assert [theirs] == project.boxes()


def go_on(project: Project) -> None:
    """Have the job on the only box go on from where it waits."""
    (box,) = project.boxes()
    (project.home / "local/boxes" / box / "disk/home/work/go").touch()


def test_list_loads_nothing_heavy() -> None:
    """
    Importing onebox loads no SDK, no rich, no toml, and none of its own core.
    """
    code = (
        "import sys, onebox; "
        "print([m for m in ('boto3', 'google.cloud', 'digitalocean', 'rich', 'toml', "
        "'asyncssh', 'onebox.context', 'onebox.settings') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ},
    )

    assert "[]\n" == done.stdout


PIPED = '"$@" 2>/dev/null | head -1; exit ${PIPESTATUS[0]}'
TOML_CHANGED = """\
[run]
command = "sh job.sh"
when = "changed"

[fetch]
outputs = ["results/"]
"""
TOML_SLOW = """\
[run]
command = "sh job.sh"

[local.rehearse]
boot_delay = 3
"""
