"""The box goes off by itself, in time, for the right reason and no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from onebox.agent.box import Box
from onebox.agent.watchdog import Watchdog

from .conftest import AgentBox, until
from .test_jobs import follow, run

Watch = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def watch(agent_box: AgentBox) -> Iterator[Watch]:
    """Start a watch over the box, described as the arguments say."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**told: Any) -> subprocess.Popen[bytes]:
        agent_box.describe(**told)
        started.append(subprocess.Popen(agent_box.command("watch")))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def log(box: AgentBox) -> str:
    """Return what the watch has written about its deeds."""
    path = box.root / "watch.log"
    return path.read_text() if path.exists() else ""


def test_deadline_ends_the_job_and_the_box(agent_box: AgentBox, watch: Watch) -> None:
    """At its deadline the job is asked to end, recorded, and the box goes off."""
    with agent_box.link() as link:
        link.ask(
            "start", job="j1", shell="trap 'echo saved; exit 0' TERM; sleep 91 & wait"
        )
        watch(deadline=time.time() + 2)
        printed, end = follow(link, "j1")
        assert printed == b"saved\n"
        assert end["record"]["cause"] == "deadline"
        until(agent_box.off.exists)
        assert agent_box.off.stat().st_mtime >= end["record"]["ended"] - 1
    assert "power off: deadline" in log(agent_box)


def test_deadline_by_a_clock_that_nobody_sets(
    agent_box: AgentBox, watch: Watch
) -> None:
    """A wall clock that is years behind does not keep the box alive."""
    far = time.time() + 10 * 365 * 86400
    watch(armed=far - 2, deadline=far)
    until(agent_box.off.exists)
    assert "deadline" in log(agent_box)


def test_a_later_deadline_counts_at_once(agent_box: AgentBox, watch: Watch) -> None:
    """A changed box.json is read again; a broken one changes nothing."""
    now = time.time()
    watch(armed=now, deadline=now + 5)
    until((agent_box.root / "watch.lock").exists)
    agent_box.describe(armed=time.time(), deadline=time.time() + 3600)
    time.sleep(max(now + 6 - time.time(), 0))
    (agent_box.root / "box.json").write_text("{")
    until(lambda: "cannot be used" in log(agent_box))
    assert not agent_box.off.exists()
    agent_box.describe(deadline=time.time() - 1)
    until(agent_box.off.exists)


def test_a_box_described_anew_while_it_is_read(
    agent_box: AgentBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written right after box.json was read counts from the first look on."""
    os.utime(agent_box.root / "box.json", (1000, 1000))
    load = Box.load

    def load_before_it_changes(root: str) -> Box:
        monkeypatch.undo()
        config = load(root)
        agent_box.describe(deadline=time.time() - 1)
        return config

    monkeypatch.setattr(Box, "load", load_before_it_changes)
    watchdog = Watchdog(str(agent_box.root))
    assert watchdog.reason_to_power_off() == "deadline"


def test_setup_grace_without_a_job(agent_box: AgentBox, watch: Watch) -> None:
    """A box on which no job was ever started goes off after the setup grace."""
    watch(setup_grace=1.5)
    until(agent_box.off.exists)
    assert "no job ever started" in log(agent_box)


def test_idle_grace_after_the_last_job(agent_box: AgentBox, watch: Watch) -> None:
    """After a job has ended and all have left, the idle grace counts."""
    run(agent_box, shell="true")
    watch(idle_grace=1.5)
    until(agent_box.off.exists)
    assert "no client" in log(agent_box)


def test_somebody_attached_keeps_the_box(agent_box: AgentBox, watch: Watch) -> None:
    """Signs of life from a client keep an idle box on, whatever clock they bear."""
    run(agent_box, shell="true")
    watch(idle_grace=2.5, setup_grace=0.1)
    for number in range(12):
        time.sleep(0.3)
        os.utime(agent_box.root / "lease", (1000 + number, 1000 + number))
    assert not agent_box.off.exists()
    until(agent_box.off.exists)


def test_a_quiet_job_keeps_the_box(agent_box: AgentBox, watch: Watch) -> None:
    """A job that runs is no idleness; the grace counts from its end."""
    with agent_box.link() as link:
        link.ask("start", job="j1", shell="sleep 4")
    watch(idle_grace=3.5, setup_grace=0.5)
    time.sleep(3.2)
    assert not agent_box.off.exists()
    until(agent_box.off.exists)
    with agent_box.link() as link:
        record = link.ask("job")["record"]
    assert agent_box.off.stat().st_mtime - record["ended"] > 1.4


def test_notice_lets_the_job_save_itself(agent_box: AgentBox, watch: Watch) -> None:
    """When the cloud takes the box back, the job gets the time that is left."""
    job = (
        "import signal, time\n"
        "def save(*_):\n"
        "    print('saving', flush=True)\n"
        "    time.sleep(1)\n"
        "    print('saved', flush=True)\n"
        "    time.sleep(99)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('on', flush=True)\n"
        "while True: time.sleep(99)\n"
    )
    with agent_box.link() as link:
        link.ask("start", job="j1", argv=[sys.executable, "-c", job], cancel_grace=0.1)
        watch()
        until(lambda: link.ask("job")["log_bytes"])
        goes = time.time() + 6
        fresh = agent_box.root / "notice.new"
        fresh.write_text(json.dumps({"at": goes}))
        fresh.replace(agent_box.root / "notice")
        printed, end = follow(link, "j1")
    assert printed == b"on\nsaving\nsaved\n"
    assert end["record"]["cause"] == "preempted"
    assert not agent_box.off.exists()
    assert "job j1" in log(agent_box)


def test_one_watch_is_enough(agent_box: AgentBox, watch: Watch) -> None:
    """Of two watches one ends at once, in peace."""
    both = [watch(), watch()]
    until(lambda: any(process.poll() is not None for process in both))
    assert [process.poll() for process in both].count(0) == 1
    time.sleep(0.5)
    assert [process.poll() for process in both].count(None) == 1


def test_a_box_that_does_not_go_off_is_told_again(
    agent_box: AgentBox, watch: Watch
) -> None:
    """Off again after a while, by the stronger command if the box has one."""
    forced = agent_box.root / "forced"
    watch(
        deadline=time.time(),
        poweroff_wait=0.5,
        poweroff_force=["touch", str(forced)],
    )
    until(forced.exists)
    until(lambda: agent_box.off.read_bytes().count(b"off") >= 2)


def test_poweroff_when_asked(agent_box: AgentBox) -> None:
    """The answer comes first; then the job is ended and the box goes off."""
    agent_box.describe(poweroff_wait=0)
    with agent_box.link() as link:
        link.ask("start", job="j1", shell="sleep 93")
        assert link.ask("poweroff") == {}
        until(agent_box.off.exists)
        record = link.ask("job")["record"]
    assert record["cause"] == "poweroff"


def test_watch_ends_with_the_box(agent_box: AgentBox, watch: Watch) -> None:
    """A box directory that is removed takes its watch with it, and nothing else."""
    process = watch()
    until((agent_box.root / "watch.lock").exists)
    agent_box.root.rename(agent_box.root.with_name("gone"))
    assert process.wait(60) == 0
    assert not (agent_box.root.with_name("gone") / "powered-off").exists()
