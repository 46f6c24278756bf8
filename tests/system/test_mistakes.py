"""A mistake of the user is one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onebox.providers import PROVIDERS
from tests.conftest import Project


@pytest.mark.fast
def test_typo_in_the_file_names_line_key_and_nearest_name(project: Project) -> None:
    """A misspelled key is reported in one line with the nearest name."""
    project.write("onebox.toml", '[run]\ncomand = "sh job.sh"\n')
    done = project.inv("run")

    assert (78, "") == (done.code, done.out)
    assert done.err.startswith("onebox[78]: onebox.toml:2: [run] comand: unknown key")
    assert "command?" in done.err
    assert "Traceback" not in done.err


def test_missing_data_is_named_before_a_box_is_created(project: Project) -> None:
    """[push] data must exist."""
    project.write("onebox.toml", '[push]\ndata = ["dta/"]\n[run]\ncommand = "true"\n')
    done = project.inv("run")

    assert done.code in (66, 78)
    assert "dta" in done.err
    assert "Traceback" not in done.err
    assert [] == project.boxes()


def test_unknown_provider_is_refused_without_a_traceback(project: Project) -> None:
    """A provider that does not exist is a mistake in the settings."""
    done = project.inv("run", "--provider=azure")

    assert 78 == done.code
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "env", "line"),
    [
        (
            ("plan", "--vm=larg", "--json", "--", "python", "x y"),
            {},
            "inv plan --vm=large --json -- python 'x y'",
        ),
        (("run", "--vm", "larg"), {}, "inv run --vm=large"),
        (("plan", "--vm=xyz"), {}, "inv plan --vm=small"),
        (("push", "--provider=asw"), {}, "inv push --provider=aws"),
        (("push", "--profile=gp"), {}, "inv push --profile=gpu"),
        (("run",), {"ONEBOX_VM": "larg"}, "ONEBOX_VM=large inv run"),
    ],
)
def test_wrong_value_of_a_flag_has_the_corrected_line(
    project: Project, words: tuple[str, ...], env: dict[str, str], line: str
) -> None:
    """The line is complete, and `--json` has it as `next`."""
    project.write(
        "onebox.toml", '[run]\ncommand = "true"\n[profile.gpu]\nvm = "large"\n'
    )
    done = project.inv(*words, env=env)

    assert 78 == done.code
    assert done.err.endswith(f"\n  next: {line}\n")
    if "--json" in words:
        assert line == json.loads(done.out)["error"]["next"]


def test_wrong_size_in_the_file_proposes_no_line(project: Project) -> None:
    """The message names the line of the file, where it has to be corrected."""
    project.write("onebox.toml", 'vm = "larg"\n')
    done = project.inv("plan")

    assert 78 == done.code
    assert done.err.splitlines() == [
        'onebox[78]: onebox.toml:1: vm: there is no size "larg", did you mean large?'
    ]


@pytest.mark.fast
def test_cloud_without_credentials_names_what_to_set(project: Project) -> None:
    """The cloud is named first."""
    env = {"AWS_EC2_METADATA_DISABLED": "true"}
    done = project.inv("run", "--provider=aws", env=env)

    assert 78 == done.code
    first, error, hint = done.err.strip().splitlines()
    assert first.startswith("onebox  census/main   aws   ")
    assert "onebox[78]: no AWS region is set" == error
    assert "[aws]" in hint


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("status --provider=aws", "no AWS region is set"),
        ("status --provider=digitalocean", "there is no token for DigitalOcean"),
        ("provision", "there is no OpenSSH client"),
        ("doctor", "not ready: ssh"),
    ],
)
def test_each_kind_of_missing_set_up_has_the_same_exit_code(
    project: Project, line: str, message: str
) -> None:
    """A program, a library, a region or credentials that are missing end with 78."""
    env = {"AWS_EC2_METADATA_DISABLED": "true", "PATH": str(project.home)}
    done = project.inv(*line.split(), env=env)

    assert 78 == done.code, done.err
    assert f"onebox[78]: {message}" in done.err
    assert [] == project.boxes()


def test_saving_a_box_without_a_name_is_refused_first(project: Project) -> None:
    """The box is not looked up."""
    done = project.inv("image", "--from-box")

    assert 64 == done.code
    assert "--as=" in done.err


def test_closed_stdout_does_not_stop_the_chain(project: Project) -> None:
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


def test_import_of_onebox_loads_no_library_and_no_core_module() -> None:
    """Importing onebox loads no SDK, no rich, no toml, and few modules of its own."""
    heavy = [row.library for row in PROVIDERS.values()]
    heavy += ["google.cloud", "rich", "toml", "onebox.context", "onebox.settings"]
    code = f"import sys, onebox; print([m for m in {heavy} if m in sys.modules])"
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
