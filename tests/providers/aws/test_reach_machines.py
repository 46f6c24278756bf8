"""
Whole `inv` lines on EC2 boxes with Linux machines that no address here leads to.

ssh gets there through the AWS CLI alone, by an endpoint or by SSM.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.aws.account import Account
from tests.fakes.aws.real_machines import RealMachines
from tests.fakes.machines import Machines, missing
from tests.fakes.short_pauses import short_pauses
from tests.fakes.tunnels import Gateway, Refused, Tools
from tests.fakes.tunnels.aws import Endpoints
from tests.fakes.tunnels.world import add_endpoint

from ...conftest import Project
from ..boxes import UP

TOML = """\
provider = "aws"
project = "census"

[run]
command = "sh job.sh"
secrets = ["AWS_ACCESS_KEY_ID"]

[fetch]
outputs = ["results/"]

[aws]
region = "us-east-1"
reach = "{way}"
private = {private}
"""
JOB = """\
echo working
mkdir -p results
cat /proc/1/comm > results/where
"""
COUNTS = """\
echo started
mkdir -p results
n=0
while [ ! -e /run/go ] && [ $n -lt 600 ]; do n=$((n + 1)); sleep 0.5; done
echo ok >results/n; echo ended
"""

pytestmark = pytest.mark.skipif(bool(missing()), reason=str(missing()))


@pytest.fixture
def real_machines(account: Account, machines: Machines) -> Iterator[RealMachines]:
    """Machines behind the account's instances, which no address leads to."""
    with RealMachines(account, machines, closed=True).standing() as standing:
        yield standing


@pytest.fixture
def aws_side(account: Account, real_machines: RealMachines) -> Iterator[Endpoints]:
    """AWS's side of the tools, with an endpoint in the default VPC."""
    add_endpoint(account)
    yield Endpoints(account, real_machines.connect)
    account.endpoints.clear()


@pytest.fixture
def gateway(aws_side: Endpoints) -> Iterator[Gateway]:
    """The far end of the tools."""
    with Gateway(aws_side.lead) as made:
        yield made


@pytest.fixture
def tools(project: Project, gateway: Gateway) -> Tools:
    """The tools, first in the PATH of the project's user."""
    made = Tools(project.home / "tools", gateway)
    project.environ["PATH"] = made.path
    return made


@pytest.fixture
def lab(aws_environment: str, tools: Tools, project: Project) -> Project:
    """A project whose boxes are reached by an endpoint, and that names its region."""
    variables = {name: text for name, text in os.environ.items() if name[:4] == "AWS_"}
    project.environ.update(variables)
    del project.environ["AWS_REGION"]
    project.environ.update(short_pauses(project.home / "pauses"))
    project.write("job.sh", JOB)
    configure(project)
    return project


def configure(project: Project, way: str = "eice", private: str = "false") -> None:
    """Write onebox.toml."""
    project.write("onebox.toml", TOML.format(way=way, private=private))


@pytest.mark.parametrize(
    ("way", "private"), [("eice", "true"), ("eice", "false"), ("ssm", "false")]
)
def test_inv_run_goes_through_all_stages_by_the_tool(
    lab: Project, account: Account, gateway: Gateway, way: str, private: str
) -> None:
    """No rule for a network is ever made, and nothing is left behind."""
    configure(lab, way, private)
    before = {one.id for one in account.instances()}
    done = lab.inv("run", "--vm=small", timeout=300)
    assert (done.code, done.out) == (0, "working\n"), done.err
    assert lab.read("results/where") == "systemd\n"
    (made,) = [one for one in account.instances() if one.id not in before]
    assert made.state == "terminated"
    assert {one["instance"] for one in gateway.queries if one["key"]} == {made.id}
    opened = [c for c in account.calls if c.action == "AuthorizeSecurityGroupIngress"]
    for call in opened:
        for rule in call.parameters["IpPermissions"]:
            assert not rule.get("IpRanges") and not rule.get("Ipv6Ranges")
    assert bool(opened) == (way == "eice")
    assert not re.search(r"traceback|warning", done.err, re.IGNORECASE), done.err


def test_step_by_step_and_later_lines_need_no_setting(
    lab: Project, account: Account, gateway: Gateway, tools: Tools
) -> None:
    """The box remembers how it is reached; the user's own ssh and ports use it too."""
    done = lab.inv("provision", "push", timeout=300)
    assert done.code == 0, done.err
    plain = TOML.format(way="", private="false")
    lab.write("onebox.toml", plain.replace('reach = ""\n', ""))
    done = lab.inv("ssh", "--", "cat", "job.sh", timeout=300)
    assert (done.code, done.out) == (0, JOB), done.err
    # The user's own ssh.
    folder = lab.home / ".ssh"
    folder.mkdir(mode=0o700)
    done = lab.inv("ssh", "--install", timeout=300)
    assert done.code == 0, done.err
    environ = {**lab.environ, "HOME": str(lab.home)}
    own = subprocess.run(
        ["ssh", "-F", str(folder / "config"), "onebox-census", "hostname"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=UP,
        check=False,
    )
    assert own.returncode == 0, own.stderr
    assert gateway.queries[-1]["port"] == 22
    done = lab.inv("run", "fetch", "teardown", timeout=300)
    assert (done.code, done.out) == (0, "working\n"), done.err
    assert not account.alive()


def test_a_tunnel_that_breaks_is_opened_again_while_the_job_runs(
    lab: Project, account: Account, gateway: Gateway, real_machines: RealMachines
) -> None:
    """No byte of the log is lost, and the reason of a longer break is printed."""
    lab.write("job.sh", COUNTS)
    known = set(real_machines.machines)
    line = lab.start("run")
    lab.until("started\n")
    (instance,) = set(real_machines.machines) - known
    message = "\nAn error occurred (Throttled) when calling it: slow down"
    gateway.refusal = Refused(message, 254)
    assert gateway.cut()
    lab.until("slow down")
    gateway.refusal = None
    real_machines.machines[instance].run("touch", "/run/go")
    assert line.wait(UP) == 0, lab.err
    assert lab.out == "started\nended\n"
    assert lab.err.count("still not connected: aws: An error occurred (Thr") == 1
    assert not account.alive()


def test_a_refused_session_is_one_line_with_the_box_and_the_next_command(
    lab: Project, account: Account
) -> None:
    """A new box is removed after seconds, because it does not help to wait."""
    account.faults.denied.add("ssm:StartSession")
    configure(lab, "ssm")
    done = lab.inv("provision", timeout=300)
    assert done.code == 70, done.err
    (failure,) = [one for one in done.err.splitlines() if "onebox[" in one]
    assert "cannot be reached: aws: An error occurred (AccessDenied" in failure
    assert "not authorized to perform: ssm:StartSession" in failure
    assert done.err.endswith(f"{failure}\n  next: inv doctor\n")
    assert not account.alive()


def test_a_box_that_can_no_longer_be_reached_is_named_with_its_cost(
    lab: Project, account: Account, gateway: Gateway
) -> None:
    """It stays, and so does its job; a teardown needs --discard-outputs."""
    configure(lab, "ssm")
    done = lab.inv("provision", timeout=300)
    assert done.code == 0, done.err
    gateway.cut()
    account.faults.denied.add("ssm:StartSession")
    done = lab.inv("ssh", "--", "true", timeout=300)
    assert done.code == 74, done.err
    (failure,) = [one for one in done.err.splitlines() if "onebox[" in one]
    assert "aws: An error occurred (AccessDenied" in failure
    (box,) = {
        call.parameters["ClientToken"]
        for call in account.calls
        if call.action == "RunInstances"
    }
    assert box in done.err and "$0." in done.err and "next: inv doctor" in done.err
    assert account.alive(box)
    done = lab.inv("teardown", "--discard-outputs", "--yes", timeout=300)
    assert done.code == 0, done.err
    assert not account.alive()


def test_plan_and_run_refuse_without_the_tool_or_the_endpoint(
    lab: Project, account: Account, tools: Tools
) -> None:
    """No call has created anything."""
    account.endpoints.clear()
    tools_error = "session-manager-plugin is not on this machine"
    for way, text in (
        ("eice", "has no EC2 Instance Connect Endpoint"),
        ("ssm", tools_error),
    ):
        configure(lab, way)
        if way == "ssm":
            tools.remove("session-manager-plugin")
        account.calls.clear()
        for task in ("plan", "run"):
            done = lab.inv(task, timeout=300)
            assert done.code in (64, 78), done.err
            assert text in done.err + done.out, (task, done.err, done.out)
        assert not {"RunInstances", "CreateSecurityGroup"} & set(account.counted())


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('ssh_cidr = "10.0.0.0/8"', "ssh_cidr contradicts reach"),
        ("allow_world_ssh = true", "allow_world_ssh contradicts reach"),
        ('jump = "bastion"', "jump contradicts reach"),
        ('reach = "iap"', '"iap" is not one of eice, ssm'),
    ],
)
def test_contradictions_are_one_line(lab: Project, line: str, text: str) -> None:
    """The exit code is that of a wrong setting."""
    toml = TOML.format(way="eice", private="false")
    if line.startswith("reach"):
        toml = toml.replace('reach = "eice"\n', "")
    lab.write("onebox.toml", toml + line + "\n")
    done = lab.inv("plan", timeout=300)
    assert done.code == 78, done.err
    failed = [one for one in done.err.splitlines() if "onebox[78]" in one]
    assert len(failed) == 1
    assert text in failed[0].replace(":", ""), failed


def test_the_tools_refuse_what_the_real_ones_refuse(
    lab: Project, tools: Tools, tmp_path: Path
) -> None:
    """Otherwise a wrong command would pass these tests."""

    def run(*words: str, **env: str) -> tuple[int, str]:
        done = subprocess.run(
            words,
            env={**lab.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=UP,
            check=False,
        )
        return done.returncode, done.stderr.strip()

    aws = str(tools.folder / "aws")
    tunnel = (aws, "ec2-instance-connect", "open-tunnel", "--instance-id", "i-1")
    session = (aws, "ssm", "start-session", "--target", "i-1", "--region", "us-east-1")
    assert run(*tunnel)[0] == 253
    assert "specify a region" in run(*tunnel)[1]
    assert run(*tunnel, "--remote-prot", "22")[0] == 252
    assert run(*tunnel, "--region")[0] == 252
    assert run(*tunnel[:-2], "--region", "us-east-1")[0] == 252
    wrong = run(*tunnel, "--region", "us-east-1")
    assert wrong[0] == 254
    assert "InvalidInstanceID.NotFound" in wrong[1]
    assert "InvalidDocument" in run(*session)[1]
    document = ("--document-name", "AWS-StartSSHSession", "--parameters")
    assert "InvalidDocument" in run(*session, *document, "portNumber=23")[1]
    found = run(*session, *document, "portNumber=22")
    assert "(TargetNotConnected)" in found[1]
    lost = run(*session, AWS_ACCESS_KEY_ID="")
    assert (lost[0], "Unable to locate credentials" in lost[1]) == (253, True)
