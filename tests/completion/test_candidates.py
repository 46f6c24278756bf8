"""What `onebox --complete` prints: it asks no provider and never fails."""

from __future__ import annotations

import pytest

from tests.conftest import Project


def complete(project: Project, line: str) -> list[str]:
    """Return the words that can stand at the end of a line."""
    done = project.onebox("--complete", "--", line)
    assert (0, "") == (done.code, done.err)
    return [shown.partition("\t")[0] for shown in done.out.splitlines()]


def test_only_the_names_that_begin_so_are_offered(project: Project) -> None:
    """Tasks and flags of the task are offered, each with a description."""
    assert ["provision", "push", "plan"] == sorted(
        complete(project, "onebox p"), key=["provision", "push", "plan"].index
    )
    assert ["--spot"] == complete(project, "onebox push run --s")
    assert "run\tRun the job" in project.onebox("--complete", "--", "onebox r").out


@pytest.mark.parametrize(
    "line", ["onebox run python --v", "onebox run -- p", "onebox nothing ", "onebox ' "]
)
def test_nothing_is_offered_within_a_command_or_after_a_mistake(
    project: Project, line: str
) -> None:
    """The shell then completes files."""
    assert [] == complete(project, line)


def test_a_damaged_project_still_completes(project: Project) -> None:
    """
    A mistake in onebox.toml leaves the built-in sizes, one in tasks.py the tasks of
    onebox; no message is printed.
    """
    project.write("onebox.toml", "[runn\n")
    project.write("tasks.py", "import onebox\nonebox.no_such_stage\n")

    assert ["--vm=medium"] == complete(project, "onebox run --vm=m")
    assert [] == complete(project, "onebox run --name=")
    assert ["--provider=local"] == complete(project, "onebox run --provider=l")


def test_no_provider_is_loaded(project: Project) -> None:
    """Values are known without a call, and without an SDK."""
    (project.home / "sitecustomize.py").write_text(
        "import sys\nfor name in ('boto3', 'google.cloud', 'rich'):\n"
        "    sys.modules[name] = None\n"
    )
    project.write("onebox.toml", 'provider = "aws"\n')
    env = {"PYTHONPATH": str(project.home)}
    for flag in ("vm", "name", "provider", "as"):
        line = f"onebox image --{flag}="
        done = project.onebox("--complete", "--", line, env=env)
        assert (0, "") == (done.code, done.err)


def test_saved_images_are_known_by_name(project: Project) -> None:
    """A listing of images is remembered for the next completion."""
    assert 0 == project.inv("provision").code
    saved = project.inv("image", "--from-box", "--as=geo", "--yes")
    assert 0 == saved.code, saved.err
    assert 0 == project.inv("image", "--list").code

    assert ["--as=geo"] == complete(project, "onebox image --prune --as=")
    assert ["--name=main"] == complete(project, "onebox ssh --name=")
    assert 0 == project.inv("teardown").code
    assert 0 == project.inv("image", "--prune", "--as=geo", "--yes").code
    assert 0 == project.inv("image", "--list").code
    assert [] == complete(project, "onebox image --prune --as=")


def test_an_unknown_shell_is_a_mistake(project: Project) -> None:
    """The message names the shells."""
    done = project.onebox("--print-completion-script", "tcsh")

    assert 64 == done.code
    assert "bash, zsh, fish" in done.err


def test_profiles_of_both_files_are_offered(project: Project) -> None:
    """A profile comes with the names of its settings, a mistake beside it or not."""
    project.write(
        "onebox.toml", '[profile.gpu]\nvm = "xlarge"\nspot = true\n[runn]\nx = 1\n'
    )
    user = project.home / "config" / "config.toml"
    user.parent.mkdir(exist_ok=True)
    user.write_text('[profile.cheap]\nspot = true\n[profile.gpu]\nprovider = "aws"\n')
    done = project.onebox("--complete", "--", "onebox run --profile=")

    assert done.out.splitlines() == [
        "--profile=gpu\tvm, spot, provider",
        "--profile=cheap\tspot",
    ]


def test_jobs_are_offered_newest_first_with_their_commands(project: Project) -> None:
    """A damaged receipt leaves the id; a link that a clone brought is not followed."""
    jobs = project.root / ".onebox" / "jobs"
    for job, text in (
        ("20260101-000000-aaaa", '{"command": "sh \\u001b[2J a\\tb"}'),
        ("20260102-000000-bbbb", '{"command": "python x.py"}'),
        ("20260103-000000-cccc", "{"),
    ):
        (jobs / job).mkdir(parents=True)
        (jobs / job / "receipt.json").write_text(text)
    (jobs / "other").mkdir()
    line = "onebox logs --job="
    found = [
        row.split("\t")
        for row in project.onebox("--complete", "--", line).out.splitlines()
    ]

    assert [
        ["--job=20260103-000000-cccc", ""],
        ["--job=20260102-000000-bbbb", "python x.py"],
        ["--job=20260101-000000-aaaa", r"sh \x1b[2J a b"],
    ] == found
    (project.root / ".onebox").rename(project.root / "elsewhere")
    (project.root / ".onebox").symlink_to("elsewhere")
    assert [] == complete(project, line)
