"""`inv` lines in a real terminal: what is on the screen, and what Ctrl-C does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect
import pytest

from tests.conftest import Project

JOB = "for n in 1 2 3 4 5 6; do echo epoch $n; sleep 1; done; echo end\n"


@contextmanager
def terminal(
    project: Project, *words: str, columns: int = 80
) -> Iterator[pexpect.spawn]:
    """Type an `inv` line into a terminal of this width."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "invoke", *words],
        cwd=str(project.root),
        env={**project.environ, "TERM": "xterm-256color"},
        dimensions=(24, columns),
        encoding="utf-8",
        timeout=60,
    )
    try:
        yield child
    finally:
        child.close(force=True)


def ended(child: pexpect.spawn) -> int:
    """Wait for the end of the line; return its exit code."""
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus is not None
    return int(child.exitstatus)


@pytest.mark.parametrize("columns", [80, 140])
def test_a_whole_run(project: Project, columns: int) -> None:
    """
    Each stage leaves its line, the job's output stands between them.
    """
    with terminal(project, "run", columns=columns) as child:
        for text in ("image", "provision", "push", "working", "run", "fetch"):
            child.expect_exact(text)
        child.expect_exact("verified → results/")
        child.expect_exact("teardown")
        assert 0 == ended(child)
    assert [] == project.boxes()


def test_ctrl_c_detaches(project: Project) -> None:
    """
    Ctrl-C while the job runs leaves it running; `logs` comes back to all of it.
    """
    project.write("job.sh", JOB)
    with terminal(project, "run") as child:
        child.expect_exact("epoch 1")
        child.expect_exact("Ctrl-C detaches")
        child.sendintr()
        child.expect_exact("detached; the job continues")
        child.expect_exact("inv logs")
        assert 130 == ended(child)
    with terminal(project, "logs") as child:
        for n in range(1, 7):
            child.expect_exact(f"epoch {n}")
        child.expect_exact("end")
        assert 0 == ended(child)
    assert 0 == project.inv("fetch", "teardown").code


def test_a_shell_on_the_box(project: Project) -> None:
    """
    `inv ssh` gives a terminal on the box, and passes its exit code on.
    """
    project.inv("provision")
    with terminal(project, "ssh", columns=97) as child:
        child.sendline("stty size; echo in $((40 + 2)); exit 7")
        child.expect_exact("24 97")
        child.expect_exact("in 42")
        assert 7 == ended(child)
    assert 0 == project.inv("teardown").code


def test_giving_up_outputs_is_asked(project: Project) -> None:
    """
    `teardown --discard-outputs` wants the box's id typed; anything else is a no.
    """
    project.inv("push")
    project.inv("run", "--only")
    (box,) = project.boxes()
    with terminal(project, "teardown", "--discard-outputs") as child:
        child.expect_exact("Type the box's id")
        child.sendline("yes")
        assert 64 == ended(child)
    assert [box] == project.boxes()
    with terminal(project, "teardown", "--discard-outputs") as child:
        child.expect_exact("> ")
        # What is typed is not drawn over, however long that takes.
        with pytest.raises(pexpect.TIMEOUT):
            child.expect(".", timeout=1)
        child.sendline(box)
        assert 0 == ended(child)
    assert [] == project.boxes()


def test_nothing_to_give_up_is_not_asked(project: Project) -> None:
    """
    With all outputs here there is nothing to confirm.
    """
    project.inv("provision", "run")
    with terminal(project, "teardown", "--discard-outputs") as child:
        assert 0 == ended(child)
    assert [] == project.boxes()
