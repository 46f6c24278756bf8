"""What is written down of a box that is gone decides about no other box."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import Any

import pytest

from onebox.store.box_store import BoxStore
from tests.fakes.digitalocean.server import TOKEN, Server

from .conftest import TOML, Project
from .providers.digitalocean.conftest import server

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


@pytest.fixture
def cloud(project: Project, server: Server) -> Server:
    """DigitalOcean, whose droplets answer no ssh; the project may use it."""
    project.environ["DIGITALOCEAN_END_POINT"] = server.address
    project.environ["DIGITALOCEAN_ACCESS_TOKEN"] = TOKEN
    return server


def store(project: Project) -> BoxStore:
    """Return what is written down of the project's box."""
    (state,) = project.home.glob("state/projects/*/main/state.json")
    return BoxStore(state.parent)


def remove_elsewhere(project: Project) -> None:
    """Have the project's local boxes gone without a word to this project."""
    project.cut_power()
    shutil.rmtree(project.home / "local" / "boxes")


class TestProvider:
    def test_of_a_local_box_that_is_gone(self, project: Project, cloud: Server) -> None:
        """
        onebox.toml decides where the next box is, not the record of one that is gone.
        """
        project.inv("provision")
        project.write("onebox.toml", CLOUD)
        assert "this machine" in project.inv("plan").err
        assert [] == cloud.requests
        remove_elsewhere(project)
        done = project.inv("plan")

        assert 0 == done.code, done.err
        assert "digitalocean" in done.err
        assert "nyc3" in done.err
        assert "this machine" not in done.err + done.out

    def test_of_a_droplet_that_is_gone(self, project: Project, cloud: Server) -> None:
        """
        A job runs here if onebox.toml says so, whatever paid box there was before.
        """
        project.inv("provision")
        remove_elsewhere(project)
        store(project).update(
            provider="digitalocean", place="nyc3", box="ob-gone", created=1.0
        )
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert "local" in done.err
        assert 0 == cloud.count("POST", "droplets")
        assert "42\n" == project.read("results/answer.txt")

    def test_of_a_box_that_still_exists(self, project: Project, cloud: Server) -> None:
        """
        A box that exists is used where it is: there is never a silent second one.
        """
        project.inv("provision")
        before = project.boxes()
        project.write("onebox.toml", CLOUD)
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert before == project.boxes()
        assert [] == cloud.requests

    def test_after_a_teardown_on_the_same_line(
        self, project: Project, cloud: Server
    ) -> None:
        """
        Once the box elsewhere is torn down, the rest of the line heeds onebox.toml.
        """
        project.inv("provision")
        project.write("onebox.toml", CLOUD)
        done = project.inv("teardown", "plan")

        assert 0 == done.code, done.err
        assert [] == project.boxes()
        assert "nyc3" in done.err

    def test_of_one_that_may_not_show_yet(
        self, project: Project, cloud: Server
    ) -> None:
        """
        A box that was made a moment ago and does not show yet counts as there.
        """
        project.inv("provision")
        remove_elsewhere(project)
        store(project).update(
            provider="digitalocean", place="nyc3", box="ob-new", created=time.time()
        )
        refused = project.inv("provision", "--provider=local")

        assert 64 == refused.code, refused.err
        assert "(ob-new) is on digitalocean" in refused.err
        assert [] == project.boxes()


class TestRemoval:
    def test_that_was_killed_is_not_waited_for(
        self, project: Project, cloud: Server
    ) -> None:
        """
        A box whose removal was killed is looked for once, then it is forgotten.

        What else was made for it goes, too.
        """
        project.write("onebox.toml", CLOUD)
        line = project.start("provision")
        until_seen(project, cloud)
        cloud.killing = killing_after(line.pid, cloud, "DELETE", "droplets/")
        os.kill(line.pid, signal.SIGINT)
        assert -signal.SIGKILL == line.wait(300)
        cloud.killing = lambda number, moment: False
        assert {} == cloud.account.droplets
        assert {} != cloud.account.firewalls
        assert store(project).open_intents()
        done = project.inv("teardown")

        assert 0 == done.code, done.err
        assert "no box is left" in done.err
        assert "looking for it" not in done.err
        assert {} == cloud.account.firewalls
        assert [] == store(project).open_intents()

    def test_that_was_refused_is_forgotten(
        self, project: Project, cloud: Server
    ) -> None:
        """
        A box that is gone is no longer recorded, though something of it is left.
        """
        project.write("onebox.toml", CLOUD)
        line = project.start("provision")
        until_seen(project, cloud)
        cloud.fail("DELETE", "firewalls/.*", "500 before", times=99)
        os.kill(line.pid, signal.SIGINT)
        line.wait(300)
        cloud.faults.clear()
        assert {} == cloud.account.droplets
        done = project.inv("teardown")

        assert 0 == done.code, done.err
        assert "looking for it" not in done.err
        assert {} == cloud.account.firewalls


def until_seen(project: Project, cloud: Server) -> None:
    """Wait until the line begun with `start` has seen its box, which is silent."""
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
    def test_deadline_goes_by_the_clouds(
        self, project: Project, cloud: Server, hours: int
    ) -> None:
        """
        A box is given its life by the cloud's clock; that ours is wrong is said.
        """
        project.write("onebox.toml", CLOUD)
        cloud.account.behavior.clock = hours * 3600
        line = project.start("provision")
        until_seen(project, cloud)
        os.kill(line.pid, signal.SIGKILL)
        line.wait(300)
        [droplet] = cloud.account.all_droplets
        expires = store(project).record.deadline - time.time()

        assert abs(expires / 3600 - hours - 8) < 1
        assert any("expires" in word for word in droplet.tags)
        assert "that of the boxes: set it" in project.err

    def test_sweep_goes_by_the_clouds(self, project: Project, cloud: Server) -> None:
        """
        A live box is not removed for an age that only the clock here gives it.
        """
        project.write("onebox.toml", CLOUD)
        cloud.account.behavior.clock = -49 * 3600
        line = project.start("provision")
        until_seen(project, cloud)
        os.kill(line.pid, signal.SIGKILL)
        line.wait(300)
        done = project.inv("sweep", "--yes")

        assert 0 == done.code, done.err
        assert 1 == len(cloud.account.droplets)


def killing_after(pid: int, cloud: Server, method: str, path: str) -> Any:
    """Return what kills a process once a request of this kind has taken effect."""

    def killing(number: int, moment: str) -> bool:
        last = cloud.requests[-1]
        if moment == "after" and last.method == method and last.path.startswith(path):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    return killing
