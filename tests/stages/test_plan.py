"""A plan shows everything that `run` would do, refuse and ask, and changes nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pexpect
import pytest

from onebox.context import BoxContext
from onebox.invocation import Invocation
from onebox.stages import plan
from tests.conftest import TOML, Project

RUN = '[run]\ncommand = "sh job.sh"\n'


@pytest.mark.parametrize(
    ("toml", "code", "message"),
    [
        ("", 78, "there is nothing to run"),
        (RUN + 'secrets = ["NO_TOKEN"]\n', 64, "NO_TOKEN is not in the environment"),
        ('[run]\ncommand = "python -u a/b.py x"\n', 66, "a/b.py does not exist"),
        (RUN + '[push]\ndata = ["no/"]\n', 66, 'onebox.toml:4: [push] data: "no/"'),
        (RUN + '[image]\ninclude = ["s3://b/x"]\n', 66, '"s3://b/x" is a URL'),
        (RUN + '[image]\nsetup = "no.sh"\n', 66, '"no.sh" does not exist'),
        (RUN + '[image]\nuse = "no"\n', 78, "you have no such image"),
    ],
)
def test_plan_says_what_run_would_refuse(
    project: Project, toml: str, code: int, message: str
) -> None:
    """Text and exit code are those of `run`, and all stages are in the plan."""
    project.write("onebox.toml", toml)
    planned = project.inv("plan")
    done = project.inv("run")

    assert (code, code) == (planned.code, done.code), done
    assert message in done.err
    refusal = planned.err.splitlines()
    assert refusal[0].startswith("onebox[")
    assert refusal == done.err.splitlines()[-len(refusal) :]
    assert message in planned.out
    assert "would refuse" in planned.out
    for stage in ("image", "provision", "push", "run"):
        assert f"\n{stage:<10} " in planned.out
    assert [] == project.boxes()


def test_plan_names_every_mistake_at_once(project: Project) -> None:
    """The first one decides the exit code."""
    project.write(
        "onebox.toml",
        '[run]\ncommand = "python train.py"\nsecrets = ["NO_TOKEN"]\n'
        '[push]\ndata = ["no/"]\ncode = ["https://a/b"]\n',
    )
    for words in (["plan"], ["--dry", "run"]):
        done = project.inv(*words)

        assert 66 == done.code
        assert 4 == done.out.count("would refuse"), done.out
        for text in ('"no/" does not exist', '"https://a/b" is a URL', "NO_TOKEN"):
            assert text in done.out
        assert "train.py does not exist" in done.out
        assert 1 == done.err.count("onebox[")


def test_plan_names_a_missing_ssh_client(project: Project, tmp_path: Path) -> None:
    """The text is that of `run`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").symlink_to(shutil.which("git") or "/nonexistent")
    for line in ("plan", "run"):
        done = project.inv(line, env={"PATH": str(folder)})

        assert 78 == done.code
        assert "no OpenSSH client on this machine (ssh-keygen" in done.err


@pytest.mark.parametrize(
    "toml",
    [
        '[run]\ncommand = "cd a && python made.py"\n',
        '[image]\nsetup = "job.sh"\n[run]\ncommand = "python made.py"\n',
    ],
)
def test_script_that_may_be_made_elsewhere_is_not_refused(
    project: Project, toml: str
) -> None:
    """A set-up or the command itself can create it."""
    project.write("onebox.toml", toml)

    assert 0 == project.inv("plan").code


def test_missing_script_of_a_typed_command_is_refused(project: Project) -> None:
    """No image is built and no box is created for it."""
    project.write("onebox.toml", '[image]\npython = "3"\n')
    for line in ("plan", "run"):
        done = project.inv(line, "--", "python3", "gone.py", "--seed=7")

        assert 66 == done.code, done.err
        assert "gone.py does not exist" in done.err
    assert [] == project.boxes()


@pytest.mark.parametrize(
    ("image", "unless"),
    [
        ('setup = "setup.sh"', "setup.sh does not create it"),
        ('use = "geo"', "the image geo does not contain it"),
    ],
)
def test_script_that_the_image_must_have_is_named_first(
    project: Project, image: str, unless: str
) -> None:
    """The plan and the run say so before anything is created, and refuse nothing."""
    project.write("onebox.toml", f"[image]\n{image}\n")
    project.write("setup.sh", "exit 3")
    note = f"gone.py is not in the project; if {unless}, the job fails"
    planned = project.inv("plan", "--", "python3", "gone.py")
    done = project.inv("run", "--", "python3", "gone.py")
    other = project.inv("plan", "--", "sh", "job.sh")

    assert note in planned.out
    assert 1 == done.err.count(note), done.err
    assert done.err.index(note) < done.err.index("onebox  census/main")
    assert "would refuse" not in planned.out or "no such image" in planned.err
    assert "the job fails" not in other.out
    as_json = project.inv("plan", "--json", "--", "python3", "gone.py")
    assert [note] == json.loads(as_json.out)["notes"]


def test_refusal_is_printed_once_on_a_terminal(project: Project) -> None:
    """The error's line only points at the plan above it."""
    project.write("onebox.toml", "")
    program, *words = project.argv("plan")
    child = pexpect.spawn(
        program,
        words,
        cwd=str(project.root),
        env=project.environ,
        dimensions=(50, 200),
        encoding="utf-8",
        timeout=60,
    )
    child.expect(pexpect.EOF)
    child.close()

    assert 78 == child.exitstatus
    assert 1 == child.before.count("there is nothing to run")
    assert "it would not start; the lines with" in child.before


def test_json_spells_commands_as_the_program_does(project: Project) -> None:
    """The next command is one that the caller can type."""
    project.write("onebox.toml", "")
    done = project.onebox("plan", "--json")

    (refusal,) = json.loads(done.out)["refusals"]
    assert "onebox run -- python job.py" in refusal["next"]


def test_script_on_an_existing_box_is_not_refused(project: Project) -> None:
    """It may have been put there by hand."""
    project.write("onebox.toml", '[run]\ncommand = "python3 made.py"\n')
    assert 0 == project.inv("provision").code
    project.inv("ssh", "--", "echo 'print(7)' >made.py")

    assert 0 == project.inv("plan").code
    assert "7\n" == project.inv("run").out


def test_dry_line_shows_each_stage_once(project: Project) -> None:
    """The plan of a stage covers the stages it needs."""
    done = project.inv("--dry", "provision", "push")

    names = [line.split()[0] for line in done.out.splitlines() if " would " in line]
    assert (0, ["provision", "push"]) == (done.code, names), done.out
    assert 1 == done.out.count("\nimage ")


def test_plan_asks_the_question_of_run(project: Project) -> None:
    """`run` asks before it runs a command again that has succeeded."""
    project.inv("run", "--detach")
    assert 0 == project.inv("logs").code
    done = project.inv("plan")

    assert 0 == done.code, done.err
    assert "has succeeded with this command" in done.out
    assert "has succeeded" not in project.inv("--dry", "run", "--", "true").out


def test_plan_of_another_command(project: Project) -> None:
    """`inv plan -- …` is the plan of `inv run -- …`, word for word."""
    project.write("onebox.toml", "")
    words = ["--", "sh", "job.sh", "two words"]
    planned, dry = project.inv("plan", *words), project.inv("--dry", "run", *words)

    assert (0, 0) == (planned.code, dry.code), planned.err
    assert "would run  sh job.sh 'two words' (" in planned.out
    assert planned.out == dry.out


def test_plan_does_not_take_the_headline_of_the_run(project: Project) -> None:
    """The plan's headline is on stdout, that of the run on stderr."""
    project.write(
        "tasks.py",
        "from invoke import task\nfrom onebox import *\n"
        "@task\ndef planned(c):\n    plan(c)\n    run(c)\n",
    )
    done = project.inv("planned")

    assert (0, 1) == (done.code, done.out.count("no charge")), done.out
    assert "no charge" in done.err


def test_big_push_shows_its_folders_and_time(project: Project) -> None:
    """
    The time comes from the last push; before that it is labelled as an example.

    A big file of the project folder itself is named: it may be there by mistake.
    """
    for name, size in (("a/b/c/x", 40), ("a/y", 30), ("z", 1)):
        with project.write(name, b"").open("wb") as file:
            file.truncate(size << 20)
    planned = project.inv("plan")
    pushed = project.inv("push")
    again = project.inv("plan")
    project.inv("teardown")
    last = project.inv("plan")

    text = "71.0 MB: a/b/ 40 MB, a/ 30 MB, z 1 MB; "
    guess = "about 7.1 s at a guess of 10 MB/s"
    assert f"sends {text}{guess}" in planned.out
    assert f"sending {text}{guess}" in pushed.err
    assert "sends" not in again.out
    assert f"sends {text}about " in last.out
    assert "/s of the last push" in last.out


def test_caches_are_counted_and_not_on_the_box(project: Project) -> None:
    """The line of a push and that of its plan name them."""
    for name in (".venv/bin/python", "src/__pycache__/a", "__pycache__/b"):
        project.write(name, "x")
    project.write("job.sh", "mkdir -p results; find . -name '*py*'")
    planned = project.inv("plan")
    done = project.inv("run")

    text = "caches not pushed: .venv/ (1 file), __pycache__/ (2 files)"
    assert (text in planned.out, text in done.err) == (True, True), done.err
    assert "tasks.py\n" in done.out
    assert "cache" not in done.out


def test_plan_is_a_value(project: Project) -> None:
    """It can be printed as JSON, and is the same without a terminal."""
    context = BoxContext.open(
        str(project.root), project.environ, {}, Invocation("inv plan")
    )
    found = plan.find(context, ["image", "provision", "push", "run"])
    document = json.loads(json.dumps(asdict(found)))

    assert "sh job.sh" == document["command"]
    assert ["results/"] == document["outputs"]
    assert 3 == document["push"]["files"]
    assert 0 == document["box"]["at_most_usd"]
    assert 0 == found.exit_code
    assert TOML == project.read("onebox.toml")


def test_plan_of_a_shell_line_is_that_of_run(project: Project) -> None:
    """`--command` is planned as `run` takes it, and so are words after `--`."""
    line = project.inv("plan", "--command=cd / && ls", "--json")
    words = project.inv("plan", "--json", "--", "echo", "a b")

    assert "cd / && ls" == json.loads(line.out)["command"]
    assert "echo 'a b'" == json.loads(words.out)["command"]
