"""A mistake in a command line gets one line that says what to type."""

from __future__ import annotations

import json
import shlex

import pytest

from onebox.flags import MODES
from onebox.tasks import ns
from tests.conftest import Project

OWN = """\
from invoke import task
from onebox import *
@task
def train(c, epochs=3):
    print("trained", epochs)
@stage(push, takes_command=True)
def study(c, depth="1"):
    pass
"""
BOXED = """\
from invoke import Collection
import onebox
ns = Collection(box=onebox.ns)
"""


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("run python train.py", "run -- python train.py"),
        ("push run --keep sh x --n=3", "push run --keep -- sh x --n=3"),
        ("run python x -- y 'a  b'", "run -- python x -- y 'a  b'"),
        ("-e run python x", "-e run -- python x"),
        ("ssh htop -d 3", "ssh -- htop -d 3"),
        ("python train.py", "run -- python train.py"),
        ("study sh x", "study -- sh x"),
        ("rnu", "run"),
        ("push fecth", "push fetch"),
        ("train rnu", "train run"),
        ("run --nmae=x", "run --name=x"),
        ("plan --spott", "plan --spot"),
        ("study --dept=3", "study --depth=3"),
        ("run -vm large", "run --vm=large"),
        ("-vm large run", "run --vm=large"),
        ("run -vm=large --nmae=x", "run --vm=large --name=x"),
        ("run --mv=large", "run --vm=large"),
        ("run --mv large python job.py", "run --vm large -- python job.py"),
        ("run -dry", "run --dry"),
        ("run --spot=yes", "run --spot"),
        ("--vm=large push run", "push --vm=large run"),
        ("plan study --graph", "plan --graph"),
        ("logs push --tail 3", "logs --tail=3 push"),
        ("plan study --command 'a b' --graph", "plan '--command=a b'"),
        ("exec -c 'a b'", "exec '--command=a b'"),
        ("help run", "--help run"),
    ],
)
def test_the_line_that_was_meant_is_named(
    project: Project, typed: str, meant: str
) -> None:
    """The exit code is 64, and nothing runs."""
    project.write("tasks.py", OWN)
    done = project.inv(*shlex.split(typed))

    assert (64, "") == (done.code, done.out)
    assert done.err.startswith("onebox[64]: ")
    assert f"\n  did you mean: inv {meant}\n" in done.err
    assert [] == project.boxes()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "example"),
    [
        ("run --vm", "--vm=large"),
        ("run --vm=", "--vm=large"),
        ("run --vm --dry", "--vm=large"),
        ("push --name --only run", "--name=second"),
        ("run -vm", "--vm=large"),
        ("run --into --dry", "--into=results-2"),
        ("run --command", "--command='python job.py'"),
        ("study --depth", "--depth=…"),
        ("run --command ''", "--command='python job.py'"),
    ],
)
def test_a_flag_without_a_value_is_refused_with_an_example(
    project: Project, line: str, example: str
) -> None:
    """No word that follows is taken as the value by mistake."""
    project.write("tasks.py", OWN)
    done = project.inv(*shlex.split(line))

    flag = example.partition("=")[0]
    assert (64, "") == (done.code, done.out)
    assert f"onebox[64]: {flag} needs a value, for example {example}\n" == done.err


@pytest.mark.fast
def test_lines_without_a_stage_keep_what_invoke_does(project: Project) -> None:
    """Tasks that are not of onebox have Invoke's messages and exit code."""
    project.write("tasks.py", OWN)
    for line in ("train --epoch=4", "train nothing", "nothing"):
        done = project.inv(*line.split())
        assert (1, "") == (done.code, done.out)
        assert done.err.startswith("No idea what ")
    assert "trained 4\n" == project.inv("train", "--epochs=4").out
    assert "trained 4\n" == project.inv("train", "-e", "4").out


@pytest.mark.fast
def test_names_of_a_namespace_are_suggested(project: Project) -> None:
    """The suggested line works in a project whose tasks have a namespace."""
    project.write("tasks.py", BOXED)
    for typed, meant in (
        ("box.run python x", "box.run -- python x"),
        ("box.rnu", "box.run"),
        ("box.plan --spott", "box.plan --spot"),
        ("python x", "box.run -- python x"),
    ):
        done = project.inv(*typed.split())
        assert 64 == done.code
        assert f"did you mean: inv {meant}\n" in done.err


@pytest.mark.fast
def test_a_task_of_several_namespaces_names_all_of_them(project: Project) -> None:
    """No namespace is nearer than another, so the user chooses."""
    second = 'ns.add_collection(onebox.collection("gpu.toml"), name="gpu")\n'
    project.write("tasks.py", f"{BOXED}{second}")
    done = project.inv("run", "--vm=large")
    assert 64 == done.code
    assert 'there is no task "run"\n' in done.err
    lines = "inv box.run --vm=large or inv gpu.run --vm=large"
    assert f"did you mean: {lines}\n" in done.err


@pytest.mark.fast
def test_no_class_name_and_no_traceback_is_shown(project: Project) -> None:
    """This holds for flags, values and tasks that do not exist."""
    for line in ("run --vm", "run --bad", "push zzz", "run -z", "image --as"):
        done = project.inv(*line.split())
        assert 64 == done.code
        assert "did you mean" not in done.err
        assert not {"<", "Argument", "Traceback", "No idea"} & set(done.err.split())
        assert "Argument" not in done.err


def test_a_line_for_a_shell_after_dashes_is_refused(project: Project) -> None:
    """No box is created; the hint has `--command=` and the other flags."""
    for line in ("cd a && sh job.sh", "echo x > f", "echo it's", "ls|wc"):
        done = project.inv("run", "--name=b", "--", line)
        quoted = shlex.quote(line)
        assert 64 == done.code
        assert "one word" in done.err
        assert f"next: inv run --command={quoted} --name=b\n" in done.err
    assert [] == project.boxes()


def test_a_file_with_a_space_in_its_name_is_a_program(project: Project) -> None:
    """One word with a space is a command if the project has such a file."""
    project.write("my job.sh", "#!/bin/sh\necho ran\n").chmod(0o755)

    assert "ran\n" == project.inv("run", "--", "./my job.sh").out


def test_what_has_no_effect_on_this_machine_is_said_in_one_line(
    project: Project,
) -> None:
    """It is no error, because a run on a cloud is rehearsed so."""
    planned = project.inv("plan", "--spot", "--vm=m7i.4xlarge")

    assert 0 == planned.code
    assert "--spot: local has no spot capacity" in planned.out
    assert "inv run --provider=aws --vm=m7i.4xlarge" in planned.out
    plain = project.inv("plan", "--vm=large").out
    assert "spot" not in plain and "aws" not in plain


@pytest.mark.fast
def test_users_own_task_with_an_earlier_name_is_theirs(project: Project) -> None:
    """`sweep` was a task of onebox; a user's task of that name replaces nothing."""
    project.write("tasks.py", f"{OWN}@task\ndef sweep(c):\n    print('mine')\n")

    assert "mine\n" == project.inv("sweep").out
    assert "you have no boxes" in project.inv("cleanup").out


@pytest.mark.parametrize(
    ("line", "changing", "instead"),
    [
        ("plan teardown", "teardown", ("inv plan", "inv teardown")),
        ("teardown plan", "teardown", ("inv plan", "inv teardown")),
        ("plan cleanup --yes", "cleanup", ("inv plan", "inv cleanup --yes")),
        (
            "plan push run --keep",
            "push and run",
            ("inv plan", "inv push run --keep"),
        ),
        ("status plan mine", "mine", ("inv plan", "inv status mine")),
        (
            "run --vm=large plan --name plan -- python x.py",
            "run",
            (
                "inv plan --name plan --vm=large -- python x.py",
                "inv run --vm=large --name=plan -- python x.py",
            ),
        ),
    ],
)
def test_plan_is_refused_on_a_line_that_changes_something(
    project: Project, line: str, changing: str, instead: tuple[str, str]
) -> None:
    """A plan changes nothing; each part of the line is a line of its own."""
    project.write(
        "tasks.py", "from onebox import *\n@stage(push)\ndef mine(c): print('ran')\n"
    )
    project.inv("provision")
    boxes = project.boxes()
    done = project.inv(*line.split())

    assert (64, "") == (done.code, done.out)
    assert done.err.splitlines() == [
        f"onebox[64]: plan changes nothing, so {changing} cannot be on the same line",
        f"  next: {instead[0]}",
        f"        {instead[1]}",
    ]
    assert boxes == project.boxes()


@pytest.mark.parametrize(
    "line",
    ["plan status", "plan cleanup", "--dry plan run", "plan say", "plan --graph"],
)
def test_plan_is_allowed_with_tasks_that_change_nothing(
    project: Project, line: str
) -> None:
    """A user's own plain task decides for itself."""
    project.write(
        "tasks.py",
        "from invoke import task\nfrom onebox import *\n"
        "@task\ndef say(c): print('said')\n",
    )
    done = project.inv(*line.split())

    assert 0 == done.code, done.err
    assert [] == project.boxes()


def test_program_splits_a_line_with_plan_too(project: Project) -> None:
    """The command of `onebox` needs no dashes, and both lines have it."""
    done = project.onebox("plan", "run", "python", "x.py")

    assert 64 == done.code
    assert "  next: onebox plan -- python x.py\n" in done.err
    assert "        onebox run -- python x.py\n" in done.err


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("count --epochs=x", "--epochs: expected a whole number, got 'x'"),
        ("count --epochs 1.5 --bad", "--epochs: expected a whole number, got '1.5'"),
        ("count --rate=x", "--rate: expected a number, got 'x'"),
        ("count -T x", "-T: expected a whole number, got 'x'"),
    ],
)
def test_a_value_that_is_no_number_is_named_with_its_flag(
    project: Project, line: str, problem: str
) -> None:
    """This holds for a stage's own flags and for those of Invoke, without traceback."""
    project.write(
        "tasks.py", f"{OWN}@stage(push)\ndef count(c, epochs=3, rate=.1): 0\n"
    )
    for program, done in (
        ("inv", project.inv(*line.split())),
        ("onebox", project.onebox(*line.split())),
    ):
        assert (64, "") == (done.code, done.out)
        next = f"  next: {program} --help count\n"
        assert f"onebox[64]: {problem}\n{next}" == done.err


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "problem", "meant"),
    [
        ("run --vm large --vm small", "--vm is given twice: large, small", "--vm"),
        ("run --vm=large --vm=push", "--vm is given twice: large, push", "--vm"),
        ("push run --name a --name=b", "--name is given twice: a, b", "--name"),
        ("run --name a --name b --vm=c rnu", "--name is given twice: a, b", ""),
    ],
)
def test_a_flag_with_two_values_is_refused(
    project: Project, line: str, problem: str, meant: str
) -> None:
    """Both lines that may have been meant are named; no value is taken as a task."""
    done = project.inv(*line.split(), "--", "sh", "job.sh")

    assert (64, "") == (done.code, done.out)
    assert done.err.startswith(f"onebox[64]: {problem}\n  did you mean: inv ")
    assert done.err.endswith(" -- sh job.sh\n")
    assert [] == project.boxes()
    if meant:
        both = done.err.partition("did you mean: ")[2].split(" or ")
        assert [1, 1] == [typed.count(meant) for typed in both]


@pytest.mark.fast
def test_the_program_keeps_the_command_of_a_line_with_a_flag_twice(
    project: Project,
) -> None:
    """The command of `onebox` needs no dashes."""
    done = project.onebox("run", "--vm=a", "--vm", "b", "python", "job.py", "--vm=c")
    lines = "onebox run --vm=a -- python job.py --vm=c or onebox run --vm b -- python"

    assert 64 == done.code
    assert f"--vm is given twice: a, b\n  did you mean: {lines}" in done.err


@pytest.mark.fast
def test_a_flag_that_may_have_several_values_is_no_mistake(project: Project) -> None:
    """`ssh --forward` is one; it fails because there is no box."""
    done = project.inv("ssh", "--forward=8080", "--forward", "8081")

    assert "there is no box" in done.err


@pytest.mark.fast
def test_a_flag_of_other_tasks_names_them(project: Project) -> None:
    """Each task is named once, and no line is suggested that would be refused."""
    done = project.onebox("run", "--json")

    assert 64 == done.code
    assert '"kind": "UsageError"' in done.out
    alone = project.onebox("--json").err
    assert (
        "--json belongs after the task\n  did you mean: onebox status --json" in alone
    )
    assert (
        "run has no flag --json; cleanup, doctor, history, image, offers, plan and "
        "status have it\n  next: onebox --help run\n"
    ) in done.err


@pytest.mark.fast
def test_wrong_flag_of_a_task_is_not_taken_for_the_list_of_tasks(
    project: Project,
) -> None:
    """`--list` after a task would print the list, and exit with 0."""
    done = project.inv("logs", "--last")

    assert 64 == done.code
    assert "logs has no flag --last\n  next: inv --help logs\n" in done.err


@pytest.mark.fast
def test_a_setting_that_is_typed_as_a_flag_is_named(project: Project) -> None:
    """The line and the variable can be copied; `run` has no flag for each setting."""
    done = project.onebox("run", "--max-hours=2")

    assert 64 == done.code
    assert "onebox[64]: run has no flag --max-hours; it is a setting\n" in done.err
    assert (
        "next: [limits] max_hours in onebox.toml, or ONEBOX_LIMITS_MAX_HOURS=2\n"
    ) in done.err
    assert "setting" not in project.onebox("run", "--zzz=2").err


@pytest.mark.fast
def test_the_version_has_no_other_short_flag(project: Project) -> None:
    """`-V` is Invoke's."""
    assert project.onebox("-V").out.startswith("onebox ")
    assert "did you mean: onebox --version\n" in project.onebox("-v").err


@pytest.mark.fast
@pytest.mark.parametrize("task", ["run", "exec", "plan"])
def test_an_empty_command_is_refused(project: Project, task: str) -> None:
    """No box is created for it, and the usual command does not run instead."""
    for words in (["--", ""], ["--", " "], ["--command=  "]):
        for run in (project.inv, project.onebox):
            done = run(task, *words)
            assert (64, "") == (done.code, done.out)
            assert "onebox[64]: the command is empty\n" in done.err
    assert 64 == project.onebox(task, "").code
    assert 64 == project.onebox(task, "--command", "").code
    assert [] == project.boxes()


@pytest.mark.fast
def test_a_name_for_no_image_is_refused(project: Project) -> None:
    """The line that names an image is in the message, and can be copied."""
    done = project.inv("image", "--as=a b")
    assert (64, "") == (done.code, done.out)
    assert done.err == (
        "onebox[64]: --as goes with --from-box or --prune\n"
        "  did you mean: inv image --from-box '--as=a b' or inv image --prune "
        "'--as=a b'\n"
    )


@pytest.mark.fast
def test_a_hint_about_a_document_is_about_a_document(project: Project) -> None:
    """The hint keeps `--json`, in the document too."""
    for task in ("history", "offers"):
        done = project.inv(task, "--json", "--limit=a")
        assert 64 == done.code
        assert f'"next": "inv {task} --limit=20 --json"' in done.out
        assert f"next: inv {task} --limit=20\n" in (project.inv(task, "--limit=a").err)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "problem", "meant"),
    [
        (
            "ssh --install --uninstall",
            "--install does not go with --uninstall",
            "ssh --install or onebox ssh --uninstall",
        ),
        ("ssh --install -- ls", "ssh --install takes no command", "ssh --install"),
        ("ssh --install extra", "ssh --install takes no command", "ssh --install"),
        (
            "push ssh --forward=1 --install",
            "--install does not go with --forward",
            "push ssh --install",
        ),
        (
            "doctor --settings --policy",
            "--policy does not go with --settings",
            "doctor --policy or onebox doctor --settings",
        ),
        (
            "doctor --policy --json",
            "--policy does not go with --json",
            "doctor --policy",
        ),
        (
            "image --list --prune --yes",
            "--list does not go with --prune",
            "image --list --yes or onebox image --prune --yes",
        ),
        ("image --json", "--json goes with --list", "image --list --json"),
        ("image --all", "--all goes with --prune", "image --prune --all"),
        (
            "image --list --as x",
            "--list does not go with --as",
            "image --list",
        ),
        (
            "cleanup --print-cron --yes",
            "--print-cron does not go with --yes",
            "cleanup --print-cron",
        ),
        ("init --force --example", "--example does not go with --force", None),
        ("plan --graph -- cmd", "plan --graph takes no command", "plan --graph"),
        ("plan --graph --command=x", "--graph does not go with --command", None),
        (
            "teardown --all --name=b --yes",
            "--all does not go with --name",
            "teardown --all --yes or onebox teardown --name=b --yes",
        ),
        (
            "map --failed --again --keep",
            "--again does not go with --failed",
            "map --again --keep or onebox map --failed --keep",
        ),
        (
            "run --keep --command=x -- y",
            "--command does not go with a command after it",
            "run --keep -- y or onebox run --keep --command=x",
        ),
        ("exec --command=x y", "--command does not go with a command after it", None),
        ("status -- ls", "status takes no command", "status"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(
    project: Project, typed: str, problem: str, meant: str | None
) -> None:
    """None of them is ignored, and nothing runs."""
    done = project.onebox(*shlex.split(typed))

    assert 64 == done.code
    assert f"onebox[64]: {problem}\n" in done.err
    assert not done.out or "--json" in typed
    if meant is not None:
        assert f"  did you mean: onebox {meant}\n" in done.err


@pytest.mark.fast
@pytest.mark.parametrize(
    "typed",
    [
        "image --list --name=a",
        "push ssh --install run --dry -- ls",
        "status history",
        "train -- ls",
    ],
)
def test_parts_that_fit_are_left_alone(project: Project, typed: str) -> None:
    """A command belongs to a task that takes one, or to one of the user."""
    project.write("tasks.py", OWN)
    done = project.onebox(*shlex.split(typed), "--help" if "list" in typed else "-e")

    assert "takes no command" not in done.err
    assert "does not go with" not in done.err


@pytest.mark.fast
@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("cleanup --print-cron --json", "--print-cron does not go with --json"),
        ("status --json history", "with --json, stdout has one document"),
        ("history status --json", "with --json, stdout has one document"),
        ("run status --json -- ls", "with --json, stdout has one document"),
        ("plan --json=1", "--json takes no value"),
    ],
)
def test_wrong_line_with_a_document_prints_one_document(
    project: Project, typed: str, problem: str
) -> None:
    """It is the error, and nothing else is on stdout."""
    done = project.onebox(*shlex.split(typed))
    document = json.loads(done.out)

    assert 64 == done.code == document["error"]["exit"]
    assert document["error"]["message"].startswith(problem)
    assert f"onebox[64]: {problem}" in done.err


def test_modes_name_flags_of_their_tasks() -> None:
    """The table of the modes is about flags that exist."""
    for task, modes in MODES.items():
        flags = {
            argument.name.strip("_").replace("_", "-")
            for argument in ns[task].get_arguments()
        }
        for flag, mode in modes.items():
            named = {flag, *(mode.beside or ()), *mode.without} - {""}
            assert named <= flags, (task, named - flags)


@pytest.mark.fast
@pytest.mark.parametrize("task", ["history", "offers"])
def test_endless_number_means_all(project: Project, task: str) -> None:
    """Python itself converts no number of so many digits."""
    done = project.inv(task, f"--limit={'9' * 5000}")

    assert 0 == done.code, done.err
