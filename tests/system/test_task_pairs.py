"""Every pair of tasks on one line, in a random order: no box is left silently."""

from __future__ import annotations

import atexit
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from invoke.collection import Collection
from invoke.program import Program

from onebox.tasks import ns
from tests.conftest import TOML, Project

# `notebook` runs until Ctrl-C; tests/system/test_notebook.py has its ends.
NAMES = sorted({*ns.tasks} - {"notebook"})
# The same for all processes of a test run.
SEED = os.environ.get("ONEBOX_TEST_SEED") or os.environ.get("PYTEST_XDIST_TESTRUNUID")
# Tasks that create a box if there is none.
CREATE = ("provision", "push", "run")


@dataclass(frozen=True)
class LineResult:
    """The exit code and the output of a line."""

    code: int
    text: str


Inv = Callable[..., LineResult]


@pytest.fixture
def inv(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Inv]:
    """A function that runs a line of onebox's tasks in this process."""
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    for name, value in project.environ.items():
        monkeypatch.setenv(name, value)
    tasks = Collection(*ns.tasks.values())
    # What a process of its own would do at its end.
    at_exit: list[Callable[[], None]] = []
    register = atexit.register

    def note(function: Callable[[], None]) -> None:
        # Those of libraries must not run before the end of this process: after that of
        # weakref, no finalizer would run.
        ours = type(getattr(function, "__self__", None)).__module__.startswith("onebox")
        (at_exit.append if ours else register)(function)

    monkeypatch.setattr(atexit, "register", note)

    def run(*words: str) -> LineResult:
        code = 0
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["inv", *words])
        try:
            Program(namespace=tasks).run(["inv", *words])
        except SystemExit as end:
            code = int(end.code or 0)
        while at_exit:
            at_exit.pop()()
        return LineResult(code, "".join(capfd.readouterr()))

    yield run


def with_flags(name: str) -> tuple[str, ...]:
    """Return a task with the flags that it needs here."""
    return (name, "--force") if name == "init" else (name,)


def leaves_a_box(first: str, second: str) -> bool:
    """Return whether the user requests a box with a line whose tasks all succeed."""
    if second == "teardown":
        return False
    if "provision" in (first, second):
        return True
    # A chain that runs a job ends its own box; a push after it makes another one.
    return second == "push" or (first == "push" and second != "run")


def comes_first(first: str, second: str) -> bool:
    """Return whether this test run types the tasks in this order."""
    if first == second:
        return True
    low, high = sorted((first, second))
    is_sorted = random.Random(f"{SEED} {low} {high}").random() < 0.5
    return is_sorted == (first == low)


@pytest.mark.parametrize("first", NAMES)
def test_every_pair_of_tasks_names_a_box_that_stays(
    project: Project, inv: Inv, first: str
) -> None:
    """Whatever two tasks are on a line, a box that stays is named."""
    for second in [name for name in NAMES if comes_first(first, name)]:
        project.write("onebox.toml", TOML)
        done = inv(*with_flags(first), *(with_flags(second) if second != first else ()))
        left, why = project.boxes(), f"{SEED}: inv {first} {second}: {done}"
        for box in left:
            named = re.search(
                rf"{box}.*(powers itself off (?:in|at)|inv teardown)", done.text
            )
            assert named, why
        if not done.code:
            assert len(left) == leaves_a_box(first, second), why
        if left:
            assert 0 == inv("teardown", "--discard-outputs", "--yes").code, why
        assert [] == project.boxes(), why


@pytest.mark.parametrize("first", NAMES)
def test_dry_line_of_every_pair_creates_nothing(
    project: Project, inv: Inv, first: str
) -> None:
    """`inv --dry` with any two tasks creates no box, and deletes none."""
    for second in CREATE:
        done = inv("--dry", *with_flags(first), *with_flags(second))

        assert [] == project.boxes(), f"inv --dry {first} {second}: {done}"
