"""Instances with Linux machines behind the fake: whole `inv run` lines."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import pytest

from onebox import agent_bundle
from onebox.providers.gcp.provider import GCP
from onebox.providers.values import BootConfig, Request
from onebox.remote import keys
from tests.conftest import Project
from tests.fakes.gcp.credentials import EMAIL
from tests.fakes.gcp.real_machines import RealMachines
from tests.fakes.gcp.server import Server
from tests.fakes.machines import Machines
from tests.fakes.short_pauses import short_pauses

from ..boxes import UP, MakeRequest, open_channel, until_state
from .conftest import OFFER

TOML = """\
provider = "gcp"
project = "census"
vm = "small"

[run]
command = "sh job.sh"

[fetch]
outputs = ["results/"]

[gcp]
ssh_cidr = "127.0.0.1/32"
"""
JOB = """\
echo working
mkdir -p results
hostname > results/where
cat /proc/1/comm >> results/where
"""
# A job that saves its work at a notice.
SAVES = "trap 'echo ok >saved; sync; exit 0' TERM; echo on; while :; do sleep 0.1; done"


@pytest.fixture
def real_machines(server: Server, machines: Machines) -> RealMachines:
    """The machines behind the server's instances."""
    return RealMachines(server.account, machines)


@pytest.fixture
def make_armed(make_request: MakeRequest, ssh_key_file: Path) -> MakeRequest:
    """A function that returns requests with the complete agent."""

    def make(seconds: float = 3600.0, **changes: object) -> Request:
        boot_config = BootConfig(
            time.time() + seconds, 900, 900, agent_bundle.bundle(), agent_bundle.seed()
        )
        key = keys.public_half(ssh_key_file)
        return make_request(user_key=key, boot_config=boot_config, **changes)

    return make


class TestBoxes:
    @pytest.mark.parametrize("base", ["ubuntu-24.04", "debian-12"])
    def test_a_box_publishes_its_host_key(
        self,
        real_machines: RealMachines,
        provider: GCP,
        make_armed: MakeRequest,
        ssh_key_file: Path,
        tmp_path: Path,
        base: str,
    ) -> None:
        """Its ssh server has that key alone."""
        request = make_armed(base=base)
        box = until_state(provider, provider.create(request), "running")
        assert box.host_key != request.host_key.public
        with open_channel(box, ssh_key_file, tmp_path) as link:
            answer = link.request("hello")
        assert answer["box"] == box.id
        assert answer["deadline"] == request.boot_config.deadline
        provider.delete(box)

    def test_a_restarted_box_ends_at_its_new_deadline(
        self,
        real_machines: RealMachines,
        provider: GCP,
        make_armed: MakeRequest,
        ssh_key_file: Path,
        tmp_path: Path,
    ) -> None:
        """It has stopped at the first one."""
        began = time.monotonic()
        box = provider.create(make_armed())
        running = until_state(provider, box, "running")
        # Long enough on this host to see the box running.
        lives = max(15.0, 5 * (time.monotonic() - began))
        provider.stop(box)
        stopped = until_state(provider, box, "stopped")
        box = provider.start(stopped, time.time() + lives)
        box = until_state(provider, box, "running")
        stopped = until_state(provider, box, "stopped")
        assert time.time() >= box.deadline
        assert stopped.why == "deadline"
        second = time.time() + 3600.5
        again = until_state(provider, provider.start(stopped, second), "running")
        assert again.host_key == running.host_key
        with open_channel(again, ssh_key_file, tmp_path) as link:
            assert link.request("hello")["deadline"] == second
        provider.delete(again)

    def test_a_preempted_job_saves_its_checkpoint(
        self,
        server: Server,
        real_machines: RealMachines,
        provider: GCP,
        make_armed: MakeRequest,
        ssh_key_file: Path,
        tmp_path: Path,
    ) -> None:
        """The box has warned it."""
        size = dataclasses.replace(OFFER, spot=True)
        box = provider.create(make_armed(offer=size))
        box = until_state(provider, box, "running")
        with open_channel(box, ssh_key_file, tmp_path) as link:
            link.request("start", job="spot", shell=SAVES)
            while not link.request("job")["log_bytes"]:
                time.sleep(0.1)
            real_machines.warn(box.id)
            link.begin("follow", job="spot", offset=0)
            ends = [json.loads(text) for kind, text in link.frames() if kind == b"A"]
        assert ends[-1]["record"]["cause"] == "preempted"
        server.account.preempt(box.id)
        stopped = until_state(provider, box, "stopped")
        assert stopped.why == "preempted"
        again = provider.start(stopped, time.time() + 600)
        again = until_state(provider, again, "running")
        with open_channel(again, ssh_key_file, tmp_path):
            saved = real_machines.of[box.id].run("cat", "/home/onebox/work/saved")
        assert saved == "ok\n"
        provider.delete(again)


@pytest.fixture
def project(server: Server, real_machines: RealMachines, project: Project) -> Project:
    """A project whose boxes are instances."""
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "CLOUDSDK_CONFIG",
        "NO_GCE_CHECK",
        "HTTPS_PROXY",
        "NO_PROXY",
    ):
        project.environ[name] = os.environ[name]
    project.environ.update(short_pauses(project.home / "pauses"))
    project.environ["ONEBOX_GCP_ENDPOINT"] = server.address
    project.write("onebox.toml", TOML)
    project.write("job.sh", JOB)
    return project


class TestInv:
    def test_inv_run_goes_through_all_stages_on_an_instance(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """It leaves nothing behind."""
        server.fail("instances.insert", "op:ZONE_RESOURCE_POOL_EXHAUSTED")
        done = project.inv("run", timeout=300)
        assert (done.code, done.out) == (0, "working\n"), done.err
        first, call = server.calls("instances.insert")
        assert first.path["zone"] != call.path["zone"]
        assert project.read("results/where") == f"{call.body['name']}\nsystemd\n"
        world = server.account
        assert not world.instances.all
        assert not world.instances.disks
        assert not world.firewalls

    def test_an_image_is_built_once_and_booted(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """The set-up runs once, without the identity of the job, and is saved."""
        server.account.service_accounts[EMAIL] = True
        project.environ["ONEBOX_GCP_SERVICE_ACCOUNT"] = EMAIL
        project.write("setup.sh", "sudo touch /opt/made-by-setup\n")
        project.write("onebox.toml", TOML + '\n[image]\nsetup = "setup.sh"\n')
        project.write("job.sh", "ls /opt/made-by-setup\n")
        done = project.inv("run", timeout=400)
        assert (done.code, done.out) == (0, "/opt/made-by-setup\n"), done.err
        calls = server.calls("instances.insert")
        assert ["serviceAccounts" in call.body for call in calls] == [False, True]
        assert f"identity {EMAIL}" in done.err
        assert len(server.account.images) == 1
        assert not server.account.instances.all
        assert not server.account.firewalls

    def test_teardown_waits_for_a_box_that_is_starting(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """A box that a killed client has made has its key first, then it is asked."""
        first = project.start("provision")
        end = time.monotonic() + UP
        while not server.account.instances.all and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.wait(UP)
        done = project.inv("fetch", "teardown", timeout=300)

        assert 0 == done.code, done.err
        assert not server.account.instances.all
        assert not server.account.firewalls
