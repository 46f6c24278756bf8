"""The record of a box that is gone does not decide about any other box."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import Any

import pytest

from onebox.store.box_store import BoxStore
from tests.conftest import TOML, Project
from tests.fakes.digitalocean.account import Droplet, Hardware
from tests.fakes.digitalocean.server import TOKEN, Server
from tests.fakes.short_pauses import short_pauses
from tests.providers.digitalocean.conftest import server

__all__ = ["server"]

CLOUD = (
    'provider = "digitalocean"\n'
    + TOML
    + """
[digitalocean]
region = "nyc3"
ssh_cidr = "127.0.0.1/32"
accept_no_watchdog = true
"""
)


class Unreachable(Hardware):
    """Droplets to which each connection fails at once, without a time-out."""

    def address(self, droplet: Droplet) -> str:
        """Return an address to which no system opens a connection."""
        return "255.255.255.255"


@pytest.fixture
def cloud(project: Project, server: Server) -> Server:
    """DigitalOcean with droplets that do not answer ssh, for use by the project."""
    project.environ["DIGITALOCEAN_END_POINT"] = server.address
    project.environ["DIGITALOCEAN_ACCESS_TOKEN"] = TOKEN
    project.environ.update(short_pauses(project.home / "pauses"))
    server.account.hardware = Unreachable()
    return server


def store(project: Project) -> BoxStore:
    """Return the store of the project's box."""
    (state,) = project.home.glob("state/projects/*/main/state.json")
    return BoxStore(state.parent)


def delete_boxes_unnoticed(project: Project) -> None:
    """Delete the project's local boxes without its knowledge."""
    project.cut_power()
    shutil.rmtree(project.home / "local" / "boxes")


class TestProvider:
    def test_next_box_is_at_the_configured_provider(
        self, project: Project, cloud: Server
    ) -> None:
        """onebox.toml decides where the next box is, not the record of a gone box."""
        project.inv("provision")
        project.write("onebox.toml", CLOUD)
        assert "this machine" in project.inv("plan").out
        assert [] == cloud.requests
        delete_boxes_unnoticed(project)
        done = project.inv("plan")

        assert 0 == done.code, done.err
        assert "digitalocean" in done.out
        assert "nyc3" in done.out
        assert "this machine" not in done.err + done.out

    def test_job_runs_locally_after_a_paid_box_is_gone(
        self, project: Project, cloud: Server
    ) -> None:
        """If onebox.toml configures local, a gone paid box does not change that."""
        project.inv("provision")
        delete_boxes_unnoticed(project)
        store(project).update(
            provider="digitalocean", place="nyc3", box="ob-gone", created=1.0
        )
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert "local" in done.err
        assert 0 == cloud.count("POST", "droplets")
        assert "42\n" == project.read("results/answer.txt")

    def test_existing_box_is_used_at_its_provider(
        self, project: Project, cloud: Server
    ) -> None:
        """No silent second box is created at the configured provider."""
        project.inv("provision")
        before = project.boxes()
        project.write("onebox.toml", CLOUD)
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert before == project.boxes()
        assert [] == cloud.requests

    def test_after_a_teardown_the_line_uses_the_configured_provider(
        self, project: Project, cloud: Server
    ) -> None:
        """The rest of the command line uses onebox.toml."""
        project.inv("provision")
        project.write("onebox.toml", CLOUD)
        project.write(
            "tasks.py",
            "from invoke import task\nfrom onebox import *\n"
            "@task\ndef both(c):\n    teardown(c)\n    plan(c)\n",
        )
        done = project.inv("both")

        assert 0 == done.code, done.err
        assert [] == project.boxes()
        assert "nyc3" in done.out

    def test_new_box_that_is_not_listed_yet_counts_as_existing(
        self, project: Project, cloud: Server
    ) -> None:
        """A cloud's lists may lag after a create call."""
        project.inv("provision")
        delete_boxes_unnoticed(project)
        store(project).update(
            provider="digitalocean", place="nyc3", box="ob-new", created=time.time()
        )
        refused = project.inv("provision", "--provider=local")

        assert 64 == refused.code, refused.err
        assert "(ob-new) is on digitalocean" in refused.err
        assert [] == project.boxes()


class TestRemoval:
    def test_interrupted_deletion_is_checked_once_and_closed(
        self, project: Project, cloud: Server
    ) -> None:
        """
        A box whose deletion was killed is looked up once, then its record is
        removed.
        """
        project.write("onebox.toml", CLOUD)
        line = project.start("provision")
        wait_until_found(project, cloud)
        cloud.killing = kill_after_request(line.pid, cloud, "DELETE", "droplets/")
        os.kill(line.pid, signal.SIGINT)
        assert -signal.SIGKILL == line.wait(300)
        cloud.killing = lambda number, moment: False
        assert {} == cloud.account.droplets
        assert {} != cloud.account.firewalls
        assert store(project).open_intents()
        done = project.inv("teardown")

        assert 0 == done.code, done.err
        assert "there is no box census/main" in done.err
        assert "looking for it" not in done.err
        assert {} == cloud.account.firewalls
        assert [] == store(project).open_intents()

    def test_gone_box_is_forgotten_although_something_of_it_is_left(
        self, project: Project, cloud: Server
    ) -> None:
        """A box that is gone is no longer recorded."""
        project.write("onebox.toml", CLOUD)
        line = project.start("provision")
        wait_until_found(project, cloud)
        cloud.fail("DELETE", "firewalls/.*", "500 before", times=99)
        os.kill(line.pid, signal.SIGINT)
        line.wait(300)
        cloud.faults.clear()
        assert {} == cloud.account.droplets
        done = project.inv("teardown")

        assert 0 == done.code, done.err
        assert "looking for it" not in done.err
        assert {} == cloud.account.firewalls


def wait_until_found(project: Project, cloud: Server) -> None:
    """Wait until the line of `start` has found its box, which does not answer."""
    end, looks = time.monotonic() + 300, 0
    while time.monotonic() < end:
        if not looks and list(project.home.glob("state/projects/*/main/state.json")):
            book = store(project)
            if book.record.box and not book.open_intents():
                # The second look is asked for once the first has been answered.
                looks = cloud.count("GET", "droplets") + 2
        if looks and cloud.count("GET", "droplets") >= looks:
            return
        time.sleep(0.05)
    raise AssertionError(f"no box: {project.out}{project.err}")


class TestClock:
    @pytest.mark.parametrize("hours", [-49, 25])
    def test_deadline_is_set_by_the_clouds_clock(
        self, project: Project, cloud: Server, hours: int
    ) -> None:
        """A wrong local clock is reported and does not change the box's lifetime."""
        project.write("onebox.toml", CLOUD)
        cloud.account.behavior.clock = hours * 3600
        line = project.start("provision")
        wait_until_found(project, cloud)
        os.kill(line.pid, signal.SIGKILL)
        line.wait(300)
        [droplet] = cloud.account.all_droplets
        expires = store(project).record.deadline - time.time()

        assert abs(expires / 3600 - hours - 8) < 1
        assert any("expires" in word for word in droplet.tags)
        assert "that of the boxes: correct it" in project.err

    def test_cleanup_uses_the_clouds_clock(
        self, project: Project, cloud: Server
    ) -> None:
        """A live box is not removed because the local clock is ahead."""
        project.write("onebox.toml", CLOUD)
        cloud.account.behavior.clock = -49 * 3600
        line = project.start("provision")
        wait_until_found(project, cloud)
        os.kill(line.pid, signal.SIGKILL)
        line.wait(300)
        done = project.inv("cleanup", "--yes")

        assert 0 == done.code, done.err
        assert 1 == len(cloud.account.droplets)


def kill_after_request(pid: int, cloud: Server, method: str, path: str) -> Any:
    """
    Return a fault that kills a process once a request of this kind has taken
    effect.
    """

    def killing(number: int, moment: str) -> bool:
        last = cloud.requests[-1]
        if moment == "after" and last.method == method and last.path.startswith(path):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    return killing
