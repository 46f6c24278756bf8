"""Boxes on EC2 that are reached by an endpoint or by SSM, through the AWS CLI."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onebox.errors import SetupError, UsageError
from onebox.providers.aws import policy, reach
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.values import Requirements
from onebox.settings.fields import Conflict
from tests.fakes.aws.account import Account
from tests.fakes.tunnels import Gateway, Tools
from tests.fakes.tunnels.gateway import Query
from tests.fakes.tunnels.world import add_endpoint

from ..boxes import MakeRequest, remove_free_objects, when_up
from .conftest import MakeProvider
from .test_network import ME

SMALL = Requirements("small", 2, 8 << 30)


def nowhere(query: Query) -> socket.socket:
    """Lead to no machine: these tests only look at the tools."""
    raise AssertionError(query)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    """The tools, first in the PATH."""
    with Gateway(nowhere) as gateway:
        made = Tools(tmp_path / "bin", gateway)
        monkeypatch.setenv("PATH", made.path)
        yield made


@pytest.fixture
def endpoint(account: Account) -> Iterator[str]:
    """An endpoint in the default VPC; the id of its security group."""
    yield add_endpoint(account)
    account.endpoints.clear()


def rules(account: Account, name: str) -> list[tuple[object, ...]]:
    """Return what the security group of this name admits."""
    (group,) = [
        one
        for by_vpc in account.backend("us-east-1").groups.values()
        for one in by_vpc.values()
        if one.name == name
    ]
    return [
        (
            rule.ip_protocol,
            rule.from_port,
            rule.to_port,
            rule.ip_range.get("CidrIp", ""),
            (rule.source_group or {}).get("GroupId", ""),
        )
        for rule in group.ingress_rules
    ]


class TestRules:
    @pytest.mark.parametrize("private", [False, True])
    def test_an_endpoint_is_admitted_by_its_group_and_nothing_else_is(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        tools: Tools,
        endpoint: str,
        private: bool,
    ) -> None:
        """No network is, so this machine's address is not looked up."""
        provider = make_provider(
            reach="eice", private=private, ssh_cidr=None, my_ip=no_address
        )
        box = when_up(provider, provider.create(make_request()))
        name = f"onebox-{box.tags.owner}-eice"
        assert rules(account, name) == [("tcp", 22, 22, "", endpoint)]
        (instance,) = account.alive(box.id)
        assert [one.name for one in instance.nics[0].group_set] == [name]
        assert (instance.public_ip is None) == private
        assert box.host == instance.private_ip
        assert provider.allow_my_ip(box) is False
        provider.delete(box)
        remove_free_objects(provider, box.tags.owner)
        assert not provider.free_objects(box.tags.owner)

    def test_ssm_needs_no_rule(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        tools: Tools,
    ) -> None:
        """Its agent connects from the instance to AWS."""
        provider = make_provider(reach="ssm", ssh_cidr=None, my_ip=no_address)
        box = when_up(provider, provider.create(make_request()))
        assert rules(account, f"onebox-{box.tags.owner}-ssm") == []
        assert provider.allow_my_ip(box) is False
        provider.delete(box)

    def test_a_new_endpoint_replaces_the_rule_of_the_former_one(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        tools: Tools,
        endpoint: str,
    ) -> None:
        """What another user has added is removed too."""
        provider = make_provider(reach="eice", ssh_cidr=None)
        boxes = [provider.create(make_request())]
        account.endpoints.clear()
        new = add_endpoint(account)
        assert new != endpoint
        boxes.append(provider.create(make_request()))
        name = f"onebox-{boxes[0].tags.owner}-eice"
        assert rules(account, name) == [("tcp", 22, 22, "", new)]
        for box in boxes:
            provider.delete(box)

    def test_each_way_has_a_group_of_its_own(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        tools: Tools,
        endpoint: str,
    ) -> None:
        """A box that is reached directly keeps its rule."""
        direct, by_endpoint = (
            make_provider(ssh_cidr=None),
            make_provider(reach="eice", ssh_cidr=None),
        )
        boxes = [direct.create(make_request()), by_endpoint.create(make_request())]
        owner = boxes[0].tags.owner
        assert rules(account, f"onebox-{owner}") == [("tcp", 22, 22, f"{ME}/32", "")]
        assert len(rules(account, f"onebox-{owner}-eice")) == 1
        for box in boxes:
            direct.delete(box)
        remove_free_objects(direct, owner)
        assert not direct.free_objects(owner)

    def test_a_rescue_instance_is_reached_as_its_box_was(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        tools: Tools,
        endpoint: str,
    ) -> None:
        """The setting may have changed since."""
        provider = make_provider(reach="eice", ssh_cidr=None)
        box = when_up(provider, provider.create(make_request(spot=True)))
        account.preempt(box.id)
        account.wait(box.id, "terminated")
        later = make_provider(ssh_cidr=None)
        found = later.get(box.id, box.place)
        assert found is not None and found.disk_only
        started = when_up(later, later.start(found, time.time() + 1800))
        (instance,) = account.alive(box.id)
        assert [one.name for one in instance.nics[0].group_set] == [
            f"onebox-{box.tags.owner}-eice"
        ]
        assert started.proxy is not None and instance.id in started.proxy.words
        later.delete(started)


def no_address() -> str:
    """Fail: the address of this machine is not needed."""
    raise AssertionError


class TestCommand:
    @pytest.mark.parametrize("way", ["eice", "ssm"])
    def test_a_box_is_reached_as_it_was_created(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        tools: Tools,
        endpoint: str,
        way: str,
    ) -> None:
        """A later line with another setting, or none, finds it in the tags."""
        provider = make_provider(reach=way, ssh_cidr=None)
        box = when_up(provider, provider.create(make_request()))
        (instance,) = account.alive(box.id)
        commands = {
            "eice": f"aws ec2-instance-connect open-tunnel --instance-id {instance.id} "
            "--remote-port 22 --region us-east-1",
            "ssm": f"aws ssm start-session --target {instance.id} --document-name "
            "AWS-StartSSHSession --parameters portNumber=22 --region us-east-1",
        }
        assert box.proxy is not None
        assert " ".join(box.proxy.words) == commands[way]
        assert "AWS_PROFILE".startswith(box.proxy.variables)
        for later in (
            make_provider(jump="bastion"),
            make_provider(reach="ssm", ssh_cidr=None),
        ):
            assert later.get(box.id) == dataclasses.replace(
                box, jump="bastion" if later._settings.jump else ""
            )
            (found,) = later.find(box.tags.owner)
            assert found.proxy == box.proxy
        provider.delete(box)

    def test_a_box_that_is_reached_directly_has_no_proxy(
        self, make_provider: MakeProvider, make_request: MakeRequest, tools: Tools
    ) -> None:
        """The setting counts for new boxes only."""
        provider = make_provider()
        box = when_up(provider, provider.create(make_request()))
        later = make_provider(reach="ssm", ssh_cidr=None).get(box.id)
        assert later == box
        assert box.proxy is None
        provider.delete(box)

    def test_the_users_profile_is_named(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        tools: Tools,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """An editor that uses the user's own ssh does not have the variable."""
        (tmp_path / "credentials").write_text(
            "[lab]\naws_access_key_id = AKIATESTTESTTEST\naws_secret_access_key = x\n"
        )
        monkeypatch.setenv("AWS_PROFILE", "lab")
        provider = make_provider(reach="ssm", ssh_cidr=None)
        box = when_up(provider, provider.create(make_request()))
        # Variables with keys are used before a profile, but after --profile.
        assert box.proxy is not None and "--profile" not in box.proxy.words
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        later = make_provider(reach="ssm", ssh_cidr=None).get(box.id)
        assert later is not None and later.proxy is not None
        assert later.proxy.words[-2:] == ("--profile", "lab")
        provider.delete(box)

    def test_a_value_that_a_shell_could_interpret_is_refused(self) -> None:
        """No such id or region exists."""
        with pytest.raises(Exception, match="cannot be a name in a command"):
            reach.proxy("eice", "i-1;id", "us-east-1", "")
        with pytest.raises(Exception, match="cannot be a name in a command"):
            reach.proxy("ssm", "i-1", "--debug", "")

    def test_a_profile_with_another_name_is_left_to_the_variable(self) -> None:
        """A profile's name may have any characters."""
        found = reach.proxy("ssm", "i-1", "us-east-1", "my profile")
        assert found is not None and "--profile" not in found.words


class TestTools:
    @pytest.mark.parametrize(
        ("way", "missing"),
        [("eice", "aws"), ("ssm", "aws"), ("ssm", "session-manager-plugin")],
    )
    def test_a_missing_tool_is_an_error_before_any_call(
        self,
        make_provider: MakeProvider,
        account: Account,
        tools: Tools,
        monkeypatch: pytest.MonkeyPatch,
        way: str,
        missing: str,
    ) -> None:
        """Its next step is how to install it."""
        monkeypatch.setenv("PATH", str(tools.folder))
        tools.remove(missing)
        provider = make_provider(reach=way, ssh_cidr=None)
        with pytest.raises(SetupError, match=f"{missing} is not on this machine") as no:
            provider.offers(SMALL)
        assert "install" in no.value.next
        assert not account.calls

    @pytest.mark.parametrize("version", ["1.33.2", "2.11.27"])
    def test_a_cli_without_the_command_is_too_old(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        version: str,
    ) -> None:
        """`open-tunnel` came with version 2.12."""
        with Gateway(nowhere) as gateway:
            old = Tools(tmp_path / "old", gateway, aws=version)
            monkeypatch.setenv("PATH", old.path)
            provider = make_provider(reach="eice", ssh_cidr=None)
            with pytest.raises(SetupError, match=r"2\.12 or newer is needed"):
                provider.offers(SMALL)

    def test_a_region_without_an_endpoint_is_not_offered(
        self,
        make_provider: MakeProvider,
        account: Account,
        tools: Tools,
        endpoint: str,
    ) -> None:
        """Without any endpoint, the error has the command that creates one."""
        provider = make_provider(
            reach="eice", ssh_cidr=None, region="us-west-2", regions=["us-east-1"]
        )
        places = {offer.place[:-1] for offer in provider.offers(SMALL)}
        assert places == {"us-east-1"}
        account.endpoints.clear()
        with pytest.raises(UsageError, match="no EC2 Instance Connect Endpoint") as no:
            provider.offers(SMALL)
        assert "create-instance-connect-endpoint --region us-west-2" in no.value.next
        assert "--subnet-id subnet-" in no.value.next

    def test_an_endpoint_that_is_not_ready_does_not_count(
        self,
        make_provider: MakeProvider,
        account: Account,
        tools: Tools,
        endpoint: str,
    ) -> None:
        """The AWS CLI would not use it."""
        account.endpoints[0]["State"] = "create-in-progress"
        with pytest.raises(UsageError, match="no EC2 Instance Connect Endpoint"):
            make_provider(reach="eice", ssh_cidr=None).offers(SMALL)


class TestSettings:
    @pytest.mark.parametrize(
        ("key", "value"),
        [("ssh_cidr", "10.0.0.0/8"), ("allow_world_ssh", True), ("jump", "bastion")],
    )
    @pytest.mark.parametrize("way", ["eice", "ssm"])
    def test_another_way_to_ssh_contradicts_reach(
        self, key: str, value: object, way: str
    ) -> None:
        """The error names the other setting."""
        changed: dict[str, Any] = {key: value}
        with pytest.raises(Conflict, match=f'contradicts reach = "{way}"') as caught:
            AWSSettings(reach=way, **changed).check({})
        assert caught.value.key == key
        AWSSettings(reach=way, private=True).check({})


class TestDoctor:
    @pytest.mark.parametrize("way", ["eice", "ssm"])
    def test_lines_name_the_tools_and_the_endpoint(
        self,
        make_provider: MakeProvider,
        account: Account,
        tools: Tools,
        endpoint: str,
        way: str,
    ) -> None:
        """A role for SSM's agent cannot be checked without a box, so it is a remark."""
        provider = make_provider(reach=way, ssh_cidr=None, my_ip=no_address)
        found = {one.name: one for one in provider.checks()}
        assert found["aws"].ok is True
        assert "2.27" in found["aws"].detail
        if way == "eice":
            assert (found["ssh"].ok, "session-manager-plugin" in found) == (True, False)
            assert endpoint in found["ssh"].detail
        else:
            assert found["session-manager-plugin"].ok is True
            assert found["ssh"].ok is None
            assert "AmazonSSMManagedInstanceCore" in found["ssh"].detail

    def test_what_is_missing_fails(
        self,
        make_provider: MakeProvider,
        account: Account,
        tools: Tools,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Each line has the next step."""
        monkeypatch.setenv("PATH", str(tools.folder))
        tools.remove("aws")
        tools.remove("session-manager-plugin")
        for way, names in (
            ("eice", {"aws", "ssh"}),
            ("ssm", {"aws", "session-manager-plugin"}),
        ):
            provider = make_provider(reach=way, ssh_cidr=None)
            failed = {one.name: one for one in provider.checks() if one.ok is False}
            assert set(failed) == names
            assert all(one.next for one in failed.values())

    def test_a_missing_permission_is_named(
        self,
        make_provider: MakeProvider,
        account: Account,
        tools: Tools,
        endpoint: str,
    ) -> None:
        """It is that of looking for endpoints."""
        account.faults.denied.add("ec2:DescribeInstanceConnectEndpoints")
        provider = make_provider(reach="eice", ssh_cidr=None)
        (line,) = [one for one in provider.checks() if one.name == "ssh"]
        assert line.ok is False
        assert "ec2:DescribeInstanceConnectEndpoints" in line.detail


class TestPolicy:
    def test_permissions_are_added_for_the_setting_only(
        self, make_provider: MakeProvider
    ) -> None:
        """A policy without the setting has none of them."""
        more = {
            "eice": {
                "ec2:DescribeInstanceConnectEndpoints",
                "ec2-instance-connect:OpenTunnel",
            },
            "ssm": {
                "ssm:StartSession",
                "ssm:ResumeSession",
                "ssm:TerminateSession",
                "ssmmessages:OpenDataChannel",
            },
        }
        plain = actions(policy.document())
        assert make_provider().policy() == policy.document()
        for way, added in more.items():
            text = make_provider(reach=way, ssh_cidr=None).policy()
            assert actions(text) - plain == added
            assert len(json.dumps(json.loads(text), separators=(",", ":"))) < 6144

    def test_a_tunnel_leads_to_ssh_and_a_session_to_onebox_only(self) -> None:
        """Each statement has the narrowest condition that AWS supports."""
        found = {
            one["Sid"]: one
            for way in ("eice", "ssm")
            for one in json.loads(policy.document(way=way))["Statement"]
        }
        port = {"NumericEquals": {"ec2-instance-connect:remotePort": "22"}}
        assert found["OpenTunnels"]["Condition"] == port
        ours = {"StringEquals": {"ssm:resourceTag/onebox:managed": "1"}}
        assert found["StartSessions"]["Condition"] == ours
        assert all(
            "${aws:userid}" in one for one in found["UseOwnSessions"]["Resource"]
        )


def actions(document: str) -> set[str]:
    """Return the actions that a policy allows."""
    return {
        action
        for statement in json.loads(document)["Statement"]
        for action in statement["Action"]
    }
