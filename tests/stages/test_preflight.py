"""What this machine alone can tell is refused before a box exists, in every command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onebox.images.stale_lock import missing
from tests.conftest import TOML, Project

JOB = '[run]\ncommand = "python3 job.py"\n'
LOCKED = Path(__file__).parents[1] / "images" / "locked"


def refused(
    project: Project, code: int, message: str, *, lines: tuple[str, ...]
) -> None:
    """Check that each line ends with *code* and *message*, and that no box exists."""
    for line in lines:
        done = project.onebox(line)

        assert code == done.code, (line, done)
        assert message in done.err + done.out, (line, done)
        assert [] == project.boxes()


def test_lock_that_lacks_a_package_is_refused(project: Project) -> None:
    """No image is built from it, and the message has the command that updates it."""
    project.write("onebox.toml", '[image]\nrequirements = "uv.lock"\n' + TOML)
    project.write("uv.lock", (LOCKED / "uv.lock").read_text())
    text = (LOCKED / "pyproject.toml").read_text()
    project.write("pyproject.toml", text.replace('["six"]', '["six", "tabulate>=0.9"]'))

    message = "uv.lock is older than pyproject.toml: it lacks tabulate"
    refused(project, 66, message, lines=("plan", "run", "image", "push"))
    assert "next: uv lock" in project.onebox("run").err
    refused(project, 78, message, lines=("doctor",))


@pytest.mark.parametrize(
    ("dependencies", "more", "expected"),
    [
        ('["six"]', "", []),
        (
            '["SIX>=1 ", \'Tabulate\', # why\n "a_b.c[x] (>=2)"]',
            "",
            ["Tabulate", "a_b.c"],
        ),
        # These may be left out of a lock, or are written in another way.
        ('["tabulate; python_version < \'3\'", "x @ https://h/x.whl"]', "", []),
        ('["tabulate", 7]', "", []),
        ('["census[plots]"]', "", []),
        (
            '["six"]',
            '[dependency-groups]\ndev = ["six", "ruff", {include-group="x"}]\n',
            ["ruff"],
        ),
        ('["six"]', '[dependency-groups]\nlint = ["ruff"]\n', []),
        (
            '["six"]',
            '[dependency-groups]\ndev = ["ruff"]\n[tool.uv]\ndefault-groups = []\n',
            [],
        ),
        ('["six"]', '[project.optional-dependencies]\nplots = ["tabulate"]\n', []),
    ],
)
def test_only_a_certain_lack_counts(
    dependencies: str, more: str, expected: list[str]
) -> None:
    """Markers, URLs, extras and groups that are not installed claim nothing."""
    text = (LOCKED / "pyproject.toml").read_text().replace('["six"]', dependencies)

    assert expected == missing(text + more, (LOCKED / "uv.lock").read_text())


def test_a_line_in_a_string_is_no_list_of_packages() -> None:
    """A description can have any lines; the list behind it counts."""
    lock = (LOCKED / "uv.lock").read_text()
    text = (LOCKED / "pyproject.toml").read_text()
    for quotes in ('"' * 3, "'" * 3):
        lines = f'{quotes}\ndependencies = ["foo"]\n[project]\n{quotes}'
        after = f"[project]\ndescription = {lines}  # {quotes}\n"
        changed = text.replace("[project]\n", after, 1)

        assert [] == missing(changed, lock)
        assert ["tabulate"] == missing(changed.replace('"six"', '"tabulate"'), lock)


def test_lock_of_extras_and_of_a_workspace() -> None:
    """A package that is locked for an extra only is no dependency of the project."""
    lock = (LOCKED / "uv.lock").read_text()
    extra = '[{ name = "six", marker = "extra == \'a\'" }]'
    lock = lock.replace(
        'requires-dist = [{ name = "six" }]', f"requires-dist = {extra}"
    )
    text = (LOCKED / "pyproject.toml").read_text()

    assert ["six"] == missing(text, lock)
    assert [] == missing(text, lock.replace('virtual = "."', 'editable = "a"'))
    assert [] == missing(text, "")


def test_data_behind_a_link_out_of_the_project_is_refused(
    project: Project, tmp_path: Path
) -> None:
    """A push would send the link only. A link inside the project is no mistake."""
    (tmp_path / "big").mkdir()
    (project.root / "d").symlink_to(tmp_path / "big")
    project.write("onebox.toml", '[run]\ncommand = "ls"\n[push]\ndata = ["d/"]\n')

    message = (
        f'onebox.toml:4: [push] data: "d/" is a link to {tmp_path / "big"}, outside'
    )
    refused(project, 66, message, lines=("plan", "run", "push"))
    assert '[push] data: \\"d/\\" is a link' in project.onebox("plan", "--json").out

    (project.root / "d").unlink()
    (project.root / "inside").mkdir()
    (project.root / "d").symlink_to("inside")
    assert 0 == project.onebox("plan").code


def test_file_in_place_of_a_folder_of_onebox_is_refused(project: Project) -> None:
    """The log of the job could not be written."""
    project.write(".onebox", "a file")

    refused(project, 78, ".onebox is not a folder", lines=("plan", "run", "doctor"))


def test_folder_for_outputs_that_cannot_be_created_is_refused(project: Project) -> None:
    """A file is in its way, so the outputs could not be fetched."""
    project.write("f", "a file")
    project.write("onebox.toml", TOML + 'outputs_to = "f/x"\n')

    message = "onebox.toml:6: [fetch] outputs_to: "
    refused(project, 66, message, lines=("plan", "run"))
    assert 78 == project.onebox("doctor").code

    project.write("onebox.toml", TOML)
    done = project.onebox("run", "--into=f/x")
    assert (66, []) == (done.code, project.boxes())
    assert "--into: " in done.err


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("job.py", "git ignores it"),
        ("node_modules/job.py", "it is in a folder of caches"),
        ("results/job.py", "it is among the outputs"),
    ],
)
def test_script_that_is_not_pushed_is_refused(
    project: Project, name: str, why: str
) -> None:
    """The box would lack it. As data it is pushed although git ignores it."""
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    project.write(".gitignore", "/job.py\n")
    project.write(name, "print(1)\n")
    project.write("onebox.toml", TOML.replace("sh job.sh", f"python3 {name}"))

    refused(project, 66, f"{name} is not pushed", lines=("plan", "run"))
    assert why in project.onebox("doctor").out

    with (project.root / "onebox.toml").open("a") as file:
        file.write(f'[push]\ndata = ["{name}"]\n')
    assert 0 == project.onebox("plan").code


def test_state_that_cannot_be_written_is_refused_by_the_plan(project: Project) -> None:
    """As by the run."""
    project.environ["ONEBOX_STATE"] = "/proc/onebox-state"

    refused(project, 78, "/proc/onebox-state", lines=("plan", "run"))


# Root may write anywhere, unless it gives up these capabilities.
POWERS = "-dac_override,-dac_read_search"
SETPRIV = ("setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}")
PLAIN = SETPRIV if os.geteuid() == 0 else ()


@pytest.mark.skipif(
    bool(PLAIN) and shutil.which("setpriv") is None, reason="needs util-linux"
)
@pytest.mark.parametrize(
    ("outputs", "made", "sealed", "flags"),
    [
        ("results/", "results", "results", []),
        ("deep/results/", "deep", "deep", []),
        ("model.bin", "elsewhere", "elsewhere", ["--into=elsewhere"]),
        ("results/", "elsewhere", "elsewhere", ["--into=elsewhere/new"]),
    ],
)
def test_folder_for_outputs_that_cannot_be_written_is_refused(
    project: Project, outputs: str, made: str, sealed: str, flags: list[str]
) -> None:
    """The job would run, and its outputs could not be fetched."""
    project.write("onebox.toml", TOML.replace("results/", outputs))
    (project.root / made).mkdir()
    (project.root / sealed).chmod(0o555)

    for line in [["plan"]] * (not flags) + [["run", *flags], ["run", "--dry", *flags]]:
        done = subprocess.run(
            [*PLAIN, sys.executable, "-m", "onebox", *line],
            cwd=project.root,
            env=project.environ,
            capture_output=True,
            text=True,
            check=False,
        )

        assert 66 == done.returncode, (line, done)
        assert f"{sealed} cannot be written" in done.stderr + done.stdout, (line, done)
        assert [] == project.boxes()
    assert 0o555 == (project.root / sealed).stat().st_mode & 0o777


@pytest.mark.skipif(
    bool(PLAIN) and shutil.which("setpriv") is None, reason="needs util-linux"
)
def test_folder_sealed_by_the_user_after_a_fetch_is_refused(project: Project) -> None:
    """One that the job itself has made read-only can be fetched again."""
    project.write("job.sh", "mkdir results; echo 1 > results/x; chmod 555 results")

    def line(*words: str) -> int:
        return subprocess.run(
            [*PLAIN, sys.executable, "-m", "onebox", *words],
            cwd=project.root,
            env=project.environ,
            capture_output=True,
            check=False,
        ).returncode

    assert [0, 0, 0] == [line("run"), line("plan"), line("run")]
    results = project.root / "results"
    results.chmod(0o755)
    results.chmod(0o555)
    assert [66, 66] == [line("plan"), line("run")]


def test_folder_of_local_boxes_that_cannot_be_written_is_refused(
    project: Project,
) -> None:
    """By the plan, as by the run and by doctor."""
    project.environ["ONEBOX_LOCAL_ROOT"] = "/proc/y"

    message = "a local box cannot be written to /proc/y"
    refused(project, 78, message, lines=("plan", "run", "doctor"))


@pytest.mark.parametrize(
    "variable", ["ONEBOX_STATE", "ONEBOX_IDENTITY", "ONEBOX_LOCAL_ROOT"]
)
def test_relative_folder_of_onebox_is_refused(project: Project, variable: str) -> None:
    """From another working directory, its boxes would not be found."""
    project.environ[variable] = "some where"

    message = f"{variable} is not an absolute path: 'some where'"
    refused(project, 78, message, lines=("plan", "run", "status"))
    hint = f"  next: export {variable}='{project.root}/some where'\n"
    assert hint in project.onebox("status").err
    assert not (project.root / "some where").exists()


def test_link_out_of_the_project_in_the_place_of_outputs_is_named(
    project: Project,
) -> None:
    """The plan and the run say that nothing is written through it; both go on."""
    scratch = project.home / "scratch"
    scratch.mkdir()
    link = project.root / "results"
    link.symlink_to(scratch)
    plan, done = project.inv("plan"), project.inv("run")

    assert (0, 0) == (plan.code, done.code), done.err
    for text in (plan.out, done.err):
        assert "results is a link, which no output is written through" in text
    assert "42\n" == project.read("results/answer.txt")
    assert [] == list(scratch.iterdir())
    assert "is a link" not in project.inv("plan").out


def test_link_that_leads_to_itself_stops_no_run(project: Project) -> None:
    """Such a link in the place of outputs is set aside by the fetch."""
    (project.root / "results").symlink_to("results")
    plan, done = project.inv("plan"), project.inv("run")

    assert (0, 0) == (plan.code, done.code), plan.err + done.err
    assert "42\n" == project.read("results/answer.txt")


def test_link_within_a_project_behind_a_link_is_not_named(project: Project) -> None:
    """The project's own path may contain a link, such as /tmp on macOS."""
    (project.root / "runs").mkdir()
    (project.root / "results").symlink_to("runs")
    place = project.home / "place"
    place.symlink_to(project.root)

    code = "import sys, onebox.api; print(onebox.api.plan(project=sys.argv[1]).notes)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(place)],
        env=project.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "()\n" == done.stdout
