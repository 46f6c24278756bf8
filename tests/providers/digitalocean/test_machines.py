"""Droplets with Linux machines behind the fake: whole `inv run` lines."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from onebox import agent_bundle
from onebox.providers.kernel import user_data
from onebox.providers.kernel.self_destroy import WHERE
from onebox.providers.values import BootConfig, Box
from onebox.remote import keys
from onebox.remote.connection import SSHConnection
from tests.conftest import Project
from tests.fakes.digitalocean.real_machines import RealMachines
from tests.fakes.digitalocean.server import ENDING, TOKEN, Server
from tests.fakes.machines import Machines
from tests.fakes.short_pauses import short_pauses

from ..boxes import MakeRequest, until_state
from .conftest import TIMEOUTS, provider_of

TOML = """\
provider = "digitalocean"
project = "census"

[run]
command = "sh job.sh"

[fetch]
outputs = ["results/"]

[digitalocean]
region = "nyc3"
ssh_cidr = "127.0.0.1/32"
accept_no_watchdog = true
"""
JOB = """\
echo working
mkdir -p results
hostname > results/where
cat /proc/1/comm >> results/where
"""


@pytest.fixture
def real_machines(server: Server, machines: Machines) -> RealMachines:
    """The machines behind the server's droplets."""
    real_machines = RealMachines(server.account, machines)
    server.account.hardware = real_machines
    server.account.behavior.lag = 0.5
    return real_machines


@pytest.fixture
def project(server: Server, real_machines: RealMachines, project: Project) -> Project:
    """A project whose boxes are droplets."""
    project.environ["DIGITALOCEAN_END_POINT"] = server.address
    project.environ["DIGITALOCEAN_ACCESS_TOKEN"] = TOKEN
    project.environ.update(short_pauses(project.home / "pauses"))
    project.write("onebox.toml", TOML)
    project.write("job.sh", JOB)
    return project


class TestInv:
    def test_a_box_with_a_destroy_token_deletes_itself(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """The token comes over ssh, and jobs cannot become root."""
        project.write("onebox.toml", TOML.replace("accept_no_watchdog = true", ""))
        steal = f"sudo -n true || echo no root\ncat {WHERE}/access\n"
        project.write("job.sh", f"exec 2>/dev/null\n{steal}")
        env = {"DO_END": ENDING, "ONEBOX_DIGITALOCEAN_DESTROY_TOKEN": "DO_END"}
        done = project.inv("run", env=env, timeout=300)
        assert (1, "no root\n") == (done.code, done.out), done.err
        assert "but is billed until it is removed" not in done.err
        assert ENDING not in done.out + done.err
        [droplet] = server.account.all_droplets
        assert ENDING not in droplet.body["user_data"]
        assert not server.account.droplets

    def test_inv_run_goes_through_all_stages_on_a_droplet(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """It leaves nothing behind."""
        done = project.inv("run", timeout=300)
        assert (done.code, done.out) == (0, "working\n"), done.err
        [droplet] = server.account.all_droplets
        assert project.read("results/where") == f"{droplet.body['name']}\nsystemd\n"
        assert "inv cleanup" in done.err
        assert not server.account.droplets
        assert not server.account.firewalls
        assert not server.account.snapshots()
        assert TOKEN not in done.out + done.err
        assert TOKEN not in droplet.body["user_data"]
        for path in [*project.home.rglob("*"), *project.root.rglob("*")]:
            if path.is_file():
                assert TOKEN.encode() not in path.read_bytes(), path

    def test_an_image_is_built_once_and_booted(
        self, server: Server, real_machines: RealMachines, project: Project
    ) -> None:
        """The set-up runs once, and is saved as a snapshot."""
        project.write("setup.sh", "sudo touch /opt/made-by-setup\n")
        project.write("onebox.toml", TOML + '\n[image]\nsetup = "setup.sh"\n')
        project.write("job.sh", "ls /opt/made-by-setup\n")
        done = project.inv("run", timeout=300)
        assert (done.code, done.out) == (0, "/opt/made-by-setup\n"), done.err
        assert len(server.account.all_droplets) == 2
        assert not server.account.droplets
        assert not server.account.firewalls
        assert len(server.account.snapshots()) == 1


class TestKilledClient:
    @pytest.mark.parametrize("line", [("fetch", "teardown"), ("ssh", "--", "true")])
    def test_a_command_waits_for_a_box_that_is_starting(
        self,
        server: Server,
        real_machines: RealMachines,
        project: Project,
        line: tuple[str, ...],
    ) -> None:
        """The client that created it was killed before it came up."""
        server.account.behavior.address_after = 5.0
        first = project.start("provision")
        until = time.monotonic() + 300
        while not server.account.all_droplets and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.wait(300)
        done = project.inv(*line, timeout=300)

        assert 0 == done.code, done.err
        assert 0 == project.inv("teardown", timeout=300).code
        assert not server.account.droplets


class TestDeadline:
    def test_a_restarted_box_ends_at_its_new_deadline(
        self,
        server: Server,
        real_machines: RealMachines,
        make_request: MakeRequest,
        tmp_path: Path,
    ) -> None:
        """
        A box powers itself off at its deadline; started again, it lives on.

        Its user data still holds the first deadline, which has long been over. Then
        it is brought a token to end itself with, which no job can read.
        """
        timeouts = dataclasses.replace(TIMEOUTS, shutdown=20)
        environ = {"DO_END": ENDING}
        provider = provider_of(timeouts, destroy_token="DO_END", environ=environ)
        first = time.time() + 20
        ssh_key_file = keys.ssh_key_file(tmp_path)
        request = make_request(
            user_key=keys.public_half(ssh_key_file),
            boot_config=BootConfig(
                first, 900, 900, agent_bundle.bundle(), agent_bundle.seed()
            ),
        )
        box = provider.create(request)
        stopped = until_state(provider, box, "stopped")
        assert stopped.why == "deadline"
        assert any("billed" in note for note in stopped.notes)
        second = time.time() + 3600.5
        box = provider.start(stopped, second)
        ssh = SSHConnection(box, tmp_path / "door", ssh_key_file)
        try:
            link = ssh.open_when_up(300, lambda: None, lambda: None)
            answer = link.request("hello")
            assert second <= float(answer["deadline"]) <= second + 1
            become_root = ["sudo", "-n", "python3", "-I", "-S", "-"]
            assert (
                exit_code_of(ssh, box, become_root, provider.post_boot_script(box)) == 0
            )
            # From now on only root can read the token on the box.
            assert exit_code_of(ssh, box, ["sudo", "-n", "true"]) != 0
            assert exit_code_of(ssh, box, ["cat", f"{WHERE}/access"]) != 0
            assert link.request("hello")["deadline"] == answer["deadline"]
        finally:
            ssh.forget()
        machine = real_machines.of[server.account.all_droplets[0].id]
        assert ENDING in machine.run("cat", f"{WHERE}/access")
        assert "tmpfs" in machine.run("findmnt", "-n", "-T", WHERE)
        assert f"{WHERE}/end.py" in machine.run("cat", f"{user_data.ROOT}/box.json")
        assert "active" in machine.run("systemctl", "is-active", "onebox-watch")
        provider.delete(box)
        assert not server.account.droplets


def exit_code_of(
    ssh: SSHConnection, box: Box, words: list[str], stdin: bytes = b""
) -> int:
    """Run a command on the box as its user; return its exit code."""
    argv = ["ssh", "-F", str(ssh.config), box.id, *words]
    done = subprocess.run(
        argv, input=stdin, capture_output=True, timeout=60, check=False
    )
    assert ENDING.encode() not in done.stdout + done.stderr
    return done.returncode
