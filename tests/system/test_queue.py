"""Several runs on one box: `inv run --queue`, and what a run on a busy box prints."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.conftest import Project
from tests.system.test_terminal import exit_code, start_in_terminal

# The job waits for the file `go` on its box and removes it.
WAITS = """\
echo working
until [ -e go ]; do sleep 0.05; done
rm go; mkdir -p results; echo first | tee results/first
"""


@dataclass
class Terminal:
    """A terminal of the user in which one `inv` line runs."""

    project: Project
    line: subprocess.Popen[bytes]

    def until(self, text: str) -> None:
        """Wait until the line has printed *text*."""
        self.project.until(text)

    def end(self) -> int:
        """Wait for the end of the line; return its exit code."""
        return self.line.wait(120)

    @property
    def out(self) -> str:
        """What the line has printed on stdout."""
        return self.project.out

    @property
    def err(self) -> str:
        """What the line has printed on stderr."""
        return self.project.err


@dataclass
class Desk:
    """The terminals of a user who works on one project."""

    project: Project
    opened: list[Terminal]

    def start(self, *words: str) -> Terminal:
        """Type an `inv` line into a new terminal."""
        home = self.project.home / f"terminal-{len(self.opened)}"
        home.mkdir()
        own = replace(self.project, home=home)
        terminal = Terminal(own, own.start(*words))
        self.opened.append(terminal)
        return terminal

    def start_job_that_waits(self) -> Terminal:
        """Start the project's job, which waits for `let_job_continue`."""
        self.project.write("job.sh", WAITS)
        terminal = self.start("run")
        terminal.until("working")
        return terminal

    def queue(self, *words: str) -> Terminal:
        """Start a run that waits in the queue, and wait until it does."""
        terminal = self.start("run", "--queue", *words)
        terminal.until("pushed then, as they are at that time")
        return terminal

    def let_job_continue(self) -> None:
        """Let the job that waits on the only box continue."""
        (box,) = self.project.boxes()
        (self.project.home / "local/boxes" / box / "disk/home/work/go").touch()

    def until_status(self, text: str) -> None:
        """Wait until `inv status` prints *text*."""
        end = time.monotonic() + 60
        while text not in (out := self.project.inv("status").out):
            assert time.monotonic() < end, f"no {text!r} in {out}"


@pytest.fixture
def desk(project: Project) -> Iterator[Desk]:
    """The terminals of a user, which are closed at the end."""
    made = Desk(project, [])
    yield made
    for terminal in made.opened:
        if terminal.line.poll() is None:
            terminal.line.kill()
            terminal.line.wait()


def echo(word: str, code: int = 0) -> tuple[str, ...]:
    """Return the words of a command that prints a word and writes an output."""
    script = f"echo {word} | tee results/{word}; exit {code}"
    return ("--", "sh", "-c", f"mkdir -p results; {script}")


def receipts(project: Project) -> list[tuple[str, int]]:
    """Return the last word of the log and the exit code of each job, in order."""
    found = []
    folders = (project.root / ".onebox/jobs").iterdir()
    # The ids of jobs that start in the same second are in no order.
    for folder in sorted(folders, key=lambda one: (one / "log").stat().st_mtime_ns):
        receipt = json.loads((folder / "receipt.json").read_text())
        found.append(((folder / "log").read_text().split()[-1], receipt["exit"]))
    return found


def test_runs_wait_for_the_box_and_run_in_order(desk: Desk) -> None:
    """Each has its own log, code, outputs and receipt; the last one removes the box."""
    project = desk.project
    first = desk.start_job_that_waits()
    (box,) = project.boxes()
    others = [desk.queue(*echo(w, code)) for w, code in (("b", 3), ("c", 0), ("d", 5))]
    assert (
        "waiting for census/main: 3 runs, the first since " in project.inv("status").out
    )
    assert ["working"] == first.out.split()
    assert all(not other.out for other in others)

    desk.let_job_continue()

    assert 0 == first.end()
    assert [3, 0, 5] == [other.end() for other in others]
    assert ["working\nfirst\n", "b\n", "c\n", "d\n"] == [
        terminal.out for terminal in desk.opened
    ]
    assert [("first", 0), ("b", 3), ("c", 0), ("d", 5)] == receipts(project)
    assert ["b", "c", "d", "first"] == [
        project.read(f"results/{name}").strip() for name in ("b", "c", "d", "first")
    ]
    assert f"kept  {box}, no charge: 3 runs wait for it, the first since" in first.err
    assert f"kept  {box}, no charge: 1 run waits for it, since" in others[1].err
    for terminal in desk.opened[:-1]:
        assert "teardown" not in terminal.err
    for other in others:
        assert "provision  ✓ up to date" in other.err
    assert f"{box}: machine, disk, keys: gone" in others[-1].err
    assert [] == project.boxes()
    # The box was up for longer than any of these runs.
    assert all("this run used the box for" in other.err for other in others)
    assert "this run used the box" not in first.err


def test_busy_box_names_its_command_and_what_to_type(desk: Desk) -> None:
    """The message is printed once, and the run that has the box is not disturbed."""
    project = desk.project
    first = desk.start_job_that_waits()
    refused = project.inv("run")
    other = project.inv("fetch")
    desk.let_job_continue()

    assert 75 == refused.code
    assert 1 == refused.err.count("is busy")
    head, *lines = refused.err.splitlines()
    assert head.startswith('onebox[75]: census/main is busy: "inv run" since ')
    assert head.endswith(f"(pid {first.line.pid})")
    assert [
        "  next: inv run --queue waits for it, then runs",
        "        inv run --name=second runs on another box",
        "        inv logs follows the job, inv cancel stops it",
    ] == lines[-3:]
    assert (75, 1) == (other.code, other.err.count("is busy"))
    assert "--name=second" in other.err
    assert 0 == first.end()
    assert [] == project.boxes()


def test_run_on_a_box_with_a_detached_job_is_refused_in_the_same_words(
    desk: Desk,
) -> None:
    """No client holds the lock then; the job itself keeps the box busy."""
    project = desk.project
    project.write("job.sh", WAITS)
    assert 0 == project.inv("run", "--detach").code
    refused = project.inv("run")
    desk.let_job_continue()

    assert 75 == refused.code
    assert "onebox[75]: census/main is busy: job " in refused.err
    assert "next: inv run --queue waits for it, then runs" in refused.err
    assert 0 == project.inv("logs").code
    assert 0 == project.inv("fetch", "teardown").code


def test_queued_run_waits_for_a_detached_job_and_fetches_its_outputs(
    desk: Desk,
) -> None:
    """Its files are pushed after that job has ended, and not before."""
    project = desk.project
    project.write("job.sh", WAITS)
    assert 0 == project.inv("run", "--detach").code
    (box,) = project.boxes()
    queued = desk.queue("--", "cat", "new", "results/first")
    project.write("new", "pushed\n")
    pushed = project.home / "local/boxes" / box / "disk/home/work/new"
    # The lock is free meanwhile: another command is refused because of the job.
    assert "is busy: job " in project.inv("push").err
    assert not pushed.exists()
    desk.let_job_continue()

    assert 0 == queued.end()
    assert "pushed\nfirst\n" == queued.out
    assert "fetching the outputs of the earlier job" in queued.err
    assert "code or data have changed while this run waited" in queued.err
    assert "first\n" == project.read("results/first")
    # The detached run had created the box for its job only.
    assert [] == project.boxes()


def test_status_lists_the_runs_that_wait_in_their_order(desk: Desk) -> None:
    """A user with several terminals sees which one is next, also with --json."""
    project = desk.project
    first = desk.start_job_that_waits()
    others = [desk.queue(*echo(word)) for word in ("b", "c")]
    lines = project.inv("status").out.splitlines()
    listed = json.loads(project.inv("status", "--json").out)["waiting"]["main"]

    assert lines[-3].startswith("waiting for census/main: 2 runs, the first since ")
    for place, other, line in zip((1, 2), others, lines[-2:]):
        assert line.startswith(f"    {place}. inv run --queue -- sh -c ")
        assert line.endswith(f", process {other.line.pid}")
    assert [other.line.pid for other in others] == [run["pid"] for run in listed]
    for word, run in zip(("b", "c"), listed):
        assert f"tee results/{word};" in run["command"]
    desk.let_job_continue()

    assert [0, 0, 0] == [terminal.end() for terminal in (first, *others)]


def test_place_of_a_killed_run_is_free(desk: Desk) -> None:
    """The runs behind it do not wait for it, and the last one removes the box."""
    project = desk.project
    first = desk.start_job_that_waits()
    killed, next_one = desk.queue(*echo("b")), desk.queue(*echo("c"))
    killed.line.send_signal(signal.SIGKILL)
    killed.line.wait()
    desk.until_status("waiting for census/main: 1 run, the first since ")
    desk.let_job_continue()

    assert [0, 0] == [first.end(), next_one.end()]
    assert [("first", 0), ("c", 0)] == receipts(project)
    assert [] == project.boxes()


def test_queue_goes_on_when_the_running_client_is_killed(desk: Desk) -> None:
    """The next run waits for the job, which the kill of its client has not ended."""
    project = desk.project
    first = desk.start_job_that_waits()
    queued = desk.queue(*echo("b"))
    first.line.kill()
    first.line.wait()
    desk.let_job_continue()

    assert 0 == queued.end()
    assert [("first", 0), ("b", 0)] == receipts(project)
    assert "first\n" == project.read("results/first")
    assert [] == project.boxes()


def test_ctrl_c_leaves_the_queue(desk: Desk) -> None:
    """Nothing was pushed or started, and the exit code is 130."""
    project = desk.project
    first = desk.start_job_that_waits()
    with start_in_terminal(project, "run", "--queue", "--", "echo", "never") as child:
        child.expect_exact("waits for its turn")
        child.expect_exact("waiting: another onebox command uses the box")
        child.sendintr()
        child.expect_exact("left the queue; nothing was pushed or started")
        child.expect_exact("is still up")
        assert 130 == exit_code(child)
    assert "waiting" not in project.inv("status").out
    desk.let_job_continue()

    assert 0 == first.end()
    assert "teardown   ✓" in first.err
    assert [("first", 0)] == receipts(project)
    assert [] == project.boxes()


def test_queued_run_creates_a_box_if_the_one_before_is_gone(desk: Desk) -> None:
    """The box may be removed while a run waits for it."""
    project = desk.project
    project.write("job.sh", WAITS)
    assert 0 == project.inv("run", "--detach").code
    (box,) = project.boxes()
    queued = desk.queue(*echo("b"))
    assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code

    assert 0 == queued.end()
    assert "b\n" == queued.out
    assert box not in queued.err.partition("push")[2]
    assert [] == project.boxes()


def test_queued_run_that_is_refused_at_its_turn_removes_the_box(desk: Desk) -> None:
    """The run before has left the box to it, and nothing else would remove it."""
    project = desk.project
    setup = '[image]\nsetup = "setup.sh"\n'
    project.write("setup.sh", "true\n")
    project.write("onebox.toml", setup + project.read("onebox.toml"))
    first = desk.start_job_that_waits()
    queued = desk.queue()
    project.write("setup.sh", "echo changed\n")
    desk.let_job_continue()

    assert 0 == first.end()
    assert "1 run waits for it" in first.err
    assert 64 == queued.end()
    assert "was created from an older image" in queued.err
    assert "machine, disk, keys: gone" in queued.err
    assert [] == project.boxes()


def test_box_near_its_deadline_is_not_left_to_the_next_run(desk: Desk) -> None:
    """The next run creates a box whose deadline is not half over."""
    project = desk.project
    project.write("job.sh", WAITS)
    project.environ["ONEBOX_LIMITS_MAX_HOURS"] = "1"
    assert 0 == project.inv("run", "--detach").code
    project.environ["ONEBOX_LIMITS_MAX_HOURS"] = "8"
    first, second = desk.queue(*echo("b")), desk.queue(*echo("c"))
    desk.let_job_continue()

    assert [0, 0] == [first.end(), second.end()]
    assert "machine, disk, keys: gone" in first.err
    assert "provision  ✓ up to date" not in second.err
    assert [] == project.boxes()


def test_queued_run_asks_nothing_at_its_turn(desk: Desk) -> None:
    """Nobody may be there, and the same command was queued while the job ran."""
    project = desk.project
    project.write("job.sh", WAITS.replace("rm go; ", ""))
    assert 0 == project.inv("run", "--detach").code
    with start_in_terminal(project, "run", "--queue", columns=200) as child:
        child.expect_exact("waits for its turn")
        desk.let_job_continue()
        child.expect_exact("the same command runs again")
        child.expect_exact("first")
        assert 0 == exit_code(child)
    assert [] == project.boxes()


def test_run_does_not_overtake_runs_that_wait(desk: Desk) -> None:
    """A run without --queue is refused, also when the lock is free for a moment."""
    project = desk.project
    project.write("job.sh", WAITS)
    assert 0 == project.inv("run", "--detach").code
    queued = desk.queue(*echo("b"))
    refused = project.inv("run")
    desk.let_job_continue()

    assert 75 == refused.code
    assert "onebox[75]: census/main is busy: 1 run waits for it, since " in refused.err
    assert 0 == queued.end()


def test_another_name_is_another_queue(desk: Desk) -> None:
    """A run with another --name does not wait."""
    first = desk.start_job_that_waits()
    second = desk.start("run", "--queue", "--name=second", *echo("b"))

    assert 0 == second.end()
    assert "queue" not in second.err
    assert 0 == desk.project.inv("cancel").code
    assert first.end() == 143
    assert [] == desk.project.boxes()


def test_queue_on_a_free_box_changes_nothing(desk: Desk) -> None:
    """The run starts at once."""
    done = desk.project.inv("run", "--queue")

    assert 0 == done.code
    assert "queue" not in done.err
    assert [] == desk.project.boxes()


def test_detach_returns_when_the_job_has_started(desk: Desk) -> None:
    """`--queue --detach` waits for its turn, and the next run for its job."""
    project = desk.project
    first = desk.start_job_that_waits()
    detached = desk.queue("--detach", *echo("b"))
    last = desk.queue(*echo("c"))
    desk.let_job_continue()

    assert [0, 0, 0] == [first.end(), detached.end(), last.end()]
    assert "detached" in detached.err
    assert [("first", 0), ("b", 0), ("c", 0)] == receipts(project)
    assert [] == project.boxes()


def test_a_wrong_size_is_refused_before_the_wait(desk: Desk) -> None:
    """The box that is up is not the one that the run asks for."""
    first = desk.start_job_that_waits()
    refused = desk.project.inv("run", "--queue", "--vm=large")
    desk.let_job_continue()

    assert 64 == refused.code
    assert "waits" not in refused.err
    assert 0 == first.end()


def test_state_of_the_queue_is_private_and_empty_at_the_end(desk: Desk) -> None:
    """Only the file of its lock stays."""
    first = desk.start_job_that_waits()
    queued = desk.queue(*echo("b"))
    (folder,) = (desk.project.home / "state/projects").glob("*/main/queue")
    (ticket,) = folder.glob("*.json")
    modes = [path.stat().st_mode & 0o077 for path in (folder, ticket)]
    desk.let_job_continue()

    assert [0, 0] == modes
    assert [0, 0] == [first.end(), queued.end()]
    assert ["lock"] == [path.name for path in folder.iterdir()]
