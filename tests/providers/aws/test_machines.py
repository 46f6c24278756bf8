"""Boxes on EC2 with Linux machines behind the fake: whole `inv run` lines."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox import agent_bundle
from onebox.providers.values import BootConfig, HostKey, Request
from onebox.remote import keys
from tests.fakes.aws import profiles
from tests.fakes.aws.account import Account
from tests.fakes.aws.real_machines import RealMachines
from tests.fakes.machines import Machines, missing
from tests.fakes.short_pauses import short_pauses

from ...conftest import Project
from ..boxes import UP, MakeRequest, open_channel, until_state
from .conftest import MakeProvider

TOML = """\
provider = "aws"
project = "census"

[run]
command = "sh job.sh"

[fetch]
outputs = ["results/"]

[aws]
region = "us-east-1"
ssh_cidr = "127.0.0.1/32"
"""
JOB = """\
echo working
mkdir -p results
cat /proc/1/comm > results/where
"""

pytestmark = pytest.mark.skipif(bool(missing()), reason=str(missing()))


@pytest.fixture
def real_machines(account: Account, machines: Machines) -> Iterator[RealMachines]:
    """Machines behind the account's instances."""
    with RealMachines(account, machines).standing() as standing:
        yield standing


@pytest.fixture
def host_key(tmp_path: Path) -> HostKey:
    """A new host key."""
    return keys.new_host_key(tmp_path)


@pytest.fixture
def project(
    aws_environment: str, real_machines: RealMachines, project: Project
) -> Project:
    """A project whose boxes are on EC2."""
    variables = {name: text for name, text in os.environ.items() if name[:4] == "AWS_"}
    project.environ.update(variables)
    project.environ.update(short_pauses(project.home / "pauses"))
    project.write("onebox.toml", TOML)
    project.write("job.sh", JOB)
    return project


@pytest.mark.parametrize(("spot", "identity"), [(False, None), (True, "train")])
def test_inv_run_goes_through_all_stages_on_ec2(
    project: Project, account: Account, spot: bool, identity: str | None
) -> None:
    """It prints price and identity, and leaves nothing behind."""
    if identity:
        profiles.add(identity, "train-role")
        project.write("onebox.toml", f'{TOML}instance_profile = "{identity}"\n')
    before = {one.id for one in account.instances()}
    line = ["run", "--vm=small", *(["--spot"] if spot else [])]
    done = project.inv(*line, timeout=300)
    assert (done.code, done.out) == (0, "working\n"), done.err
    assert project.read("results/where") == "systemd\n"
    assert "us-east-1" in done.err
    assert ("   identity train\n" in done.err) is bool(identity)
    receipt = json.loads(project.read("results/onebox-receipt.json"))
    assert receipt["box"]["identity"] == identity
    made = [one for one in account.instances() if one.id not in before]
    assert len(made) == 1
    assert made[0].state == "terminated"
    (launch,) = [c for c in account.calls if c.action == "RunInstances"]
    assert launch.parameters["InstanceType"] == made[0].instance_type
    assert ("InstanceMarketOptions" in launch.parameters) == spot
    (box,) = {
        tag["Value"]
        for one in launch.parameters["TagSpecifications"]
        for tag in one["Tags"]
        if tag["Key"] == "onebox:box"
    }
    assert not account.volumes(box)


COUNTS = """\
mkdir -p results ckpt
n=$(cat ckpt/n 2>/dev/null || echo 0)
first=$n
echo "from $n"
while [ $n -lt 12 ]; do
n=$((n + 1)); echo $n > ckpt/draft; mv ckpt/draft ckpt/n; sleep 1
# The job of the first box never ends, however late the preemption comes.
while [ $first = 0 ] && [ $n = 11 ]; do sleep 1; done
done
echo $n > results/n
"""


@pytest.mark.parametrize("notice", [True, False])
def test_a_preempted_job_resumes_on_another_box(
    project: Project, account: Account, real_machines: RealMachines, notice: bool
) -> None:
    """It continues from its last checkpoint."""
    settings = 'checkpoints = ["ckpt/"]\nevery = "1 s"\n\n[aws]'
    project.write("onebox.toml", TOML.replace("[aws]", settings))
    project.write("job.sh", COUNTS)
    known = set(real_machines.machines)
    line = project.start("run", "--spot")
    project.until("from 0\n")
    (instance,) = set(real_machines.machines) - known
    launch = next(c for c in account.calls if c.action == "RunInstances")
    until = time.monotonic() + UP
    while not list(project.root.glob(".onebox/checkpoints/main/*/files/ckpt/n")):
        assert time.monotonic() < until
        time.sleep(0.2)
    if notice:
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 30))
        real_machines.notify(instance, soon)
    else:
        account.preempt(launch.parameters["ClientToken"])
    assert line.wait(2 * UP) == 0, project.err
    first, second = re.findall(r"^from (\d+)$", project.out, re.M)
    assert 0 == int(first) < int(second)
    assert project.read("results/n") == "12\n"
    launches = [c for c in account.calls if c.action == "RunInstances"]
    boxes = [one.parameters["ClientToken"] for one in launches]
    assert len(set(boxes)) == 2
    assert not any(account.volumes(box) for box in boxes)
    for one in set(real_machines.machines) - known:
        assert not real_machines.machines[one].running


def test_an_image_is_built_once_and_booted(project: Project, account: Account) -> None:
    """The set-up runs once, and is saved as an AMI."""
    project.write("setup.sh", "sudo touch /opt/made-by-setup\n")
    project.write("onebox.toml", TOML + '\n[image]\nsetup = "setup.sh"\n')
    project.write("job.sh", "ls /opt/made-by-setup\n")
    for launches in (2, 1):
        account.calls.clear()
        done = project.inv("run", timeout=300)
        assert (done.code, done.out) == (0, "/opt/made-by-setup\n"), done.err
        actions = [call.action for call in account.calls]
        assert launches == actions.count("RunInstances")
        assert launches - 1 == actions.count("CreateImage")


def real(
    request: Request, ssh_key_file: Path, host_key: HostKey, seconds: float
) -> Request:
    """Return the request with keys, the agent and a deadline, for a real machine."""
    until = time.time() + seconds
    boot_config = BootConfig(
        until, 2700, 1800, agent_bundle.bundle(), agent_bundle.seed()
    )
    public = keys.public_half(ssh_key_file)
    return dataclasses.replace(
        request, boot_config=boot_config, user_key=public, host_key=host_key
    )


def test_a_box_has_its_own_host_key_id_and_deadline(
    make_provider: MakeProvider,
    make_request: MakeRequest,
    real_machines: RealMachines,
    account: Account,
    ssh_key_file: Path,
    host_key: HostKey,
    tmp_path: Path,
) -> None:
    """It powers off at its deadline."""
    provider = make_provider()
    request = real(make_request(), ssh_key_file, host_key, 3600)
    began = time.monotonic()
    box = until_state(provider, provider.create(request), "running")
    with open_channel(box, ssh_key_file, tmp_path) as link:
        took = time.monotonic() - began
        hello = link.request("hello")
        assert hello["box"] == box.id
        assert hello["deadline"] == pytest.approx(box.deadline, abs=1)
    provider.stop(box)
    # Long enough on this host to see the box running.
    lifetime = max(25, 5 * took)
    started = until_state(
        provider, provider.start(box, time.time() + lifetime), "running"
    )
    with open_channel(started, ssh_key_file, tmp_path) as link:
        assert link.request("hello")["deadline"] == pytest.approx(
            started.deadline, abs=1
        )
    found = until_state(provider, box, "stopped")
    assert found.why == "deadline"
    provider.delete(found)
    assert not provider.leftovers(box.id)


def test_a_rescue_instance_reads_the_disk_of_a_preempted_box(
    make_provider: MakeProvider,
    make_request: MakeRequest,
    real_machines: RealMachines,
    account: Account,
    ssh_key_file: Path,
    host_key: HostKey,
    tmp_path: Path,
) -> None:
    """The files of the job are there."""
    provider = make_provider()
    request = real(make_request(spot=True), ssh_key_file, host_key, 3600)
    box = until_state(provider, provider.create(request), "running")
    (first,) = account.alive(box.id)
    with open_channel(box, ssh_key_file, tmp_path) as link:
        assert link.request("hello")["box"] == box.id
    real_machines.machines[first.id].run(
        "sh", "-c", "echo precious >/home/onebox/work/x; sync"
    )
    account.preempt(box.id)
    account.wait(box.id, "terminated")
    found = provider.get(box.id, box.place)
    assert found is not None
    assert found.disk_only
    started = until_state(
        provider, provider.start(found, time.time() + 1800), "running"
    )
    with open_channel(started, ssh_key_file, tmp_path) as link:
        hello = link.request("hello")
        assert hello["box"] == box.id
        assert hello["deadline"] == pytest.approx(started.deadline, abs=1)
    (second,) = account.alive(box.id)
    assert second.id != first.id
    output = real_machines.machines[second.id].run("cat", "/home/onebox/work/x")
    assert output.strip() == "precious"
    provider.delete(started)
    assert not provider.leftovers(box.id)
