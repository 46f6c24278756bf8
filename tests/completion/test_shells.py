"""Completion in real shells: what the Tab key adds to an `onebox` line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator

import pexpect
import pytest

from tests.conftest import Project

# Completion calls the real program. Any other line prints its words.
PROGRAM = """\
#!/bin/sh
case $1 in
--complete | --print-completion-script) exec {python} -m onebox "$@" ;;
esac
printf 'typed:'
printf '<%s>' "$@"
echo :end
"""
TOML = """\
project = "census"
[size.huge]
cpus = 2
memory = "4 GB"
"""
START = {
    "bash": (
        ["--norc", "--noprofile"],
        'eval "$(onebox --print-completion-script bash)"',
    ),
    "zsh": (["-f", "-i"], 'eval "$(onebox --print-completion-script zsh)"'),
    "fish": (["--no-config", "-i"], "onebox --print-completion-script fish | source"),
}


@pytest.fixture(params=START)
def shell(project: Project, request: pytest.FixtureRequest) -> Iterator[pexpect.spawn]:
    """A shell in the project, with the completion script loaded."""
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    program = project.home / "bin" / "onebox"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    path = f"{program.parent}:{project.environ['PATH']}"
    options, load = START[name]
    child = pexpect.spawn(
        name,
        options,
        cwd=str(project.root),
        env={**project.environ, "PATH": path, "TERM": "xterm"},
        dimensions=(40, 150),
        encoding="utf-8",
        timeout=30,
    )
    child.sendline(f"{load}; echo lo''aded")
    child.expect_exact("loaded")
    yield child
    child.close(force=True)


def test_tab_completes_tasks_flags_and_values(
    shell: pexpect.spawn, project: Project
) -> None:
    """A value is completed after "=" and after a space; other words are files."""
    project.write("train.py", "")
    state = project.home / "state/projects/census/second"
    state.mkdir(parents=True)
    images = project.home / "state/image-names/local.json"
    images.parent.mkdir()
    images.write_text('["geo-2"]')
    project.write("onebox.toml", TOML)
    for typed, words in (
        ("prov", ["provision"]),
        ("run --vm=hu", ["run", "--vm=huge"]),
        ("run --vm med", ["run", "--vm", "medium"]),
        ("push run --det", ["push", "run", "--detach"]),
        ("run --nam", ["run", "--name="]),
        ("logs --name=s", ["logs", "--name=second"]),
        ("run --provider=loc", ["run", "--provider=local"]),
        ("image --prune --as=g", ["image", "--prune", "--as=geo-2"]),
        ("run --into=tra", ["run", "--into=train.py"]),
        ("run tra", ["run", "train.py"]),
    ):
        shell.send(f"onebox {typed}\t")
        # The answer has been drawn when the rest of a word is there.
        shell.expect_exact(words[-1][len(typed.rpartition(" ")[2]) :])
        shell.send("\r")
        shell.expect_exact("typed:" + "".join(f"<{word}>" for word in words) + ":end")


def test_hostile_values_do_not_reach_the_line(
    shell: pexpect.spawn, project: Project
) -> None:
    """A name with a substitution is not offered; the one that is left is completed."""
    project.write("onebox.toml", TOML)
    harm = project.root / "harm"
    names = ("$(touch harm)", "`touch harm`", ";touch harm;", "\x1b]0;x\x07", "second")
    for name in names:
        (project.home / "state/projects/census" / name).mkdir(parents=True)
    images = project.home / "state/image-names/local.json"
    images.parent.mkdir()
    images.write_text(json.dumps(["geo-2", *names[:-1]]))
    for typed, word in (
        ("logs --name=", "--name=second"),
        ("image --prune --as=", "--as=geo-2"),
    ):
        shell.send(f"onebox {typed}\t")
        shell.expect_exact(word.partition("=")[2])
        shell.send("\r")
        shell.expect_exact(f"<{word}>:end")
    assert not harm.exists()
