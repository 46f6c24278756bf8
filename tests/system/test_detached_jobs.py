"""Jobs that outlive their client: detached, killed, interrupted and rehearsed."""

from __future__ import annotations

import signal
import time

import pytest

from tests.conftest import Project
from tests.stages.test_preemption_recovery import give_notice
from tests.system.lines import let_job_continue


def test_detached_job_can_be_followed_fetched_and_ended(project: Project) -> None:
    """
    `--detach` returns at once; `logs` prints every byte and exits with the
    job's code.
    """
    project.write(
        "job.sh",
        "seq 3; while [ ! -e go ]; do sleep 0.1; done; seq 4 6\n"
        "mkdir -p results; echo done > results/x; exit 5",
    )
    begun = project.inv("run", "--detach")
    assert 0 == begun.code
    assert "inv logs" in begun.err
    assert 64 == project.inv("fetch").code
    assert 75 == project.inv("run").code
    let_job_continue(project)
    back = project.inv("logs")
    assert (5, "1\n2\n3\n4\n5\n6\n") == (back.code, back.out)
    assert back.out == project.inv("logs").out
    end = project.inv("fetch", "teardown")
    assert 0 == end.code, end.err
    assert "done\n" == project.read("results/x")
    assert [] == project.boxes()


def test_job_survives_a_kill_of_the_client(project: Project) -> None:
    """`logs` continues where the killed client was."""
    project.write(
        "job.sh",
        "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.1; done",
    )
    line = project.start("run")
    project.until("\n5\n")
    line.send_signal(signal.SIGKILL)
    line.wait()
    back = project.inv("logs")

    assert 0 == back.code
    assert "".join(f"{n}\n" for n in range(30)) == back.out
    # The chain had made the box for itself: the next one ends it.
    again = project.inv("run")
    assert 0 == again.code
    assert [] == project.boxes()


def test_cancel_ends_the_job_and_the_outputs_are_fetched(project: Project) -> None:
    """The cancel comes from another terminal."""
    project.write(
        "job.sh", "mkdir -p results; echo half > results/x; echo up; sleep 600"
    )
    line = project.start("run")
    project.until("up\n")
    done = project.inv("cancel")
    assert 0 == done.code, done.err
    assert 128 + signal.SIGTERM == line.wait(60)
    assert "cancelled" in project.err
    assert "half\n" == project.read("results/x")
    assert [] == project.boxes()


def test_second_command_is_refused_with_the_holder_of_the_lock(
    project: Project,
) -> None:
    """A command that would change the box names the one that is working on it."""
    project.write("job.sh", "echo up; sleep 600")
    line = project.start("run")
    project.until("up\n")
    second = project.inv("run")
    assert 75 == second.code
    assert f"pid {line.pid}" in second.err
    assert '"inv run"' in second.err
    assert "running" in project.inv("status").out
    project.inv("cancel")
    line.wait(60)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_first_signal_during_the_job_detaches(
    project: Project, number: int, code: int
) -> None:
    """The job continues, and the command to return to it is printed."""
    project.write(
        "job.sh", "echo up; while [ ! -e go ]; do sleep 0.1; done; rm go; echo end"
    )
    line = project.start("run")
    project.until("up\n")
    line.send_signal(number)

    assert code == line.wait(20)
    assert "detached" in project.err
    assert "inv logs" in project.err
    let_job_continue(project)
    back = project.inv("logs")
    assert (0, "up\nend\n") == (back.code, back.out)
    assert 0 == project.inv("fetch", "teardown").code


def test_ctrl_c_during_provision_deletes_the_box(project: Project) -> None:
    """No box is left."""
    project.write("onebox.toml", TOML_SLOW)
    line = project.start("run")
    while not project.boxes():
        assert line.poll() is None
    line.send_signal(signal.SIGINT)

    assert 130 == line.wait(30)
    assert [] == project.boxes()
    assert "no box is left" in project.err


def test_second_ctrl_c_ends_at_once_and_names_the_box(project: Project) -> None:
    """The last words have the box's id, price and deadline."""
    project.write("onebox.toml", TOML_SLOW)
    project.inv("provision")
    (box,) = project.boxes()
    project.write("job.sh", "echo up; sleep 600")
    line = project.start("run")
    project.until("up\n")
    line.send_signal(signal.SIGINT)
    time.sleep(0.3)
    line.send_signal(signal.SIGINT)

    assert 130 == line.wait(60)
    assert box in project.err
    assert [box] == project.boxes()


REHEARSE = '[run]\ncommand = "sh job.sh"\n[local.rehearse]\n'


def test_preempted_job_saves_its_work_at_the_notice(project: Project) -> None:
    """The saved files are here, and the exit code is 75."""
    project.write(
        "job.sh",
        "trap 'mkdir -p results; echo saved > results/x; exit 0' TERM\n"
        "echo up; while :; do sleep 0.1; done\n",
    )
    line = project.start("run")
    project.until("up\n")
    give_notice(project)

    assert (75, "up") == (line.wait(60), project.out.split()[0])
    assert "was taken back by the provider" in project.err
    assert "saved\n" == project.read("results/x")
    assert [] == project.boxes()


def test_job_of_a_box_that_dies_is_lost_and_its_disk_can_be_fetched(
    project: Project,
) -> None:
    """The error names the box."""
    project.write(
        "job.sh", "mkdir -p results; echo half > results/x; echo up; sleep 600"
    )
    line = project.start("run")
    project.until("up\n")
    project.cut_power()

    assert (74, "up\n") == (line.wait(60), project.out)
    assert "its disk is kept" in project.err
    assert 0 == project.inv("fetch", "teardown").code
    assert "half\n" == project.read("results/x")
    assert [] == project.boxes()


def test_full_disk_of_the_box_is_named(project: Project) -> None:
    """The files that were written are fetched."""
    project.write("onebox.toml", REHEARSE + 'disk = "4 MB"\n')
    project.write(
        "job.sh",
        "mkdir results; echo first > results/a; head -c 9000000 /dev/zero > big",
    )
    done = project.inv("run")

    assert 1 == done.code
    assert "the box's disk is full" in done.err
    assert "first\n" == project.read("results/a")


TOML_SLOW = """\
[run]
command = "sh job.sh"

[local.rehearse]
boot_delay = 3
"""
