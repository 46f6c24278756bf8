"""The output of real `inv` commands about prices and refusals of EC2."""

from __future__ import annotations

import json
import os

import pytest

from onebox.providers.aws.provider import AWS
from onebox.providers.values import Offer
from tests.fakes.aws.account import Account

from ...conftest import Project
from ...conftest import project as project

TOML = """\
provider = "aws"
vm = "small"
[aws]
region = "us-east-1"
{more}
[run]
command = "true"
"""
CIDR = 'ssh_cidr = "198.51.100.7/32"'


@pytest.fixture
def paid(account: Account, aws_environment: str, project: Project) -> Project:
    """A project whose provider is AWS."""
    variables = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    # No public service is asked for this machine's address.
    variables.update(HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="127.0.0.1")
    project.environ.update(variables)
    project.write("onebox.toml", TOML.format(more=CIDR))
    return project


def test_without_this_machines_address_one_candidate_is_asked_for(
    account: Account, paid: Project
) -> None:
    """The address is unknown for every offer: one error, at once."""
    paid.write("onebox.toml", TOML.format(more=""))
    done = paid.inv("provision")
    assert done.code == 64
    assert done.err.count("public address is not certain") == 1
    assert "set ssh_cidr" in done.err
    counted = account.counted()
    assert "RunInstances" not in counted
    assert counted["DescribeSecurityGroups"] == 1
    assert sum(counted.values()) < 30, counted


def test_without_capacity_each_cause_is_one_row(
    account: Account, paid: Project
) -> None:
    """All candidates are asked for, and refused in one line."""
    account.faults.full.add(("*", "*", None))
    done = paid.inv("provision")
    assert done.code == 75
    assert account.counted()["RunInstances"] > 8
    rows = [line for line in done.err.splitlines() if line.endswith(": no capacity")]
    assert len(rows) == 1
    assert " more in " in rows[0]
    assert " zones: no capacity" in rows[0]
    assert "We currently do not have" not in done.err
    assert max(map(len, done.err.splitlines())) < 200


def test_a_vcpu_limit_is_tried_once_in_its_region(
    account: Account, paid: Project
) -> None:
    """A limit of the region's refuses all its zones; the link to raise it stays."""
    account.faults.cpus = 0
    done = paid.inv("provision")
    assert done.code == 69
    assert account.counted()["RunInstances"] == 1
    assert done.err.count("vCPU limit of 0") == 1
    assert (
        "next: request an increase: https://console.aws.amazon.com/servicequotas"
        in (done.err)
    )


@pytest.mark.parametrize("known_before", [False, True])
def test_a_price_list_that_may_not_be_read_is_named_as_the_reason(
    account: Account, paid: Project, known_before: bool
) -> None:
    """There is no $? without a reason, nor where a price was known before."""
    if known_before:
        assert "$0.19/h now" in paid.inv("plan").out
    account.faults.denied.add("pricing:GetProducts")
    done = paid.inv("plan")
    assert done.code == 0
    assert "these credentials lack the permission pricing:GetProducts" in done.out
    if known_before:
        assert "$0.19/h 1 min ago" in done.out
        assert "$?" not in done.out
    else:
        assert "at most $?" in done.out


@pytest.mark.parametrize(
    ("type_", "place", "spot", "cpus", "also"),
    [
        ("m7i.xlarge", "us-east-1b", False, 4, True),
        ("r6a.2xlarge", "us-east-1a", False, 8, True),
        ("m7i.large", "us-east-1a", False, 2, False),
        ("m7i.xlarge", "us-west-2a", False, 4, False),
        ("m7i.xlarge", "us-east-1a", True, 4, False),
        ("g6.xlarge", "us-east-1a", False, 4, False),
    ],
)
def test_a_vcpu_limit_covers_the_same_region_market_and_kind_of_type(
    provider: AWS, type_: str, place: str, spot: bool, cpus: int, also: bool
) -> None:
    """A smaller type, another region, spot and GPU types have their own limit."""
    refused = Offer("s", "m6a.xlarge", 4, 1, None, None, place="us-east-1a")
    other = Offer("s", type_, cpus, 1, None, None, spot, place)
    assert provider.also_refused(refused, "VcpuLimitExceeded", other) == also


class TestOffers:
    """`inv offers` lists the types of a size, best first, and creates nothing."""

    def test_prices_come_with_place_and_ceiling(
        self, account: Account, paid: Project
    ) -> None:
        """A spot offer shows what it saves against on-demand capacity."""
        done = paid.inv("offers", "--spot", "--json")

        found = json.loads(done.out)
        first = found["offers"][0]
        assert 0 == done.code
        assert first["spot"]
        assert first["hourly_usd"] < first["on_demand_hourly_usd"]
        assert first["at_most_usd"] == pytest.approx(8 * first["hourly_usd"])
        assert first["place"].startswith("us-east-1")
        prices = [offer["hourly_usd"] for offer in found["offers"]]
        assert prices == sorted(prices)
        assert "RunInstances" not in account.counted()

    def test_a_limit_marks_the_offers_that_it_refuses(self, paid: Project) -> None:
        """The row says which limit refuses it."""
        toml = TOML.format(more=CIDR) + "[limits]\nmax_price = 0.01\n"
        paid.write("onebox.toml", toml)

        done = paid.inv("offers", "--limit=2")
        rows = done.out.splitlines()[1:]
        assert 2 == len(rows)
        assert all(
            "refused: could cost more than [limits] max_price" in r for r in rows
        )
        assert "--limit=0 prints all" in done.err


def test_plan_shows_alternatives_and_limits(account: Account, paid: Project) -> None:
    """Other types, other sizes and the ceiling are on stdout, with prices."""
    paid.write(
        "onebox.toml",
        TOML.format(more=CIDR) + "[limits]\nmax_hours = 2\nmax_cost = 9\n",
    )
    done = paid.inv("plan")

    assert 0 == done.code, done.err
    assert "other types: " in done.out
    assert "other sizes: medium: m6a.4xlarge $0.77/h" in done.out
    assert "[limits] max_hours = 2, max_cost = $9" in done.out
    assert "RunInstances" not in account.counted()


def test_plan_without_an_answer_shows_the_rest(account: Account, paid: Project) -> None:
    """The error of the provider is one line; files and command are known."""
    account.faults.denied.add("ec2:DescribeInstances")
    planned = paid.inv("plan")
    done = paid.inv("run")

    assert (77, 77) == (planned.code, done.code)
    assert "provision  ✗ would refuse  these credentials lack" in planned.out
    assert "push       • would run  3 files" in planned.out
    assert "it is unknown what the box has" in planned.out
    assert "these credentials lack the permission ec2:DescribeInstances" in done.err
