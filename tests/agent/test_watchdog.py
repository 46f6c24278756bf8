"""The watchdog powers the box off in time, and for no wrong reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from onebox.agent import watchdog as watchdog_module
from onebox.agent.box import BoxConfig
from onebox.agent.jobs import job_state
from onebox.agent.watchdog import Watchdog
from tests.agent.test_jobs import follow, run
from tests.fakes.agent_box import AgentBox, until

Watch = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def watch(agent_box: AgentBox) -> Iterator[Watch]:
    """Start a watchdog over the box, with these changes in box.json."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**changes: Any) -> subprocess.Popen[bytes]:
        agent_box.describe(**changes)
        started.append(subprocess.Popen(agent_box.command("watch")))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of a watchdog in this process."""
    clock = Clock()
    monkeypatch.setattr(watchdog_module, "boottime", clock)
    return clock


def log(box: AgentBox) -> str:
    """Return the watchdog's log."""
    path = box.root / "watch.log"
    return path.read_text() if path.exists() else ""


def test_deadline_ends_the_job_and_the_box(agent_box: AgentBox, watch: Watch) -> None:
    """At the deadline the job is terminated and recorded, and the box powers off."""
    with agent_box.connect() as link:
        link.request(
            "start", job="j1", shell="trap 'echo saved; exit 0' TERM; sleep 91 & wait"
        )
        # The power-off command keeps a copy of what is recorded when it runs.
        record = agent_box.root / "jobs" / "j1" / "exit"
        copied = agent_box.root / "copied"
        watch(deadline=time.time() + 2, poweroff=["cp", "-p", str(record), str(copied)])
        printed, end = follow(link, "j1")
        assert printed == b"saved\n"
        assert end["record"]["cause"] == "deadline"
        until(copied.exists)
    until(lambda: copied.read_bytes() == record.read_bytes())
    assert "power off: deadline" in log(agent_box)


def test_the_deadline_is_also_measured_by_a_clock_that_cannot_be_set(
    agent_box: AgentBox, watch: Watch
) -> None:
    """A wall clock that is years behind does not keep the box on."""
    far = time.time() + 10 * 365 * 86400
    watch(armed=far - 2, deadline=far)
    until(agent_box.off.exists)
    assert "deadline" in log(agent_box)


def test_a_changed_deadline_counts_at_once(agent_box: AgentBox, clock: Clock) -> None:
    """A changed box.json is read again; an invalid one changes nothing."""
    config = agent_box.root / "box.json"
    now = time.time()
    agent_box.describe(armed=now, deadline=now + 5)
    os.utime(config, (1, 1))
    watchdog = Watchdog(str(agent_box.root))
    agent_box.describe(armed=now + 1, deadline=now + 3600)
    os.utime(config, (2, 2))
    assert watchdog.reason_to_power_off() == ""
    clock.seconds += 6
    config.write_text("{")
    os.utime(config, (3, 3))
    assert watchdog.reason_to_power_off() == ""
    assert "cannot be used" in log(agent_box)
    agent_box.describe(deadline=time.time() - 1)
    os.utime(config, (4, 4))
    assert watchdog.reason_to_power_off() == "deadline"


def test_a_change_of_box_json_during_the_read_is_noticed(
    agent_box: AgentBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box.json that changes right after it was read is read again."""
    os.utime(agent_box.root / "box.json", (1000, 1000))
    load = BoxConfig.load

    def load_before_it_changes(root: str) -> BoxConfig:
        monkeypatch.undo()
        config = load(root)
        agent_box.describe(deadline=time.time() - 1)
        return config

    monkeypatch.setattr(BoxConfig, "load", load_before_it_changes)
    watchdog = Watchdog(str(agent_box.root))
    assert watchdog.reason_to_power_off() == "deadline"


def test_setup_grace_without_a_job(agent_box: AgentBox, watch: Watch) -> None:
    """A box on which no job was ever started powers off after the setup grace."""
    watch(setup_grace=1.5)
    until(agent_box.off.exists)
    assert "no job ever started" in log(agent_box)


def test_idle_grace_after_the_last_job(agent_box: AgentBox, watch: Watch) -> None:
    """Without a job and a client, the box powers off after the idle grace."""
    run(agent_box, shell="true")
    watch(idle_grace=1.5)
    until(agent_box.off.exists)
    assert "no client" in log(agent_box)


def test_a_connected_client_keeps_the_box_on(agent_box: AgentBox, clock: Clock) -> None:
    """Changes of the lease keep an idle box on, whatever their time stamps are."""
    run(agent_box, shell="true")
    agent_box.describe(idle_grace=100, setup_grace=1)
    watchdog = Watchdog(str(agent_box.root))
    for number in range(12):
        clock.seconds += 99
        os.utime(agent_box.root / "lease", (1000 + number, 1000 + number))
        assert watchdog.reason_to_power_off() == ""
    clock.seconds += 99
    assert watchdog.reason_to_power_off() == ""
    clock.seconds += 1
    assert watchdog.reason_to_power_off() == "no job and no client"


def test_a_quiet_job_keeps_the_box_on(agent_box: AgentBox, clock: Clock) -> None:
    """A running job keeps the box on; the idle grace counts from its end."""
    go_on = agent_box.work / "go-on"
    with agent_box.connect() as link:
        link.request(
            "start", job="j1", shell=f"until [ -e {go_on} ]; do sleep .1; done"
        )
    agent_box.describe(idle_grace=100, setup_grace=1)
    watchdog = Watchdog(str(agent_box.root))
    clock.seconds += 1000
    assert watchdog.reason_to_power_off() == ""
    go_on.touch()
    until(lambda: not job_state.running(watchdog.box))
    clock.seconds += 99
    assert watchdog.reason_to_power_off() == ""
    clock.seconds += 1
    assert watchdog.reason_to_power_off() == "no job and no client"


def test_a_job_gets_the_time_that_is_left_before_a_preemption(
    agent_box: AgentBox, watch: Watch
) -> None:
    """After the announcement of a preemption, the job gets the time that is left."""
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
    with agent_box.connect() as link:
        link.request(
            "start", job="j1", argv=[sys.executable, "-c", job], cancel_grace=0.1
        )
        watch()
        until(lambda: link.request("job")["log_bytes"])
        goes = time.time() + 6
        fresh = agent_box.root / "notice.new"
        fresh.write_text(json.dumps({"at": goes}))
        fresh.replace(agent_box.root / "notice")
        printed, end = follow(link, "j1")
    assert printed == b"on\nsaving\nsaved\n"
    assert end["record"]["cause"] == "preempted"
    assert not agent_box.off.exists()
    assert "job j1" in log(agent_box)


def test_a_second_watchdog_ends_at_once(agent_box: AgentBox, watch: Watch) -> None:
    """If two watchdogs are started, one of them ends at once, without an error."""
    both = [watch(), watch()]
    until(lambda: any(process.poll() is not None for process in both))
    assert [process.poll() for process in both].count(0) == 1
    time.sleep(0.5)
    assert [process.poll() for process in both].count(None) == 1


def test_a_box_that_stays_on_is_powered_off_again(
    agent_box: AgentBox, watch: Watch
) -> None:
    """A box that is still on is powered off again, and by force if it has a command."""
    forced = agent_box.root / "forced"
    watch(
        deadline=time.time(),
        poweroff_wait=0.5,
        poweroff_force=["touch", str(forced)],
    )
    until(forced.exists)
    until(lambda: agent_box.off.read_bytes().count(b"off") >= 2)


def test_poweroff_answers_before_the_box_powers_off(agent_box: AgentBox) -> None:
    """The answer comes first; then the job is ended and the box powers off."""
    agent_box.describe(poweroff_wait=0)
    with agent_box.connect() as link:
        link.request("start", job="j1", shell="sleep 93")
        assert link.request("poweroff") == {}
        until(agent_box.off.exists)
        record = link.request("job")["record"]
    assert record["cause"] == "poweroff"


def test_the_watchdog_ends_when_its_directory_is_removed(
    agent_box: AgentBox, watch: Watch
) -> None:
    """If the box's directory is removed, its watchdog ends and powers nothing off."""
    process = watch()
    until((agent_box.root / "watch.lock").exists)
    agent_box.root.rename(agent_box.root.with_name("gone"))
    assert process.wait(60) == 0
    assert not (agent_box.root.with_name("gone") / "powered-off").exists()
