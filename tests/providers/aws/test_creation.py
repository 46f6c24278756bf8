"""The parameters of RunInstances, and the tags that it sets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from onebox.providers.aws.provider import AWS
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest


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
            assert float(tags["onebox:expires"]) == box.tags.deadline
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
            request.offer, name="cpus=64,memory=256 GB", machine_price=None, cores=None
        )
        box = provider.create(dataclasses.replace(request, offer=size))
        assert box.offer == size
        assert provider.find(box.tags.owner)[0].offer == size
        provider.delete(box)
