"""The number of API calls in the life of a box."""

from __future__ import annotations

import pytest

from onebox.providers.values import Requirements
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider

# The most calls in the life of an owner's second box, from offers to leftovers.
ALLOWED_CALLS = {
    "DescribeSubnets": 1,  # the zones that the account can use
    "DescribeInstanceTypes": 1,  # the types that fit
    "DescribeInstanceTypeOfferings": 1,  # their zones
    "GetProducts": 2,  # the prices of instance and disk
    "GetParameters": 1,  # the image of the base name
    "DescribeImages": 1,  # its root device, size and architecture
    "DescribeSecurityGroups": 1,  # the owner's group and its rules
    "RunInstances": 1,
    "PutMetricAlarm": 1,  # the deadline that EC2 itself enforces
    "TerminateInstances": 1,
    "DeleteAlarms": 1,
    # Instances: until it runs (2), before the delete, until it has terminated (4), for
    # the leftovers, and some more on a slow host. Volumes: before and after the delete,
    # and for the leftovers. Then each other kind of leftover.
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
    assert counted.keys() <= ALLOWED_CALLS.keys()
    for name, count in counted.items():
        assert count <= ALLOWED_CALLS[name], name
