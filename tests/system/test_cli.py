"""Real `inv` lines on the local box: what a user types, and the result."""

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


def finished_stages(err: str) -> list[str]:
    """Return the names of the finished stages, in order."""
    names = ("image", "provision", "push", "run", "fetch", "teardown")
    return [line.split()[0] for line in err.splitlines() if line.startswith(names)]


class TestWholeChain:
    @pytest.mark.fast
    def test_run_leaves_outputs_and_no_box(self, project: Project) -> None:
        """
        `inv run` goes through every stage, fetches the outputs and deletes the
        box.
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
        ] == finished_stages(done.err)
        assert "42\n" == project.read("results/answer.txt")
        assert "\x1b" not in done.err
        assert [] == project.boxes()
        assert [] == project.processes()

    def test_run_works_without_onebox_toml(self, project: Project) -> None:
        """`inv run -- command` works on local without a file."""
        (project.root / "onebox.toml").unlink()
        done = project.inv("run", "--", "sh", "job.sh")

        assert (0, "working\n") == (done.code, done.out)

    @pytest.mark.fast
    def test_run_without_a_command_is_refused_before_a_box_is_created(
        self, project: Project
    ) -> None:
        """The error is one line."""
        (project.root / "onebox.toml").unlink()
        done = project.inv("run")

        assert 78 == done.code
        assert "onebox: there is nothing to run" in done.err
        assert "provision" not in finished_stages(done.err)
        assert [] == project.boxes()

    @pytest.mark.parametrize("code", [1, 3, 64, 73, 126, 255])
    def test_exit_code_of_the_job_is_invs(self, project: Project, code: int) -> None:
        """The outputs are fetched first."""
        project.write("job.sh", f"mkdir -p results; echo x > results/x; exit {code}")
        done = project.inv("run")

        assert code == done.code
        assert f"exit {code}" in done.err
        assert "onebox:" not in done.err
        assert "x\n" == project.read("results/x")
        assert [] == project.boxes()

    def test_job_killed_by_a_signal_exits_with_128_and_its_number(
        self, project: Project
    ) -> None:
        """The signal is named."""
        project.write("job.sh", "kill -SEGV $$")
        done = project.inv("run")

        assert 128 + signal.SIGSEGV == done.code
        assert "SIGSEGV" in done.err

    def test_words_of_the_command_are_passed_unchanged(self, project: Project) -> None:
        """Every word behind `--` reaches the command as it was typed."""
        words = ["a  b", "", "it's", 'say "hi"', "$HOME", "*", "new\nline", "ü"]
        show = "import json,sys; print(json.dumps(sys.argv[1:]))"
        done = project.inv("run", "--", "python3", "-c", show, *words)

        assert words == json.loads(done.out)

    def test_stdout_has_only_the_jobs_output(self, project: Project) -> None:
        """All messages of onebox are on stderr."""
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

    def test_receipt_is_beside_the_outputs_and_below_onebox(
        self, project: Project
    ) -> None:
        """Both files are equal."""
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

    def test_secret_is_in_the_jobs_environment_and_in_no_file(
        self, project: Project
    ) -> None:
        """No file of onebox contains the value."""
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

    def test_missing_secret_is_named_before_a_box_is_created(
        self, project: Project
    ) -> None:
        """A secret must be in the environment."""
        project.write(
            "onebox.toml", '[run]\ncommand = "sh job.sh"\nsecrets = ["TOKEN"]\n'
        )
        done = project.inv("run")

        assert 64 == done.code
        assert "TOKEN is not in the environment" in done.err
        assert "provision" not in finished_stages(done.err)


class TestOneBoxPerLine:
    def test_line_with_several_stages_has_one_box_and_each_stage_once(
        self, project: Project
    ) -> None:
        """`inv provision push run --vm=large` creates one box."""
        done = project.inv("provision", "push", "run", "--vm=large")

        assert 0 == done.code
        assert ["image", "provision", "push", "run", "fetch"] == finished_stages(
            done.err
        )
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
    @pytest.mark.fast
    def test_contradicting_flags_are_refused_before_anything_runs(
        self, project: Project, words: list[str], message: str
    ) -> None:
        """The error names the contradiction."""
        done = project.inv(*words)

        assert 64 == done.code
        assert done.err.startswith(f"onebox: {message}")
        assert [] == project.boxes()

    def test_flag_that_contradicts_the_existing_box_is_refused(
        self, project: Project
    ) -> None:
        """No second box is created silently."""
        project.inv("provision", "--vm=small")
        done = project.inv("run", "--vm=large")

        assert 64 == done.code
        assert "requests large" in done.err
        assert "inv teardown" in done.err
        assert 1 == len(project.boxes())

    def test_existing_box_precedes_the_size_of_the_file(self, project: Project) -> None:
        """After `inv provision --vm=large`, a plain `inv run` uses that box."""
        project.inv("provision", "--vm=large")
        before = project.boxes()
        done = project.inv("run")

        assert 0 == done.code
        assert "up to date" in done.err
        assert before == project.boxes()

    def test_name_gives_a_second_box(self, project: Project) -> None:
        """`--name` creates another box, and teardown deletes only its own."""
        project.inv("provision")
        project.inv("provision", "--name=second")
        assert 2 == len(project.boxes())

        done = project.inv("teardown", "--name=second")

        assert 0 == done.code
        assert 1 == len(project.boxes())
        assert 0 == project.inv("teardown", "--all").code
        assert [] == project.boxes()


class TestComposing:
    def test_tasks_can_have_a_namespace(self, project: Project) -> None:
        """`Collection(train, box=onebox.ns)` puts the tasks into a namespace."""
        project.write(
            "tasks.py",
            "import onebox\nfrom invoke import Collection, task\n"
            "@task\ndef train(c):\n    print('mine')\n"
            "ns = Collection(train, box=onebox.ns)\n",
        )
        done = project.inv("box.run", "--vm=small", "train")

        assert (0, "working\nmine\n") == (done.code, done.out)

    def test_plain_task_can_have_a_stage_as_pre(self, project: Project) -> None:
        """`@task(pre=[push])` finds the box up with the files on it; the box stays."""
        project.write(
            "tasks.py",
            "from onebox import *\nfrom invoke import task\n"
            "@task(pre=[push])\ndef look(c):\n    ssh(c)\n",
        )
        done = project.inv("look", "--", "cat work/job.sh")

        assert (0, project.read("job.sh")) == (done.code, done.out)
        assert 1 == len(project.boxes())

    def test_user_can_write_a_stage(self, project: Project) -> None:
        """
        `@stage(push)` accepts the shared flags, runs the chain, and deletes the
        box.
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
        assert 1 == finished_stages(done.err).count("provision")
        assert "large" in done.err.splitlines()[0]
        assert [] == project.boxes()

    def test_run_in_a_loop_is_a_whole_chain_each_time(self, project: Project) -> None:
        """`run(c, vm=…, name=…)` creates and deletes a box each time."""
        project.write(
            "tasks.py",
            "from onebox import *\nfrom invoke import task\n"
            "@task\ndef grid(c):\n"
            "    for size in ('small', 'large'):\n"
            "        run(c, vm=size, name=size, command=f'echo {size}')\n",
        )
        done = project.inv("grid")

        assert (0, "small\nlarge\n") == (done.code, done.out)
        assert 2 == finished_stages(done.err).count("teardown")
        assert [] == project.boxes()

    def test_failing_job_ends_the_users_task_with_its_code(
        self, project: Project
    ) -> None:
        """The job's exit code is inv's."""
        project.write(
            "tasks.py",
            "from onebox import *\nfrom invoke import task\n"
            "@task\ndef go(c):\n    run(c, command='exit 9')\n    print('never')\n",
        )
        done = project.inv("go")

        assert (9, "") == (done.code, done.out)

    def test_line_typed_in_a_subfolder_works_on_the_project(
        self, project: Project
    ) -> None:
        """The project is the folder with tasks.py."""
        (project.root / "deep" / "er").mkdir(parents=True)
        done = project.inv("run", cwd=project.root / "deep" / "er")

        assert 0 == done.code
        assert "42\n" == project.read("results/answer.txt")


class TestStepByStep:
    def test_stages_can_be_typed_one_at_a_time(self, project: Project) -> None:
        """Each stage does its part; a second time it is up to date."""
        assert 0 == project.inv("provision").code
        assert 0 == project.inv("push").code
        again = project.inv("push")
        assert "up to date" in again.err.splitlines()[-2]
        only = project.inv("run", "--only")
        assert (0, "working\n") == (only.code, only.out)
        assert ["run"] == finished_stages(only.err)
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

    def test_only_without_a_box_is_refused(self, project: Project) -> None:
        """`--only` creates no box."""
        done = project.inv("run", "--only")

        assert 64 == done.code
        assert "there is no box" in done.err
        assert [] == project.boxes()

    def test_keep_leaves_the_box_and_names_its_cost_and_end(
        self, project: Project
    ) -> None:
        """`--keep` prints price and deadline."""
        done = project.inv("run", "--keep")

        assert 0 == done.code
        assert "teardown" in done.err.splitlines()[-1]
        assert 1 == len(project.boxes())

    def test_discarding_outputs_needs_a_typed_id_or_yes(self, project: Project) -> None:
        """Without either, teardown is refused."""
        project.inv("provision")
        project.inv("push")
        project.inv("run", "--only")
        done = project.inv("teardown", "--discard-outputs")
        assert 64 == done.code
        assert 1 == len(project.boxes())
        done = project.inv("teardown", "--discard-outputs", "--yes")
        assert 0 == done.code
        assert [] == project.boxes()

    def test_status_and_sweep_list_the_box(self, project: Project) -> None:
        """An expired box is deleted with --yes."""
        assert "no box is up" in project.inv("status").out
        project.inv("provision")
        (box,) = project.boxes()
        assert box in project.inv("status").out
        shown = project.inv("sweep", "--yes")
        assert box in shown.out
        assert "nothing has expired" in shown.err
        assert [box] == project.boxes()

    def test_doctor_checks_everything_a_run_needs(self, project: Project) -> None:
        """All checks pass on this machine."""
        done = project.inv("doctor")

        assert 0 == done.code, done.out
        assert "a job cannot reach: your home folder" in done.out.lower()

    def test_local_box_gets_the_users_proxy_variables(self, project: Project) -> None:
        """Jobs and sessions get them, and no other variables."""
        project.write(
            "job.sh", 'echo "<$https_proxy$NO_PROXY$STRAY>"; echo 1 > results/x\n'
        )
        env = {"https_proxy": "http://a:1", "NO_PROXY": "b", "STRAY": "c"}

        done = project.inv("provision", "push", "run", env=env)

        assert 0 == done.code, done.err
        assert "<http://a:1b>" in done.out

    def test_init_writes_a_valid_file_and_never_replaces_one(
        self, project: Project
    ) -> None:
        """An existing onebox.toml stays."""
        refused = project.inv("init")
        assert 64 == refused.code
        (project.root / "onebox.toml").unlink()
        done = project.inv("init")
        assert 0 == done.code
        assert "next: [run] command, then inv run" in done.err
        assert ".onebox/" in project.read(".gitignore").splitlines()
        assert 0 == project.inv("plan").code or "command" in project.inv("plan").err


class TestPlan:
    @pytest.mark.fast
    def test_plan_and_dry_run_print_the_same_and_change_nothing(
        self, project: Project
    ) -> None:
        """`inv plan` and `inv --dry run` leave no trace."""
        plan = project.inv("plan")
        dry = project.inv("--dry", "run")

        assert (0, 0) == (plan.code, dry.code)
        assert plan.out == dry.out
        assert "there is no box census/main" in plan.out
        assert [] == project.boxes()
        assert not (project.root / ".onebox").exists()

    def test_dry_holds_for_every_stage_of_a_line(self, project: Project) -> None:
        """No stage of the line changes anything."""
        done = project.inv("--dry", "provision", "push", "run", "teardown")

        assert 0 == done.code
        assert [] == project.boxes()

    def test_plan_names_the_files_that_differ(self, project: Project) -> None:
        """The reason for a push has file names."""
        project.inv("run", "--keep")
        project.write("new.py", "pass\n")
        done = project.inv("plan")

        assert "new.py" in done.out


class TestUpToDate:
    def test_unchanged_job_is_skipped(self, project: Project) -> None:
        """
        With when = "changed", the same command, code and outputs do not run
        again.
        """
        project.write("onebox.toml", TOML_CHANGED)
        first = project.inv("run")
        second = project.inv("run")
        assert (0, 0) == (first.code, second.code)
        assert ["run"] == finished_stages(second.err)
        assert "" == second.out

        project.write("results/answer.txt", "changed by hand\n")
        third = project.inv("run")
        assert "working\n" == third.out
        assert "42\n" == project.read("results/answer.txt")
        assert "changed by hand\n" == project.read("results/answer.txt~")

    def test_edit_during_a_run_makes_the_job_outdated(self, project: Project) -> None:
        """The edited file was not part of the run."""
        project.write("onebox.toml", TOML_CHANGED)
        project.write("job.sh", JOB + "while [ ! -e go ]; do sleep 0.1; done\n")
        line = project.start("run")
        project.until("working\n")
        project.write("job.sh", JOB.replace("42", "43"))
        let_job_continue(project)
        assert 0 == line.wait(60)
        assert "42\n" == project.read("results/answer.txt")

        assert "working\n" == project.inv("run").out
        assert "43\n" == project.read("results/answer.txt")
        assert "" == project.inv("run").out

    def test_failed_job_is_not_up_to_date(self, project: Project) -> None:
        """It runs again."""
        project.write("onebox.toml", TOML_CHANGED)
        project.write("job.sh", "exit 1")
        assert 1 == project.inv("run").code
        assert 1 == project.inv("run").code


class TestImage:
    RECIPE = '[image]\nsetup = "setup.sh"\n[run]\ncommand = "hello"\n'

    def test_recipe_is_built_once_and_is_in_every_box(self, project: Project) -> None:
        """What the recipe installs is in every later box."""
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

    def test_failing_recipe_shows_its_last_lines_and_leaves_no_builder(
        self, project: Project
    ) -> None:
        """The builder is deleted."""
        project.write("onebox.toml", self.RECIPE)
        project.write("setup.sh", "echo getting there; echo no such thing >&2; exit 4")
        done = project.inv("run")

        assert 70 == done.code
        assert "no such thing" in done.err
        assert "setup.sh failed with exit 4" in done.err
        assert [] == project.boxes()

    def test_box_set_up_by_hand_can_be_saved_and_used(self, project: Project) -> None:
        """`--from-box` saves it under a name that [image] use accepts."""
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
    def test_detached_job_can_be_followed_fetched_and_ended(
        self, project: Project
    ) -> None:
        """
        `--detach` returns at once; `logs` prints every byte and exits with the
        job's code.
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
        let_job_continue(project)
        back = project.inv("logs")
        assert (5, "1\n2\n3\n4\n5\n6\n") == (back.code, back.out)
        assert back.out == project.inv("logs").out
        end = project.inv("fetch", "teardown")
        assert 0 == end.code, end.err
        assert "done\n" == project.read("results/x")
        assert [] == project.boxes()

    def test_job_survives_a_kill_of_the_client(self, project: Project) -> None:
        """`logs` continues where the killed client was."""
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

    def test_cancel_ends_the_job_and_the_outputs_are_fetched(
        self, project: Project
    ) -> None:
        """The cancel comes from another terminal."""
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

    def test_second_command_is_refused_with_the_holder_of_the_lock(
        self, project: Project
    ) -> None:
        """A command that would change the box names the one that is working on it."""
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
    def test_first_signal_during_the_job_detaches(
        self, project: Project, number: int, code: int
    ) -> None:
        """The job continues, and the command to return to it is printed."""
        project.write(
            "job.sh", "echo up; while [ ! -e go ]; do sleep 0.1; done; rm go; echo end"
        )
        line = project.start("run")
        project.until("up\n")
        line.send_signal(number)

        assert code == line.wait(20)
        assert "detached" in project.err
        assert "inv logs" in project.err
        let_job_continue(project)
        back = project.inv("logs")
        assert (0, "up\nend\n") == (back.code, back.out)
        assert 0 == project.inv("fetch", "teardown").code

    def test_ctrl_c_during_provision_deletes_the_box(self, project: Project) -> None:
        """No box is left."""
        project.write("onebox.toml", TOML_SLOW)
        line = project.start("run")
        while not project.boxes():
            assert line.poll() is None
        line.send_signal(signal.SIGINT)

        assert 130 == line.wait(30)
        assert [] == project.boxes()
        assert "no box is left" in project.err

    def test_second_ctrl_c_ends_at_once_and_names_the_box(
        self, project: Project
    ) -> None:
        """The last words have the box's id, price and deadline."""
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

    def test_preempted_job_saves_its_work_at_the_notice(self, project: Project) -> None:
        """The saved files are here, and the exit code is 75."""
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

    def test_job_of_a_box_that_dies_is_lost_and_its_disk_can_be_fetched(
        self, project: Project
    ) -> None:
        """The error names the box."""
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

    def test_full_disk_of_the_box_is_named(self, project: Project) -> None:
        """The files that were written are fetched."""
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
    @pytest.mark.fast
    def test_typo_in_the_file_names_line_key_and_nearest_name(
        self, project: Project
    ) -> None:
        """The error is one line."""
        project.write("onebox.toml", '[run]\ncomand = "sh job.sh"\n')
        done = project.inv("run")

        assert (78, "") == (done.code, done.out)
        assert done.err.startswith("onebox: onebox.toml:2: [run] comand: unknown key")
        assert "command?" in done.err
        assert "Traceback" not in done.err

    def test_missing_data_is_named_before_a_box_is_created(
        self, project: Project
    ) -> None:
        """[push] data must exist."""
        project.write(
            "onebox.toml", '[push]\ndata = ["dta/"]\n[run]\ncommand = "true"\n'
        )
        done = project.inv("run")

        assert done.code in (66, 78)
        assert "dta" in done.err
        assert "Traceback" not in done.err
        assert [] == project.boxes()

    def test_unknown_provider_is_refused_in_one_line(self, project: Project) -> None:
        """The error has the flag."""
        done = project.inv("run", "--provider=azure")

        assert 78 == done.code
        assert "Traceback" not in done.err

    @pytest.mark.fast
    def test_cloud_without_credentials_names_what_to_set(
        self, project: Project
    ) -> None:
        """The cloud is named first."""
        env = {"AWS_EC2_METADATA_DISABLED": "true"}
        done = project.inv("run", "--provider=aws", env=env)

        assert 64 == done.code
        first, error, hint = done.err.strip().splitlines()
        assert first.startswith("onebox  census/main   aws   ")
        assert "onebox: no AWS region is set" == error
        assert "[aws]" in hint

    def test_saving_a_box_without_a_name_is_refused_first(
        self, project: Project
    ) -> None:
        """The box is not looked up."""
        done = project.inv("image", "--from-box")

        assert 64 == done.code
        assert "--as=" in done.err

    def test_closed_stdout_does_not_stop_the_chain(self, project: Project) -> None:
        """
        `inv run | head -1`: job and chain run to their end, and the exit code
        is 141.
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
    def test_box_is_found_without_the_state_directory(self, project: Project) -> None:
        """The box is found by its tags, used and deleted."""
        project.inv("provision")
        (box,) = project.boxes()
        subprocess.run(["rm", "-r", str(project.home / "state")], check=True)
        done = project.inv("run")

        assert (0, "working\n") == (done.code, done.out)
        assert [box] == project.boxes()
        assert 0 == project.inv("teardown").code
        assert [] == project.boxes()

    def test_boxes_of_another_owner_are_neither_listed_nor_deleted(
        self, project: Project
    ) -> None:
        """They are at the same provider."""
        project.inv("provision", env={"ONEBOX_IDENTITY": str(project.home / "other")})
        (theirs,) = project.boxes()
        assert "no box is up" in project.inv("status").out
        project.inv("run")
        project.inv("teardown", "--all", "--yes")
        project.inv("sweep", "--yes")

        assert [theirs] == project.boxes()


def let_job_continue(project: Project) -> None:
    """Let the job on the only box continue from where it waits."""
    (box,) = project.boxes()
    (project.home / "local/boxes" / box / "disk/home/work/go").touch()


def test_import_of_onebox_loads_no_library_and_no_core_module() -> None:
    """Importing onebox loads no SDK, no rich, no toml, and few modules of its own."""
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
