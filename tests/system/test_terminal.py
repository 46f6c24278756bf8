"""`inv` lines in a real terminal: the screen, and Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect
import pytest

from tests.conftest import Project

JOB = "for n in 1 2 3 4 5 6; do echo epoch $n; sleep 1; done; echo end\n"
SET_UP = '\n[image]\nsetup = "setup.sh"\n'


@contextmanager
def start_in_terminal(
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


def exit_code(child: pexpect.spawn) -> int:
    """Wait for the end of the line; return its exit code."""
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus is not None
    return int(child.exitstatus)


@pytest.mark.parametrize("columns", [80, 140])
def test_run_leaves_one_line_for_each_stage(project: Project, columns: int) -> None:
    """The job's output is between them."""
    with start_in_terminal(project, "run", columns=columns) as child:
        for text in ("image", "provision", "push", "working", "run", "fetch"):
            child.expect_exact(text)
        child.expect_exact("verified → results/")
        child.expect_exact("teardown")
        assert 0 == exit_code(child)
    assert [] == project.boxes()


def test_ctrl_c_during_the_job_detaches(project: Project) -> None:
    """The job continues, and `logs` shows all of its output."""
    project.write("job.sh", JOB)
    with start_in_terminal(project, "run") as child:
        child.expect_exact("epoch 1")
        child.expect_exact("Ctrl-C detaches")
        child.sendintr()
        child.expect_exact("detached; the job continues")
        child.expect_exact("inv logs")
        assert 130 == exit_code(child)
    with start_in_terminal(project, "logs") as child:
        for n in range(1, 7):
            child.expect_exact(f"epoch {n}")
        child.expect_exact("end")
        assert 0 == exit_code(child)
    assert 0 == project.inv("fetch", "teardown").code


def test_ssh_gives_a_terminal_on_the_box(project: Project) -> None:
    """`inv ssh` exits with the exit code of the shell."""
    project.inv("provision")
    with start_in_terminal(project, "ssh", columns=97) as child:
        child.sendline("stty size; echo in $((40 + 2)); exit 7")
        child.expect_exact("24 97")
        child.expect_exact("in 42")
        assert 7 == exit_code(child)
    assert 0 == project.inv("teardown").code


def test_discarding_outputs_asks_for_the_id_of_the_box(project: Project) -> None:
    """Any other answer to `teardown --discard-outputs` is a no."""
    project.inv("push")
    project.inv("run", "--only")
    (box,) = project.boxes()
    with start_in_terminal(project, "teardown", "--discard-outputs") as child:
        child.expect_exact("Type the box's id")
        child.sendline("yes")
        assert 64 == exit_code(child)
    assert [box] == project.boxes()
    with start_in_terminal(project, "teardown", "--discard-outputs") as child:
        child.expect_exact("> ")
        # What is typed is not drawn over, however long that takes.
        with pytest.raises(pexpect.TIMEOUT):
            child.expect(".", timeout=1)
        child.sendline(box)
        assert 0 == exit_code(child)
    assert [] == project.boxes()


def test_discarding_outputs_that_are_all_here_asks_nothing(project: Project) -> None:
    """Nothing would be lost."""
    project.inv("provision", "run")
    with start_in_terminal(project, "teardown", "--discard-outputs") as child:
        assert 0 == exit_code(child)
    assert [] == project.boxes()


def test_the_last_lines_name_outputs_and_log(project: Project) -> None:
    """A good run ends with where its results are, its time and its cost."""
    with start_in_terminal(project, "run") as child:
        child.expect(r"succeeded in [0-9.]+ s → results/, log: (\S+)")
        assert (project.root / child.match.group(1)).is_file()
        child.expect_exact("no charge; the box was up for")
        assert 0 == exit_code(child)


def test_a_build_shows_how_long_it_takes_and_took_before(project: Project) -> None:
    """The live line has the time of the set-up, and that of the last build."""
    project.write("onebox.toml", f"{project.read('onebox.toml')}{SET_UP}")
    project.write("setup.sh", "echo working; sleep 2.5\n")
    with start_in_terminal(project, "image") as child:
        child.expect(r"  setup +[0-9.]+ s")
        assert 0 == exit_code(child)
    with start_in_terminal(project, "image", "--rebuild") as child:
        child.expect(r"  setup +[0-9.]+ s   last build: [23]\.[0-9] s")
        assert 0 == exit_code(child)


def test_ctrl_c_during_a_build_names_the_step(project: Project) -> None:
    """The step that was stopped has a line of its own, and no box is left."""
    project.write("onebox.toml", f"{project.read('onebox.toml')}{SET_UP}")
    project.write("setup.sh", "echo working; sleep 60\n")
    with start_in_terminal(project, "run") as child:
        child.expect(r"  setup +[0-9.]+ s")
        child.sendintr()
        child.expect("  setup.*✗.*stopped")
        child.expect_exact("stopped; no box is left")
        assert 130 == exit_code(child)
    assert [] == project.boxes()
