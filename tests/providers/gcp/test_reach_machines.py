"""
Whole `inv` lines on instances with Linux machines that no address here leads to.

ssh gets there through gcloud alone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.fakes.gcp.real_machines import RealMachines
from tests.fakes.gcp.server import Server
from tests.fakes.machines import Machines, missing
from tests.fakes.short_pauses import short_pauses
from tests.fakes.tunnels import Gateway, Tools
from tests.fakes.tunnels.gcp import IdentityAwareProxy

from ..boxes import UP
from .conftest import ZONE
from .test_reach import log_in

TOML = """\
provider = "gcp"
project = "census"
vm = "small"

[run]
command = "sh job.sh"

[fetch]
outputs = ["results/"]

[gcp]
reach = "iap"
private = {private}
"""
JOB = """\
echo working
mkdir -p results
hostname > results/where
"""

pytestmark = pytest.mark.skipif(bool(missing()), reason=str(missing()))


@pytest.fixture
def real_machines(server: Server, machines: Machines) -> RealMachines:
    """The machines behind the server's instances, which no address leads to."""
    return RealMachines(server.account, machines, closed=True)


@pytest.fixture
def proxy(server: Server, real_machines: RealMachines) -> IdentityAwareProxy:
    """Identity-Aware Proxy."""
    return IdentityAwareProxy(server.account, real_machines.connect)


@pytest.fixture
def gateway(proxy: IdentityAwareProxy) -> Iterator[Gateway]:
    """The far end of gcloud."""
    with Gateway(proxy.lead) as made:
        yield made


@pytest.fixture
def lab(server: Server, gateway: Gateway, project: Project) -> Project:
    """A project whose boxes are instances, and a user who is logged in with gcloud."""
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "CLOUDSDK_CONFIG",
        "NO_GCE_CHECK",
        "HTTPS_PROXY",
        "NO_PROXY",
    ):
        project.environ[name] = os.environ[name]
    log_in(Path(os.environ["CLOUDSDK_CONFIG"]))
    project.environ["PATH"] = Tools(project.home / "tools", gateway).path
    project.environ.update(short_pauses(project.home / "pauses"))
    project.environ["ONEBOX_GCP_ENDPOINT"] = server.address
    project.write("onebox.toml", TOML.format(private="true"))
    project.write("job.sh", JOB)
    return project


@pytest.mark.parametrize("private", ["true", "false"])
def test_inv_run_goes_through_all_stages_by_the_proxy(
    lab: Project, server: Server, gateway: Gateway, private: str
) -> None:
    """It leaves nothing behind."""
    lab.write("onebox.toml", TOML.format(private=private))
    done = lab.inv("run", timeout=300)
    assert (done.code, done.out) == (0, "working\n"), done.err
    (call,) = server.calls("instances.insert")
    name = call.body["name"]
    assert lab.read("results/where") == f"{name}\n"
    assert {one["instance"] for one in gateway.queries} == {name}
    for rule in server.calls("firewalls.insert"):
        if "allowed" in rule.body:
            assert rule.body["sourceRanges"] == ["35.235.240.0/20"]
    assert not server.account.instances.all
    assert not server.account.firewalls


def test_step_by_step_with_a_broken_tunnel_and_inv_ssh(
    lab: Project, server: Server, gateway: Gateway
) -> None:
    """Later lines need no setting, and the next line opens a new tunnel."""
    done = lab.inv("provision", "push", timeout=300)
    assert done.code == 0, done.err
    lab.write("onebox.toml", TOML.format(private="true").replace('reach = "iap"\n', ""))
    gateway.cut()
    done = lab.inv("ssh", "--", "cat", "job.sh", timeout=300)
    assert (done.code, done.out) == (0, JOB), done.err
    done = lab.inv("run", "fetch", "teardown", timeout=300)
    assert (done.code, done.out) == (0, "working\n"), done.err
    assert not server.account.instances.all
    assert not server.account.firewalls


def test_an_account_without_the_permission_is_told_so(
    lab: Project, server: Server, proxy: IdentityAwareProxy
) -> None:
    """The box is removed, and the next command follows the message."""
    proxy.allowed = False
    done = lab.inv("provision", timeout=300)
    assert done.code == 70, done.err
    (failure,) = [one for one in done.err.splitlines() if "onebox[" in one]
    assert "[4033: 'not authorized']" in failure
    assert done.err.endswith(f"{failure}\n  next: inv doctor\n")
    assert not server.account.instances.all


def test_gcloud_refuses_what_the_real_one_refuses(lab: Project, server: Server) -> None:
    """Otherwise a wrong command would pass these tests."""

    def run(*words: str, **env: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(lab.home / "tools" / "gcloud"), *words],
            env={**lab.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=UP,
            check=False,
        )
        return done.returncode, done.stderr.strip()

    start = ("compute", "start-iap-tunnel", "ob-1", "22")
    place = ("--project", "test-project", "--zone", ZONE)
    quiet = ("--verbosity", "error")
    assert "[project] is not currently set" in run(*start, *quiet)[1]
    assert "[--zone] flag" in run(*start, *place[:2], *quiet)[1]
    assert run(*start, *place, "--listen-on-stdn")[0] == 2
    assert "was not found" in run(*start, *place, *quiet, "--listen-on-stdin")[1]
    assert "NumPy" in run(*start, *place, "--listen-on-stdin")[1]
    lost = run(*start, *place, *quiet, CLOUDSDK_CONFIG="/nonexistent")
    assert "active account" in lost[1]
