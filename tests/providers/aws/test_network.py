"""The subnets and security groups of boxes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from onebox.errors import NoCapacity, UsageError
from onebox.providers.aws.network import Network
from onebox.providers.aws.provider import AWS
from onebox.providers.aws.settings import AWSSettings
from onebox.settings.fields import Conflict
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, remove_free_objects, when_up
from .conftest import MakeProvider

ME, NOW_ME = "198.51.100.7", "203.0.113.9"


def group(account: Account, owner: str) -> Any:
    """Return the security group of an owner."""
    groups = [
        one
        for by_vpc in account.backend("us-east-1").groups.values()
        for one in by_vpc.values()
        if one.name == f"onebox-{owner}"
    ]
    assert len(groups) == 1
    return groups[0]


def admitted(account: Account, owner: str) -> set[tuple[object, ...]]:
    """Return the networks that an owner's security group admits."""
    return {
        (
            rule.ip_protocol,
            int(rule.from_port),
            int(rule.to_port),
            rule.ip_range.get("CidrIp") or rule.ip_range.get("CidrIpv6"),
        )
        for rule in group(account, owner).ingress_rules
    }


class TestGroup:
    def test_only_this_machine_can_reach_ssh(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """No other port is open, and no other address has access."""
        provider, request = make_provider(ssh_cidr=None), make_request()
        box = provider.create(request)
        owner = request.tags.owner
        assert admitted(account, owner) == {("tcp", 22, 22, f"{ME}/32")}
        tags = {tag["key"]: tag["value"] for tag in group(account, owner).get_tags()}
        assert tags == {"onebox:managed": "1", "onebox:owner": owner}
        provider.delete(box)

    def test_the_boxes_of_an_owner_share_one_group(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The second box changes nothing in it."""
        first = provider.create(make_request())
        account.calls.clear()
        second = provider.create(make_request())
        assert "CreateSecurityGroup" not in account.counted()
        assert "AuthorizeSecurityGroupIngress" not in account.counted()
        assert group(account, first.tags.owner)
        provider.delete(first)
        provider.delete(second)

    def test_a_group_that_is_deleted_during_a_create_is_created_again(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """Another command deletes it with its last box."""
        provider, other, request = make_provider(), make_provider(), make_request()
        groups, found = Network.groups, []

        def then_removed(*about: Any) -> list[str]:
            found.append(groups(*about))
            if len(found) == 1:
                remove_free_objects(other, request.tags.owner)
            return found[-1]

        with pytest.MonkeyPatch.context() as meanwhile:
            meanwhile.setattr(Network, "groups", then_removed)
            box = provider.create(request)
        assert len(found) == 2
        assert found[0] != found[1]
        assert admitted(account, request.tags.owner)
        provider.delete(box)

    def test_allow_my_ip_replaces_the_former_address(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """A second call changes nothing."""
        request = make_request()
        before, after = (
            make_provider(ssh_cidr=None),
            make_provider(ssh_cidr=None, my_ip=lambda: NOW_ME),
        )
        box = when_up(before, before.create(request))
        assert before.allow_my_ip(box) is False
        assert after.allow_my_ip(box) is True
        assert admitted(account, request.tags.owner) == {
            ("tcp", 22, 22, f"{NOW_ME}/32")
        }
        assert after.allow_my_ip(box) is False
        after.delete(box)

    def test_a_create_from_another_address_replaces_the_rule(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The former address has no access to any box."""
        first = make_provider(ssh_cidr=None)
        boxes = [first.create(make_request())]
        boxes.append(
            make_provider(ssh_cidr=None, my_ip=lambda: NOW_ME).create(make_request())
        )
        assert admitted(account, boxes[0].tags.owner) == {
            ("tcp", 22, 22, f"{NOW_ME}/32")
        }
        for box in boxes:
            first.delete(box)

    def test_other_rules_of_the_group_are_removed(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """Only ssh from this machine stays open."""
        provider, request = make_provider(ssh_cidr=None), make_request()
        box = provider.create(request)
        for cidr in ({"CidrIp": "0.0.0.0/0"}, {"CidrIpv6": "::/0"}):
            account.backend("us-east-1").authorize_security_group_ingress(
                group(account, request.tags.owner).id, "tcp", "80", "80", [cidr]
            )
        assert len(admitted(account, request.tags.owner)) == 3
        assert provider.allow_my_ip(box) is True
        assert admitted(account, request.tags.owner) == {("tcp", 22, 22, f"{ME}/32")}
        provider.delete(box)

    def test_ssh_cidr_replaces_the_address_of_this_machine(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The address is not looked up."""
        provider, request = make_provider(ssh_cidr="10.1.2.3/8"), make_request()
        box = provider.create(request)
        assert admitted(account, request.tags.owner) == {("tcp", 22, 22, "10.0.0.0/8")}
        provider.delete(box)

    def test_an_open_ssh_port_is_in_the_notes_of_each_box(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The user has allowed it."""
        provider = make_provider(ssh_cidr="0.0.0.0/1", allow_world_ssh=True)
        box = provider.create(make_request())
        assert any("whole world" in note for note in box.notes)
        assert any("whole world" in n for n in provider.find(box.tags.owner)[0].notes)
        provider.delete(box)

    def test_the_users_own_security_group_is_never_changed(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The boxes are in it as it is."""
        backend = account.backend("us-east-1")
        vpc = backend.default_vpc
        own = backend.create_security_group("own", "own", vpc_id=vpc.id)
        provider = make_provider(security_group=own.id, ssh_cidr=None)
        box = when_up(provider, provider.create(make_request()))
        assert provider.allow_my_ip(box) is False
        counted = account.counted()
        assert not [name for name in counted if "SecurityGroup" in name]
        (instance,) = account.alive(box.id)
        assert [one.id for one in instance.nics[0].group_set] == [own.id]
        provider.delete(box)
        backend.delete_security_group(group_id=own.id)


class TestSubnet:
    def test_a_private_box_has_only_a_private_address(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The VPC may reach its ssh port."""
        provider = make_provider(ssh_cidr=None, private=True, jump="me@bastion")
        box = when_up(provider, provider.create(make_request()))
        (instance,) = account.alive(box.id)
        assert instance.public_ip is None
        assert (box.host, box.jump) == (instance.private_ip, "me@bastion")
        vpc = account.backend("us-east-1").default_vpc
        assert admitted(account, box.tags.owner) == {("tcp", 22, 22, vpc.cidr_block)}
        provider.delete(box)

    def test_a_jump_host_without_a_known_address_is_refused(self) -> None:
        """Its address has to be in ssh_cidr: it cannot be looked up."""
        with pytest.raises(Conflict, match="jump host's address"):
            AWSSettings(jump="bastion").check({})
        AWSSettings(jump="bastion", security_group="sg-0abc1234").check({})

    def test_a_subnet_in_the_settings_is_the_only_one(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """Without public addresses there, no box requests one."""
        backend = account.backend("us-east-1")
        vpc = backend.default_vpc
        subnet = backend.create_subnet(
            vpc.id, "172.31.240.0/24", availability_zone="us-east-1b"
        )
        provider = make_provider(subnet=subnet.id)
        with pytest.raises(NoCapacity, match="us-east-1a"):
            provider.create(make_request())
        request = make_request(zone="us-east-1b")
        box = when_up(provider, provider.create(request))
        (instance,) = account.alive(box.id)
        assert instance.subnet_id == subnet.id
        assert box.host == instance.private_ip
        assert box.place == "us-east-1b"
        provider.delete(box)
        backend.delete_subnet(subnet.id)

    def test_an_account_without_a_default_vpc_gets_advice(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The error names the setting and the command."""
        backend = account.backend("eu-west-1")
        for by_zone in list(backend.subnets.values()):
            for subnet in list(by_zone.values()):
                backend.delete_subnet(subnet.id)
        request = make_request(zone="eu-west-1a")
        with pytest.raises(UsageError, match="no default VPC") as raised:
            make_provider(region="eu-west-1").create(request)
        assert "subnet" in raised.value.next


def test_each_owner_has_a_group(
    provider: AWS, make_request: MakeRequest, account: Account
) -> None:
    """Two owners in one VPC share none."""
    first = make_request()
    tags = dataclasses.replace(first.tags, owner=f"{first.tags.owner}-2")
    second = make_request(tags=tags)
    boxes = [provider.create(first), provider.create(second)]
    assert group(account, tags.owner).id != group(account, first.tags.owner).id
    for box in boxes:
        provider.delete(box)
