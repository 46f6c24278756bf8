"""The one call that makes a machine: what is in it, and what may go wrong with it."""

from __future__ import annotations

import dataclasses
import secrets
import time
from typing import Any

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
    UsageError,
)
from onebox.providers.aws.provider import AWS
from onebox.providers.base import HostKey
from onebox.providers.kernel import user_data
from tests.fakes.ec2.account import Account
from tests.fakes.ec2.faults import Kind

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider


def launch(account: Account) -> dict[str, Any]:
    """Return the parameters of the last launch."""
    calls = [c for c in account.calls if c.action == "RunInstances"]
    return dict(calls[-1].parameters)


def tags_of(parameters: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the tags that a launch sets, by the kind of the object."""
    return {
        one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        for one in parameters["TagSpecifications"]
    }


class TestRequest:
    def test_an_on_demand_instance_stops_when_it_powers_off(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Its disk is deleted with it."""
        request = make_request()
        box = provider.create(request)
        parameters = launch(account)
        assert parameters["ClientToken"] == request.box
        assert (parameters["MinCount"], parameters["MaxCount"]) == (1, 1)
        assert parameters["InstanceInitiatedShutdownBehavior"] == "stop"
        assert "InstanceMarketOptions" not in parameters
        (disk,) = parameters["BlockDeviceMappings"]
        assert disk == {
            "DeviceName": "/dev/sda1",
            "Ebs": {
                "VolumeSize": 100,
                "VolumeType": "gp3",
                "Encrypted": True,
                "DeleteOnTermination": True,
            },
        }
        assert parameters["MetadataOptions"] == {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        }
        assert not {"KeyName", "IamInstanceProfile", "UserData "} & parameters.keys()
        assert set(tags_of(parameters)) == {"instance", "volume", "network-interface"}
        assert box.bootstrap_key
        assert box.host == ""
        provider.delete(box)

    def test_a_spot_instance_is_a_one_time_request(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """An interruption terminates it; its disk stays."""
        box = provider.create(make_request(spot=True))
        parameters = launch(account)
        assert parameters["InstanceMarketOptions"] == {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
        assert "InstanceInitiatedShutdownBehavior" not in parameters
        assert (
            parameters["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is False
        )
        assert "spot-instances-request" in tags_of(parameters)
        provider.delete(box)

    def test_every_created_object_has_the_ownership_tags(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Their values contain safe characters only."""
        box = provider.create(make_request())
        for tags in tags_of(launch(account)).values():
            assert tags["onebox:managed"] == "1"
            assert tags["onebox:owner"] == box.tags.owner
            assert tags["onebox:box"] == box.id
            assert float(tags["onebox:expires"]) == box.tags.expires
            for text in (*tags, *tags.values()):
                assert all(c.isalnum() or c in " +-=._:/@" for c in text), text
        provider.delete(box)

    def test_no_tag_contains_a_private_key(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Only user data has the private host key."""
        request = make_request()
        box = provider.create(request)
        assert request.host_key.private.strip()[40:80] not in repr(
            tags_of(launch(account))
        )
        provider.delete(box)

    @pytest.mark.parametrize(
        ("name", "root"), [("debian-12", "/dev/xvda"), ("ubuntu-22.04", "/dev/sda1")]
    )
    def test_the_disk_has_the_root_device_name_of_its_image(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        name: str,
        root: str,
    ) -> None:
        """With another name EC2 adds a second disk."""
        box = provider.create(make_request(base=name, disk=(33 << 30) - 1))
        (disk,) = launch(account)["BlockDeviceMappings"]
        assert (disk["DeviceName"], disk["Ebs"]["VolumeSize"]) == (root, 33)
        provider.delete(box)

    def test_any_size_is_read_back_from_the_tags(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Its name and shape are unchanged."""
        request = make_request()
        size = dataclasses.replace(
            request.offer, name="cpus=64,memory=256 GB", price=None, cores=None
        )
        box = provider.create(dataclasses.replace(request, offer=size))
        assert box.offer == size
        assert provider.find(box.tags.owner)[0].offer == size
        provider.delete(box)


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
        # Whatever is asked in between lets the machine come up.
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

    @pytest.mark.parametrize("over", [False, True])
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


class TestSettings:
    def test_a_missing_subnet_is_a_usage_error(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The setting names it."""
        with pytest.raises(UsageError, match="subnet-0123abcd"):
            make_provider(subnet="subnet-0123abcd").create(make_request())

    def test_a_missing_security_group_is_a_usage_error(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The setting names it."""
        with pytest.raises(UsageError, match="sg-0123abcd"):
            make_provider(security_group="sg-0123abcd").create(make_request())

    def test_a_missing_region_is_one_clear_error(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """No call is made."""
        monkeypatch.delenv("AWS_REGION")
        with pytest.raises(UsageError, match="no AWS region is set"):
            make_provider().find("owner")

    def test_the_region_is_that_of_the_settings_before_the_environment(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """AWS's own variables name it if the settings do not."""
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
        monkeypatch.delenv("AWS_REGION")
        assert make_provider()._cloud.region == "us-west-2"
        assert make_provider(region="eu-west-1")._cloud.region == "eu-west-1"

    def test_an_unknown_region_is_named_with_a_similar_one(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is a usage error."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(UsageError, match="us-esat-1") as raised:
            make_provider(region="us-esat-1").find("owner")
        assert "us-east-1" in raised.value.next

    def test_an_unreachable_network_is_named_as_the_cause(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names proxy and network."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(ProviderError, match="cannot be reached"):
            make_provider().find("owner")

    def test_missing_credentials_have_advice(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names the commands that create some."""
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(NotAllowed, match="credentials") as raised:
            make_provider().find("owner")
        assert "aws configure" in raised.value.next

    def test_a_missing_profile_is_a_usage_error(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names AWS's own configuration."""
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(UsageError, match="nobody"):
            make_provider().find("owner")

    def test_a_wrong_clock_is_not_reported_as_bad_credentials(
        self, make_provider: MakeProvider, account: Account, make_request: MakeRequest
    ) -> None:
        """AWS reports it as refused credentials."""
        account.skew = 1800
        account.faults.add("DescribeInstances", "bad key")
        with pytest.raises(NotAllowed, match="30 minutes behind"):
            make_provider().find("owner")
