"""Servers with Linux machines behind the fake: whole `inv run` lines."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from onebox import agent_bundle
from onebox.providers.kernel import user_data
from onebox.providers.values import BootConfig
from onebox.remote import keys
from onebox.remote.connection import SSHConnection
from tests.conftest import Project
from tests.fakes.hetzner.real_machines import RealMachines
from tests.fakes.hetzner.server import ENDING, TOKEN, Server
from tests.fakes.machines import Machines

from ..boxes import MakeRequest, until_state
from .conftest import TIMEOUTS, MakeProvider

TOML = """\
provider = "hetzner"
project = "census"

[run]
command = "sh job.sh"

[fetch]
outputs = ["results/"]

[hetzner]
ssh_cidr = "127.0.0.1/32"
accept_no_watchdog = true
"""
JOB = """\
echo working
mkdir -p results
hostname > results/where
cat /proc/1/comm >> results/where
exit 3
"""


@pytest.fixture
def real_machines(server: Server, machines: Machines) -> RealMachines:
    """The machines behind the project's servers."""
    real_machines = RealMachines(server.project, machines)
    server.project.hardware = real_machines
    server.project.behavior.action = 0.2
    return real_machines


@pytest.fixture
def project(server: Server, real_machines: RealMachines, project: Project) -> Project:
    """A project whose boxes are servers."""
    project.environ["HCLOUD_ENDPOINT"] = server.address
    project.environ["HCLOUD_TOKEN"] = TOKEN
    project.write("onebox.toml", TOML)
    project.write("job.sh", JOB)
    return project


def nothing_is_left(server: Server) -> None:
    """Assert that only the images of Hetzner and of the user exist."""
    kinds = {one.kind for one in server.project.resources.values()}
    assert kinds == {"images"}


class TestInv:
    def test_inv_run_goes_through_all_stages(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """It exits with the job's exit code, and leaves nothing behind."""
        done = project.inv("run", timeout=300)
        assert (done.code, done.out) == (3, "working\n"), done.err
        [created] = server.project.all_servers
        assert project.read("results/where") == f"{created.body['name']}\nsystemd\n"
        assert "inv cleanup" in done.err
        nothing_is_left(server)
        assert not server.project.snapshots()
        assert not server.project.mailed
        for path in [*project.home.rglob("*"), *project.root.rglob("*")]:
            if path.is_file():
                assert TOKEN.encode() not in path.read_bytes(), path

    def test_a_box_with_a_destroy_token_gives_jobs_no_root(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """The token comes over ssh, never through user data."""
        project.write("onebox.toml", TOML.replace("accept_no_watchdog = true", ""))
        project.write("job.sh", "exec 2>/dev/null\nsudo -n true || echo no root\n")
        env = {"END": ENDING, "ONEBOX_HETZNER_DESTROY_TOKEN": "END"}
        done = project.inv("run", env=env, timeout=300)
        assert (done.code, done.out) == (0, "no root\n"), done.err
        assert ENDING not in done.out + done.err
        assert ENDING not in server.project.all_servers[0].body["user_data"]
        nothing_is_left(server)

    def test_an_image_is_built_once_and_booted(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """The set-up runs once, and is saved as a snapshot."""
        project.write("setup.sh", "sudo touch /opt/made-by-setup\n")
        project.write("onebox.toml", TOML + '\n[image]\nsetup = "setup.sh"\n')
        project.write("job.sh", "ls /opt/made-by-setup\n")
        done = project.inv("run", timeout=300)
        assert (done.code, done.out) == (0, "/opt/made-by-setup\n"), done.err
        assert len(server.project.all_servers) == 2
        nothing_is_left(server)
        assert len(server.project.snapshots()) == 1

    def test_a_stopped_box_is_started_with_a_new_deadline(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """The client sends it over ssh, and no note reports a wrong deadline."""
        project.write("job.sh", "mkdir results; echo fine > results/it\n")
        done = project.inv("run", "--detach", timeout=300)
        assert done.code == 0, done.err
        [created] = server.project.all_servers
        machine = real_machines.of[created.id]
        machine.run("systemctl", "poweroff", check=False)
        assert machine.wait_off(120)
        done = project.inv("fetch", timeout=300)
        assert done.code == 0, done.err
        assert "new deadline" not in done.err
        assert project.read("results/it") == "fine\n"
        done = project.inv("teardown", timeout=300)
        assert done.code == 0, done.err
        nothing_is_left(server)


class TestDeadline:
    def test_a_restarted_box_gets_its_new_deadline_over_ssh(
        self,
        server: Server,
        real_machines: RealMachines,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        tmp_path: Path,
    ) -> None:
        """
        A box powers itself off at its deadline; started again, it stays on.

        Its user data still holds the first deadline, so it waits for a client, which
        sends the next one.
        """
        provider = make_provider(dataclasses.replace(TIMEOUTS, shutdown=20))
        first = time.time() + 20
        ssh_key_file = keys.ssh_key_file(tmp_path)
        config = BootConfig(first, 900, 900, agent_bundle.bundle(), agent_bundle.seed())
        request = make_request(
            user_key=keys.public_half(ssh_key_file), boot_config=config
        )
        box = provider.create(request)
        stopped = until_state(provider, box, "stopped")
        assert stopped.why == "deadline"
        assert any("billed in full" in note for note in stopped.notes)
        second = time.time() + 3600.5
        box = provider.start(stopped, second)
        ssh = SSHConnection(box, tmp_path / "ssh", ssh_key_file)
        try:
            link = ssh.open_when_up(300, lambda: None, lambda: None)
            assert float(link.request("hello")["deadline"]) < time.time() + 1000
            machine = real_machines.of[server.project.all_servers[0].id]
            script = provider.post_boot_script(box).decode("ascii")
            machine.run("python3", "-I", "-S", "-c", script)
            assert float(link.request("hello")["deadline"]) == int(second) + 1
            timer = "onebox-deadline.timer"
            shown = machine.run("systemctl", "show", "-P", "TimersCalendar", timer)
            assert "active" in machine.run("systemctl", "is-active", timer)
            assert time.strftime("%H:%M", time.gmtime(second + 100)) in shown
            assert str(int(second) + 1) in machine.run(
                "cat", f"{user_data.ROOT}/deadline-{box.id}"
            )
        finally:
            ssh.forget()
        provider.delete(box)
        nothing_is_left_but_the_key(server)


def nothing_is_left_but_the_key(server: Server) -> None:
    """Assert that only the owner's ssh key is left, which costs nothing."""
    kinds = {one.kind for one in server.project.resources.values()}
    assert kinds == {"images", "ssh_keys"}
