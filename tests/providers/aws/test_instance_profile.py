"""The instance profile of a box: launch, refusals, doctor, policy, lines of `inv`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from onebox.boxes import create
from onebox.context import BoxContext
from onebox.errors import NotAllowed, OneboxError, ProviderError, UsageError
from onebox.invocation import Invocation
from onebox.jobs import receipt
from onebox.providers.aws import policy
from onebox.providers.values import Box, Check
from onebox.remote.job_answers import ExitRecord
from onebox.stages import provision
from tests.fakes.aws import profiles
from tests.fakes.aws.account import Account, Call
from tests.fakes.aws.iam import Permission, allowed, permissions_of
from tests.fakes.short_pauses import short_pauses

from ...conftest import Project
from ...conftest import project as project
from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider
from .test_creation import launch

TOML = """\
provider = "aws"
vm = "small"
[aws]
region = "us-east-1"
ssh_cidr = "198.51.100.7/32"
{identity}
[run]
command = "true"
"""
TRAIN = 'instance_profile = "train"'


@pytest.fixture(autouse=True)
def profile() -> str:
    """The instance profile "train" of the account; return its ARN."""
    return profiles.add("train", "train-role", path="/team/")


@pytest.fixture
def paid(account: Account, aws_environment: str, project: Project) -> Project:
    """A project whose provider is AWS, with the profile."""
    variables = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    # No public service is asked for this machine's address.
    variables.update(HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="127.0.0.1")
    project.environ.update(variables)
    project.environ.update(short_pauses(project.home / "pauses"))
    project.write("onebox.toml", TOML.format(identity=TRAIN))
    return project


@pytest.fixture
def unreachable(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances to which each connection fails at once, without a time-out."""
    monkeypatch.setattr(account, "address", lambda instance: "255.255.255.255")


def opened(project: Project, identity: str = TRAIN, **environ: str) -> BoxContext:
    """Return the context of a command in a project with this identity."""
    project.write("onebox.toml", TOML.format(identity=identity))
    variables = {**project.environ, **environ}
    return BoxContext.open(str(project.root), variables, {}, Invocation("inv x"))


def checks(make_provider: MakeProvider, **settings: object) -> dict[str, Check]:
    """Return the lines of doctor by their names."""
    return {one.name: one for one in make_provider(**settings).checks()}


def launches(account: Account) -> list[Call]:
    """Return the launches that the account accepted or refused."""
    return [call for call in account.calls if call.action == "RunInstances"]


class TestLaunch:
    @pytest.mark.parametrize("by_arn", [False, True])
    @pytest.mark.parametrize("spot", [False, True])
    def test_the_launch_names_the_profile_as_the_settings_do(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        profile: str,
        by_arn: bool,
        spot: bool,
    ) -> None:
        """By name or by ARN; the identity of the box is the name."""
        wanted = profile if by_arn else "train"
        provider = make_provider(instance_profile=wanted)
        box = provider.create(make_request(spot=spot))
        key = "Arn" if by_arn else "Name"
        assert launch(account)["IamInstanceProfile"] == {key: wanted}
        assert (provider.identity, box.identity) == ("train", "train")
        provider.delete(box)

    def test_a_profile_that_ec2_does_not_know_yet_is_waited_for(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """IAM's changes reach EC2 after some seconds."""
        account.faults.new_profiles = 3
        provider = make_provider(instance_profile="train")
        box = provider.create(make_request())
        assert box.identity == "train"
        assert len(launches(account)) == 4
        provider.delete(box)

    def test_a_machine_that_reads_a_kept_disk_has_no_profile(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """No job runs on it; the kept disk itself has no identity."""
        provider = make_provider(instance_profile="train")
        box = when_up(provider, provider.create(make_request(spot=True)))
        account.preempt(box.id)
        account.wait(box.id, "terminated")
        (kept,) = provider.find(box.tags.owner)
        assert (kept.disk_only, kept.identity) == (True, "")
        rescued = when_up(provider, provider.start(kept, box.deadline))
        assert (rescued.rescue, rescued.identity) == (True, "")
        assert "IamInstanceProfile" not in launch(account)
        provider.delete(rescued)


def deny_pass_role(account: Account, *, encoded: bool = False) -> None:
    """Take away the permission to pass a role to EC2."""
    account.faults.denied.add("iam:PassRole")
    account.faults.encoded = encoded


REFUSALS: list[tuple[str, Callable[[Account], Any], type[OneboxError], str, str]] = [
    (
        "tarin",
        lambda account: None,
        UsageError,
        "[aws] instance_profile = tarin: AWS knows no such instance profile",
        "aws iam list-instance-profiles",
    ),
    (
        "arn:aws:iam::999999999999:instance-profile/train",
        lambda account: None,
        UsageError,
        "instance-profile/train: AWS knows no such instance profile",
        "inv doctor",
    ),
    (
        "empty",
        lambda account: profiles.add("empty"),
        UsageError,
        "[aws] instance_profile = empty: this instance profile has no role",
        "add-role-to-instance-profile --instance-profile-name empty",
    ),
    (
        "train",
        lambda account: deny_pass_role(account),
        NotAllowed,
        "lack the permission iam:PassRole on arn:aws:iam::123456789012:role/train-role",
        "inv doctor --policy",
    ),
    (
        "train",
        lambda account: deny_pass_role(account, encoded=True),
        NotAllowed,
        "AWS names no permission, so it is probably iam:PassRole",
        "inv doctor",
    ),
]


class TestRefusals:
    @pytest.mark.parametrize(("name", "plant", "error", "text", "next"), REFUSALS)
    def test_a_profile_that_cannot_be_attached_is_one_clear_line(
        self,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
        name: str,
        plant: Callable[[Account], Any],
        error: type[OneboxError],
        text: str,
        next: str,
    ) -> None:
        """It names the setting and the next command, and leaves no box."""
        plant(account)
        request = make_request()
        provider = make_provider(instance_profile=name)
        with pytest.raises(error) as caught:
            provider.create(request)
        assert f"[aws] instance_profile = {name}: " in caught.value.message
        assert text in caught.value.message
        assert next in caught.value.next
        assert "\n" not in caught.value.message
        assert "Encoded" not in caught.value.message
        assert not account.instances(request.box)
        assert provider.get(request.box) is None

    def test_another_missing_permission_is_not_taken_for_the_profile(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """AWS names it."""
        account.faults.denied.add("ec2:RunInstances")
        with pytest.raises(NotAllowed) as caught:
            make_provider(instance_profile="train").create(make_request())
        assert "ec2:RunInstances" in caught.value.message
        assert "instance_profile" not in caught.value.message

    def test_a_launch_without_a_profile_is_not_repeated(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """A wrong value of another parameter is refused at once."""
        offer = make_request().offer
        wrong = dataclasses.replace(offer, type="m7g.large")
        for settings in ({}, {"instance_profile": "train"}):
            account.calls.clear()
            with pytest.raises(ProviderError):
                make_provider(**settings).create(make_request(offer=wrong))
            assert len(launches(account)) == 1


class TestDoctor:
    def test_without_a_profile_there_is_no_line(
        self, make_provider: MakeProvider
    ) -> None:
        """A box has no identity, so there is nothing to check."""
        assert "identity" not in checks(make_provider)

    def test_a_dry_run_shows_that_the_profile_can_be_attached(
        self, make_provider: MakeProvider, account: Account
    ) -> None:
        """The line names the role, as far as it can be read."""
        line = checks(make_provider, instance_profile="train")["identity"]
        assert line.ok is True
        role = "arn:aws:iam::123456789012:role/train-role"
        assert line.detail == (
            f"train can be attached, by a dry run; jobs act as {role}"
        )
        account.faults.denied.add("iam:GetInstanceProfile")
        line = checks(make_provider, instance_profile="train")["identity"]
        assert (line.ok, line.detail) == (True, "train can be attached, by a dry run")
        assert not account.alive("ob-doctor")

    @pytest.mark.parametrize(("name", "plant", "error", "text", "next"), REFUSALS)
    def test_a_profile_that_cannot_be_attached_fails_its_own_line(
        self,
        make_provider: MakeProvider,
        account: Account,
        name: str,
        plant: Callable[[Account], Any],
        error: type[OneboxError],
        text: str,
        next: str,
    ) -> None:
        """The launch itself is permitted."""
        plant(account)
        found = checks(make_provider, instance_profile=name)
        assert found["may create"].ok is True
        assert found["identity"].ok is False
        assert text in found["identity"].detail
        assert next in found["identity"].next


ROLE = "arn:aws:iam::123456789012:role/train-role"
OTHER = "arn:aws:iam::123456789012:role/admin"
TO_EC2 = {"iam:PassedToService": "ec2.amazonaws.com"}


class TestPolicy:
    def test_the_policy_allows_a_launch_with_the_profile(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """Only its role can be passed, and only to EC2."""
        provider = make_provider(instance_profile="train")
        document = provider.policy()
        provider.delete(provider.create(make_request()))
        (call,) = launches(account)
        needed = permissions_of(call)
        assert [one.resource for one in needed if one.action == "iam:PassRole"] == [
            ROLE
        ]
        assert all(allowed(document, one) for one in needed)
        assert not allowed(document, Permission("iam:PassRole", OTHER, TO_EC2))
        service = {"iam:PassedToService": "lambda.amazonaws.com"}
        assert not allowed(document, Permission("iam:PassRole", ROLE, service))
        assert len(json.dumps(json.loads(document), separators=(",", ":"))) < 6144

    @pytest.mark.parametrize(
        ("name", "resource"),
        [
            ("train", "arn:aws:iam::*:role/*"),
            (
                "arn:aws:iam::123456789012:instance-profile/team/train",
                "arn:aws:iam::123456789012:role/*",
            ),
        ],
    )
    def test_without_the_name_of_the_role_all_roles_can_be_passed(
        self, make_provider: MakeProvider, account: Account, name: str, resource: str
    ) -> None:
        """Those of the account in the profile's ARN, and only to EC2."""
        account.faults.denied.add("iam:GetInstanceProfile")
        document = json.loads(make_provider(instance_profile=name).policy())
        (row,) = [one for one in document["Statement"] if one["Sid"] == "PassRole"]
        assert row["Resource"] == [resource]
        assert row["Condition"] == {"StringEquals": TO_EC2}

    def test_without_a_profile_no_role_can_be_passed(
        self, make_provider: MakeProvider, account: Account
    ) -> None:
        """No call is needed for the policy then."""
        assert make_provider().policy() == policy.document()
        assert "PassRole" not in policy.document()
        assert not account.calls


def live_box(context: BoxContext) -> Box:
    """Create the box of a project; return it running."""
    context.lock()
    try:
        box = create.create(context, kind="box", image=None)
    finally:
        context.store.unlock()
    return when_up(context.provider, box)


class TestLines:
    def test_plan_and_first_line_name_the_identity(self, paid: Project) -> None:
        """So a project that was cloned cannot hide it."""
        planned = paid.inv("plan")
        document = json.loads(paid.inv("plan", "--json").out)
        assert "identity train" in planned.out.splitlines()[0]
        assert document["box"]["identity"] == "train"
        paid.write("onebox.toml", TOML.format(identity='instance_profile = "gone"'))
        done = paid.inv("provision")
        (first,) = [line for line in done.err.splitlines() if "vCPU" in line]
        assert first.endswith("identity gone")

    def test_a_wrong_profile_is_tried_with_one_offer(
        self, paid: Project, account: Account
    ) -> None:
        """Other types, zones and regions would refuse it too."""
        paid.write(
            "onebox.toml",
            TOML.format(identity='instance_profile = "gone"\nregions = ["us-west-2"]'),
        )
        done = paid.inv("provision")
        assert done.code == 64
        assert "[aws] instance_profile = gone: AWS knows no such" in done.err
        assert "next: aws iam list-instance-profiles" in done.err
        tried = {
            (call.region, call.parameters["InstanceType"]) for call in launches(account)
        }
        assert len(tried) == 1
        assert json.loads(paid.inv("status", "--json").out)["boxes"] == []

    def test_offers_in_another_region_have_the_profile_too(
        self, paid: Project, account: Account
    ) -> None:
        """A profile belongs to the account, not to a region."""
        for zone in "abcdef":
            account.faults.full.add(("*", f"us-east-1{zone}", None))
        context = opened(paid, f'{TRAIN}\nregions = ["us-west-2"]')
        box = live_box(context)
        assert box.place.startswith("us-west-2")
        assert box.identity == "train"
        context.provider.delete(box)

    def test_a_box_with_another_identity_is_refused(
        self, paid: Project, account: Account, unreachable: None
    ) -> None:
        """The cloud's answer counts: the message names both, with their places."""
        box = live_box(opened(paid))
        for identity, environ, text in [
            ('instance_profile = "other"', {}, "onebox.toml:6: [aws] instance_profile"),
            (TRAIN, {"ONEBOX_AWS_INSTANCE_PROFILE": "other"}, "ONEBOX_AWS_INSTANCE"),
            ("", {}, "but [aws] instance_profile is not set"),
        ]:
            context = opened(paid, identity, **environ)
            with pytest.raises(UsageError) as caught:
                provision.reason(context)
            assert f"({box.id}) has the identity train, but " in caught.value.message
            assert text in caught.value.message
            assert "inv teardown" in caught.value.next
        planned = paid.inv("plan")
        assert planned.code == 64
        assert "identity train, but [aws] instance_profile is not set" in planned.out
        assert "identity train" in planned.out.splitlines()[0]
        context = opened(paid)
        assert provision.reason(context) is None
        context.provider.delete(box)

    def test_status_and_receipt_name_the_identity_of_the_box(
        self, paid: Project, unreachable: None
    ) -> None:
        """It is the one that the cloud reports."""
        box = live_box(opened(paid))
        context = opened(paid, "")
        (found,) = json.loads(paid.inv("status", "--json").out)["boxes"]
        assert (found["id"], found["identity"]) == (box.id, "train")
        assert "   identity train\n" in paid.inv("status").out
        record = ExitRecord(job="job-1", code=0, cause="exit")
        made = receipt.make(context, box, "job-1", "true", record)
        assert made.to_dict()["box"]["identity"] == "train"
        assert receipt.Receipt.decode(made.encode()) == made
        context.provider.delete(box)


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws:iam::123456789012:role/train",
        "a b",
        "team/train",
        "arn:train",
        "x" * 129,
    ],
)
def test_what_is_no_instance_profile_is_refused_before_any_call(
    paid: Project, account: Account, text: str
) -> None:
    """A role is no instance profile."""
    paid.write("onebox.toml", TOML.format(identity=f'instance_profile = "{text}"'))
    done = paid.inv("plan")
    assert done.code == 78
    assert "onebox.toml:6: [aws] instance_profile: " in done.err
    assert "is not the name or the ARN of an instance profile" in done.err
    assert not account.calls
