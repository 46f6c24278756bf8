"""What a message tells the user to type is complete and fits what was typed."""

from __future__ import annotations

import json

import pytest

import onebox.tasks
from onebox.flags import EXAMPLES
from tests.conftest import TOML, Project
from tests.system.lines import let_job_continue


def test_each_flag_with_a_value_has_an_example() -> None:
    """`--since` alone names a value that can be typed."""
    flags = {
        f"--{argument.names[0]}"
        for task in onebox.tasks.ns.tasks.values()
        for argument in task.get_arguments()
        if argument.takes_value and not argument.positional
    }

    assert flags <= EXAMPLES.keys()
    assert {"--since", "--forward", "--vm"} <= flags


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flag", "step"),
    [
        ("--provider=azure", "for example --provider="),
        ("--name=a b", "for example --name="),
        ("--profile=gpu", "add [profile.NAME] to onebox.toml, or leave it out"),
    ],
)
def test_wrong_value_has_a_next_step(project: Project, flag: str, step: str) -> None:
    """It is an example, or what is missing."""
    done = project.onebox("run", flag)

    assert 78 == done.code
    assert f"\n  next: {step}" in done.err


@pytest.mark.fast
def test_missing_file_of_a_setting_has_a_next_step(project: Project) -> None:
    """The place of the setting is named."""
    project.write("onebox.toml", TOML + '[image]\nrequirements = "reqs.txt"\n')
    done = project.onebox("run")

    assert 66 == done.code
    assert "\n  next: create it, or correct onebox.toml:" in done.err


def test_provider_that_was_not_checked_is_named(project: Project) -> None:
    """Its name is known, so no part of the command is left out."""
    done = project.onebox("cleanup", "--provider=aws")

    assert 70 == done.code
    assert "  next: onebox doctor --provider=aws\n" in done.err


def test_note_on_ssh_names_no_program_that_was_not_typed(project: Project) -> None:
    """The user typed onebox."""
    done = project.onebox("ssh", "--install")

    assert 0 == done.code, done
    assert "after the last job or command of onebox; onebox ssh keeps" in done.err
    assert "inv" not in done.err


def test_missing_output_is_not_called_empty(project: Project) -> None:
    """An output may be a file that the job has not written."""
    project.write("onebox.toml", TOML.replace('["results/"]', '["model.pkl", "out/"]'))
    done = project.inv("run", "--keep", "--", "true")

    assert 0 == done.code, done
    assert "no outputs: out/ is empty, model.pkl is not on the box" in done.err


def test_busy_box_offers_the_queue_to_run_only(project: Project) -> None:
    """The command that it names works."""
    project.write("job.sh", "echo up; while [ ! -e go ]; do sleep 0.1; done; rm go")
    project.inv("run", "--detach")
    done = project.inv("run", "--only", "--", "true")
    assert 75 == done.code
    assert "  next: inv run --only --queue waits for it, then runs\n" in done.err
    line = project.start("run", "--only", "--queue", "--", "true")
    project.until("waits for its turn")
    let_job_continue(project)

    assert 0 == line.wait(60), project.err


def test_cleanup_names_the_images_and_what_they_cost(project: Project) -> None:
    """They cost money every month, so they are resources."""
    project.inv("provision")
    for name in ("geo", "bio"):
        assert 0 == project.inv("image", "--from-box", f"--as={name}").code
    project.inv("teardown", "--discard-outputs", "--yes")
    shown = project.onebox("cleanup").out
    images = json.loads(project.inv("cleanup", "--json").out)["images"]

    assert "2 images at local, $0 a month: onebox image --list\n" in shown
    assert "no other resources" not in shown
    assert [("local", 2, 0)] == [
        (one["provider"], one["count"], one["monthly_usd"]) for one in images
    ]
