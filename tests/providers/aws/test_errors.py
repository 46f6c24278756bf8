"""Create calls that fail, are lost or are refused, and the errors that they end in."""

from __future__ import annotations

import dataclasses
import secrets
import time

import pytest

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    OneboxError,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unclear,
)
from onebox.providers.aws.provider import AWS
from onebox.providers.kernel import user_data
from onebox.providers.values import HostKey
from tests.fakes.aws.account import Account
from tests.fakes.aws.faults import Kind

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider

FAULTS: list[tuple[Kind, int]] = [
    ("throttle", 3),
    ("broken", 2),
    ("broken after", 1),
    ("broken after", 3),
    ("cut", 2),
    ("cut after", 1),
    ("cut after", 3),
    ("html", 1),
    ("hang after", 1),
]


class TestFaults:
    @pytest.mark.parametrize(("kind", "times"), FAULTS)
    def test_a_passing_fault_makes_one_instance(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        kind: Kind,
        times: int,
    ) -> None:
        """It makes no difference whether the failed call took effect."""
        provider = make_provider(timeout=3.0 if kind.startswith("hang") else 20.0)
        request = make_request()
        account.faults.add("RunInstances", kind, times)
        box = provider.create(request)
        assert account.faults.left == 0
        assert len(account.instances(request.box)) == 1
        provider.delete(when_up(provider, box))
        assert not account.alive(request.box)

    @pytest.mark.parametrize("kind", ["broken after", "cut after"])
    def test_an_unclear_launch_is_reported_as_unclear(
        self, provider: AWS, make_request: MakeRequest, account: Account, kind: Kind
    ) -> None:
        """The box is found later, and there is one."""
        request = make_request()
        account.faults.add("RunInstances", kind, 4)
        with pytest.raises(Unclear):
            provider.create(request)
        found = provider.get(request.box, request.offer.place)
        assert found is not None
        assert provider.create(request).id == request.box
        assert len(account.instances(request.box)) == 1
        provider.delete(found)

    @pytest.mark.parametrize("kind", ["broken", "cut"])
    def test_an_unclear_launch_may_have_made_nothing(
        self, provider: AWS, make_request: MakeRequest, account: Account, kind: Kind
    ) -> None:
        """No box shows up later."""
        request = make_request()
        account.faults.add("RunInstances", kind, 4)
        with pytest.raises(Unclear):
            provider.create(request)
        assert provider.get(request.box) is None
        assert not account.instances(request.box)

    def test_a_launch_without_a_response_is_found(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The next call is refused, although the first took effect."""
        request = make_request()

        def deny(instance: object) -> None:
            account.faults.denied.add("ec2:RunInstances")

        account.boot = deny
        account.delays.pending = 0.0
        account.faults.add("RunInstances", "cut after")
        # The calls in between give the instance time to start.
        account.faults.add("RunInstances", "broken")
        try:
            box = provider.create(request)
        finally:
            account.boot, account.delays.pending = (lambda instance: None), 0.15
        assert box.id == request.box
        account.faults.clear()
        provider.delete(box)

    def test_credentials_that_expire_after_a_lost_response_leave_it_unclear(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Expired credentials do not mean that the lost call launched nothing."""
        request = make_request()
        account.faults.add("RunInstances", "cut after")
        account.faults.add("RunInstances", "expired")
        account.faults.add("DescribeInstances", "expired")
        with pytest.raises(Unclear, match="expired"):
            provider.create(request)
        assert account.faults.left == 0
        found = provider.get(request.box)
        assert found is not None
        provider.delete(found)

    def test_throttling_is_waited_for_with_a_limit(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """After the limit, the error is raised."""
        account.faults.add("RunInstances", "throttle", 100)
        with pytest.raises(Throttled):
            make_provider(faster=2000.0).create(make_request())
        assert account.faults.left > 50

    @pytest.mark.parametrize(
        "full", [("m7i.large", "us-east-1a", None), ("*", "*", False)]
    )
    def test_missing_capacity_is_reported_at_once(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        full: tuple[str, str, bool | None],
    ) -> None:
        """One call is made, no instance exists, and the cause is named."""
        account.faults.full.add(full)
        request = make_request()
        with pytest.raises(NoCapacity, match=r"us-east-1a.*InsufficientInstanceCapac"):
            provider.create(request)
        assert account.counted()["RunInstances"] == 1
        assert not provider.leftovers(request.box)

    def test_a_type_that_a_zone_lacks_is_missing_capacity(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The next offer is tried."""
        with pytest.raises(NoCapacity, match="Unsupported"):
            provider.create(make_request(zone="us-east-1e"))

    @pytest.mark.parametrize("spot", [False, True])
    def test_an_account_limit_names_where_to_raise_it(
        self, provider: AWS, make_request: MakeRequest, account: Account, spot: bool
    ) -> None:
        """It is another error than missing capacity."""
        account.faults.cpus = account.faults.spot_cpus = 1
        with pytest.raises(QuotaExceeded, match="Exceeded") as raised:
            provider.create(make_request(spot=spot))
        assert "servicequotas" in raised.value.next
        assert account.counted()["RunInstances"] == 1

    def test_a_missing_permission_is_named(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """AWS's encoded message is left out."""
        account.faults.denied.add("ec2:RunInstances")
        with pytest.raises(NotAllowed, match="ec2:RunInstances") as raised:
            provider.create(make_request())
        assert "4GIOH" not in raised.value.message
        assert "policy" in raised.value.next

    @pytest.mark.parametrize("kind", ["expired", "bad key"])
    @pytest.mark.parametrize("action", ["RunInstances", "DescribeSubnets"])
    def test_bad_credentials_are_reported_for_every_call(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        kind: Kind,
        action: str,
    ) -> None:
        """The error names the credentials."""
        account.faults.add(action, kind)
        with pytest.raises(NotAllowed, match="credentials"):
            provider.create(make_request())

    def test_a_type_that_cannot_boot_the_image_is_refused(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Nothing is created."""
        request = make_request()
        size = dataclasses.replace(request.offer, type="m7g.large")
        with pytest.raises(ProviderError, match="architecture"):
            provider.create(dataclasses.replace(request, offer=size))
        assert not account.instances(request.box)

    def test_user_data_that_is_too_large_is_refused_before_the_launch(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """No RunInstances is sent."""
        request = make_request()
        large = dataclasses.replace(request.host_key, private=secrets.token_hex(17000))
        with pytest.raises(OneboxError, match=r"16384|16,384"):
            provider.create(dataclasses.replace(request, host_key=large))
        assert "RunInstances" not in account.counted()

    def test_real_user_data_fits(self, make_request: MakeRequest) -> None:
        """It stays below EC2's limit."""
        data = user_data.user_data(make_request(), notice="ec2", packed=True)
        assert len(data) < 16384
        assert isinstance(make_request().host_key, HostKey)

    @pytest.mark.parametrize("ended_token_is_error", [False, True])
    def test_the_request_of_a_terminated_instance_is_gone(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        ended_token_is_error: bool,
    ) -> None:
        """It creates no second instance."""
        request = make_request()
        provider.delete(provider.create(request))
        account.faults.ended_token_is_error = ended_token_is_error
        with pytest.raises(Gone, match="terminated"):
            provider.create(request)
        assert len(account.instances(request.box)) == 1

    def test_a_repeated_request_with_other_parameters_finds_its_instance(
        self,
        provider: AWS,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
    ) -> None:
        """EC2 refuses the token because, for example, the disk differs."""
        request = make_request()
        box = provider.create(request)
        again = make_provider(disk=50 << 30).create(request)
        assert again.id == box.id
        assert len(account.instances(request.box)) == 1
        provider.delete(box)

    def test_every_call_may_fail_once(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The user does not notice a refusal, a failure or a cut of one call."""
        kinds: list[Kind] = ["throttle", "broken", "broken after", "cut", "cut after"]
        actions = [
            "GetParameters",
            "DescribeImages",
            "DescribeSubnets",
            "DescribeSecurityGroups",
            "CreateSecurityGroup",
            "AuthorizeSecurityGroupIngress",
            "PutMetricAlarm",
            "DescribeInstances",
            "DescribeVolumes",
            "TerminateInstances",
            "DeleteAlarms",
            "DescribeNetworkInterfaces",
            "DescribeSpotInstanceRequests",
            "DescribeAlarms",
        ]
        for kind in kinds:
            provider, request = make_provider(), make_request()
            tags = dataclasses.replace(request.tags, owner=f"o-{time.time_ns()}")
            request = dataclasses.replace(request, tags=tags)
            for action in actions:
                account.faults.add(action, kind)
            box = when_up(provider, provider.create(request))
            assert box.notes == ()
            provider.delete(box)
            assert not provider.leftovers(box.id)
            assert account.faults.left == 0, kind
            assert len(account.instances(box.id)) == 1
