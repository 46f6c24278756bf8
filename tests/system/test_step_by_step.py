"""Stages typed one at a time, plans and images."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import Project
from tests.system.lines import finished_stages


def test_stages_can_be_typed_one_at_a_time(project: Project) -> None:
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


def test_plan_without_an_image_names_the_python_of_the_job(project: Project) -> None:
    """Without a recipe the job uses the Python of this machine."""
    python = "{}.{}".format(*sys.version_info)
    for text, nothing in (
        ("", "no [image] settings"),
        ('[image]\nbase = "debian-12"\n', "[image] installs nothing"),
    ):
        project.write("onebox.toml", text + '[run]\ncommand = "true"\n')
        line = f"{nothing}; using this machine's Python {python}"
        assert line in project.inv("plan").out


def test_only_without_a_box_is_refused(project: Project) -> None:
    """`--only` creates no box."""
    done = project.inv("run", "--only")

    assert 64 == done.code
    assert "there is no box" in done.err
    assert [] == project.boxes()


def test_keep_leaves_the_box_and_names_its_cost_and_end(project: Project) -> None:
    """`--keep` prints price and deadline."""
    done = project.inv("run", "--keep")

    assert 0 == done.code
    assert "teardown" in done.err.splitlines()[-1]
    assert 1 == len(project.boxes())


def test_discarding_outputs_needs_a_typed_id_or_yes(project: Project) -> None:
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


def test_status_and_cleanup_list_the_box(project: Project) -> None:
    """An expired box is deleted with --yes."""
    assert "no box is up" in project.inv("status").out
    project.inv("provision")
    (box,) = project.boxes()
    assert box in project.inv("status").out
    shown = project.inv("cleanup", "--yes")
    assert box in shown.out
    assert "nothing has expired" in shown.err
    assert [box] == project.boxes()


def test_doctor_checks_everything_a_run_needs(project: Project) -> None:
    """All checks pass on this machine."""
    done = project.inv("doctor")

    assert 0 == done.code, done.out
    assert "\n                   out of reach: your home folder\n" in done.out


def test_local_box_gets_the_users_proxy_variables(project: Project) -> None:
    """Jobs and sessions get them, and no other variables."""
    project.write(
        "job.sh", 'echo "<$https_proxy$NO_PROXY$STRAY>"; echo 1 > results/x\n'
    )
    env = {"https_proxy": "http://a:1", "NO_PROXY": "b", "STRAY": "c"}

    done = project.inv("provision", "push", "run", env=env)

    assert 0 == done.code, done.err
    assert "<http://a:1b>" in done.out


def test_init_writes_a_valid_file_and_never_replaces_one(project: Project) -> None:
    """An existing onebox.toml stays."""
    refused = project.inv("init")
    assert 64 == refused.code
    (project.root / "onebox.toml").unlink()
    done = project.inv("init")
    assert 0 == done.code
    assert "next: set [run] command in onebox.toml, then inv plan" not in done.err
    assert ".onebox/" in project.read(".gitignore").splitlines()
    assert 0 == project.inv("plan").code or "command" in project.inv("plan").err


@pytest.mark.fast
def test_plan_and_dry_run_print_the_same_and_change_nothing(project: Project) -> None:
    """`inv plan` and `inv --dry run` leave no trace."""
    plan = project.inv("plan")
    dry = project.inv("--dry", "run")

    assert (0, 0) == (plan.code, dry.code)
    assert plan.out == dry.out
    assert "there is no box census/main" in plan.out
    assert [] == project.boxes()
    assert not (project.root / ".onebox").exists()


def test_dry_holds_for_every_stage_of_a_line(project: Project) -> None:
    """No stage of the line changes anything."""
    done = project.inv("--dry", "provision", "push", "run", "teardown")

    assert 0 == done.code
    assert [] == project.boxes()


def test_plan_names_the_files_that_differ(project: Project) -> None:
    """The reason for a push has file names."""
    project.inv("run", "--keep")
    project.write("new.py", "pass\n")
    done = project.inv("plan")

    assert "new.py" in done.out


RECIPE = '[image]\nsetup = "setup.sh"\n[run]\ncommand = "hello"\n'


def test_recipe_is_built_once_and_is_in_every_box(project: Project) -> None:
    """What the recipe installs is in every later box."""
    project.write("onebox.toml", RECIPE)
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
    project: Project,
) -> None:
    """The builder is deleted."""
    project.write("onebox.toml", RECIPE)
    project.write("setup.sh", "echo getting there; echo no such thing >&2; exit 4")
    done = project.inv("run")

    assert 70 == done.code
    assert "no such thing" in done.err
    assert "setup.sh failed with exit 4" in done.err
    assert [] == project.boxes()


def test_box_set_up_by_hand_can_be_saved_and_used(project: Project) -> None:
    """`--from-box` saves it under a name that [image] use accepts."""
    project.inv("provision")
    project.inv("ssh", "--", "echo by hand > ~/note")
    done = project.inv("image", "--from-box", "--as=geo")
    assert 0 == done.code, done.err
    assert "geo" in project.inv("image", "--list").out
    project.inv("teardown")
    project.write(
        "onebox.toml", '[image]\nuse = "geo"\n[run]\ncommand = "cat ~/note"\n'
    )
    again = project.inv("run")
    assert (0, "by hand\n") == (again.code, again.out)


def test_push_to_a_new_box_has_no_changed_files(project: Project) -> None:
    """A link, which has no contents, is new too; a later push counts changes."""
    project.write("same", "sh job.sh\n")
    (project.root / "link").symlink_to("same")
    project.write("empty", "")
    first = project.inv("push")
    project.write("same", "other\n")
    second = project.inv("push")

    assert (0, 0) == (first.code, second.code)
    assert "6 files" in first.err
    assert "changed" not in first.err
    assert ", 1 changed" in second.err


def test_logs_proposes_the_fetch_only_if_it_is_needed(project: Project) -> None:
    """Outputs that are here are not to be fetched again."""
    assert 0 == project.inv("run", "--detach").code
    before = project.inv("logs")
    assert 0 == project.inv("fetch").code
    after = project.inv("logs")

    assert "then: inv fetch teardown\n" in before.err
    assert "then: inv teardown\n" in after.err
