"""A task that finds no box says which boxes there are, and what to type."""

from __future__ import annotations

import re
import shlex

import pexpect
import pytest

from tests.conftest import TOML, Project

NONE = "there is no box census/main"


def test_teardown_of_a_missing_box_names_the_other_one(project: Project) -> None:
    """It does not say that no box is left while one is up."""
    project.inv("provision", "--name=second")
    (box,) = project.boxes()
    done = project.inv("teardown")
    planned = project.inv("--dry", "teardown")

    assert (0, [box]) == (done.code, project.boxes())
    assert NONE in planned.out
    first, second, third = done.err.splitlines()
    assert first.endswith(NONE)
    assert "census/second is up: no charge, powers itself off in 8 h" in second
    assert third.strip() == "to remove it: inv teardown --name=second"


def test_box_of_another_name_in_the_same_line_is_named(project: Project) -> None:
    """The words are the same if this line has created the other box."""
    project.write(
        "tasks.py",
        "from onebox import *\n"
        "@stage\n"
        "def mixed(c):\n    provision(c, name='second')\n    teardown(c)\n",
    )
    done = project.inv("mixed")

    assert 0 == done.code, done.err
    assert f"{NONE}\n" in done.err
    assert "census/second is up: no charge" in done.err
    assert "no box is left" not in done.err


def test_held_outputs_are_reported_once_by_teardown_of_all(project: Project) -> None:
    """Each box that stays has one message, which names the command for it."""
    for name in ("a", "b"):
        project.inv("run", "--detach", f"--name={name}")
        project.inv("logs", f"--name={name}")
    done = project.inv("teardown", "--all")

    assert 73 == done.code
    assert 2 == done.err.count("onebox[73]: outputs on ob-"), done.err
    assert 2 == done.err.count(" are not fetched: "), done.err
    for name in ("a", "b"):
        assert f"next: inv fetch teardown --name={name}, or" in done.err
    # Another box of the line may have been removed.
    assert 2 == done.err.count("; the box stays\n"), done.err
    assert "nothing was removed" not in done.err


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (("cancel",), "inv status shows the boxes and their jobs"),
        (("logs",), "inv run starts a job"),
        (("top",), "inv provision creates a box"),
        (("exec", "--", "df", "-h"), "inv provision creates a box"),
        (("ssh", "--", "df", "-h"), "inv provision creates a box"),
        (("notebook", "--only"), "inv notebook without --only creates a box"),
        (("fetch",), "inv run runs the job and fetches its outputs"),
    ],
)
def test_each_task_names_what_to_type(
    project: Project, words: tuple[str, ...], without: str
) -> None:
    """The line is the one that was typed, with the name of the box that is up."""
    alone = project.inv(*words)
    # `logs` prints the log of an earlier job of this name itself.
    earlier = words != ("logs",)
    if earlier:
        project.write(".onebox/jobs/20260101-000000-0000/log", "")
    project.inv("provision", "--name=second")
    done = project.inv(*words)

    assert (64, 64) == (alone.code, done.code)
    assert NONE in alone.err
    assert f"next: {without}" in alone.err
    assert "inv history" not in alone.err
    command = " -- df -h" if "--" in words else ""
    assert f"  next: inv {words[0]} --name=second{command}\n" in done.err
    assert without in done.err
    assert "census/second is up: no charge, powers itself off in 8 h" in done.err
    assert earlier == ("inv history lists the earlier jobs" in done.err)


@pytest.mark.parametrize(
    "words",
    [
        ("logs", "--tail=abc"),
        ("logs", "--job=x"),
        ("ssh", "--forward=x"),
        ("offers", "--limit=x"),
        ("exec",),
        ("run", "--", "cd a && b"),
    ],
)
def test_mistake_in_a_flag_is_no_occasion_to_name_the_box(
    project: Project, words: tuple[str, ...]
) -> None:
    """Nothing began, so nothing is said about the box that is up."""
    project.inv("provision")
    wrong = project.inv(*words)
    later = project.inv("provision", *words)

    assert (64, 64) == (wrong.code, later.code)
    assert "still up" not in wrong.err
    assert "census/main (ob-" in later.err


def test_table_of_a_narrow_terminal_has_room_for_the_command(
    project: Project,
) -> None:
    """Columns that matter less are left out, and a long command is cut."""
    command = "true; " * 20
    project.write("onebox.toml", TOML.replace("sh job.sh", command))
    project.inv("run", "--keep")
    project.inv("provision", "--name=b")
    program, *words = project.argv("status")
    tables = []
    for columns in (80, 160):
        out, code = pexpect.run(
            shlex.join([program, *words]),
            cwd=str(project.root),
            env=project.environ,
            withexitstatus=True,
            dimensions=(40, columns),
        )
        assert 0 == code
        tables.append(re.sub(r"\x1b\[[\d;]*m", "", out.decode()).splitlines())
    narrow, wide = tables

    assert "type" not in narrow[0].split()
    assert {"type", "state", "command"} <= set(wide[0].split())
    assert max(map(len, narrow)) <= 80
    assert 3 == len(narrow) == len(wide)
    assert narrow[2].startswith("main ")
    assert "true; true" in narrow[2]
    assert "…" in narrow[2]


def test_status_shows_the_command(project: Project) -> None:
    """It is escaped, also if there are several boxes, and in the JSON document."""
    project.write("onebox.toml", TOML.replace("sh job.sh", "echo 'a\\tb'; true"))
    project.inv("run", "--detach")
    one = project.inv("status")
    project.inv("provision", "--name=b")
    both = project.inv("status")
    document = project.inv("status", "--json", "--name=main")

    assert "    command: echo 'a\\tb'; true\n" in one.out
    assert "    command: echo 'a\\tb'; true\n" in both.out
    assert r'''"command": "echo 'a\tb'; true"''' in document.out
