"""The number of API calls in the life of a box."""

from __future__ import annotations

import pytest

from onebox.providers.base import Requirements
from tests.fakes.ec2.account import Account

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider

# From nothing known to nothing left, for the second box of an owner.
JUSTIFIED = {
    "DescribeSubnets": 1,  # which zones may be used, and what is there
    "DescribeInstanceTypes": 1,  # what fits
    "DescribeInstanceTypeOfferings": 1,  # where it is
    "GetProducts": 2,  # what machine and disk cost
    "GetParameters": 1,  # which image the name means
    "DescribeImages": 1,  # its disk's name, size and architecture
    "DescribeSecurityGroups": 1,  # is the group there, and whom does it let in
    "RunInstances": 1,
    "PutMetricAlarm": 1,  # the cloud's own deadline
    "TerminateInstances": 1,
    "DeleteAlarms": 1,
    # Machines until it runs (2), before it is deleted, until it has ended (4), and
    # the proof, and a few more where it all takes longer; disks before, after, and
    # the proof; then what else may be left.
    "DescribeInstances": 12,
    "DescribeVolumes": 4,
    "DescribeNetworkInterfaces": 1,
    "DescribeSpotInstanceRequests": 1,
    "DescribeAlarms": 1,
}


def test_a_plain_cycle_makes_no_unnecessary_call(
    make_provider: MakeProvider,
    make_request: MakeRequest,
    account: Account,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The number of calls of each kind is fixed."""
    first = make_provider()
    first.delete(first.create(make_request()))
    provider = make_provider()
    account.calls.clear()
    sizes = provider.offers(Requirements("small", 4, 16 << 30))
    box = provider.create(make_request(offer=sizes[0]))
    when_up(provider, box, pause=0.05)
    provider.delete(box)
    assert not provider.leftovers(box.id)
    counted = account.counted()
    with capsys.disabled():
        total = sum(counted.values())
        print(f"\n{total} calls: {', '.join(f'{v} {k}' for k, v in counted.items())}")
    assert counted.keys() <= JUSTIFIED.keys()
    for name, count in counted.items():
        assert count <= JUSTIFIED[name], name
