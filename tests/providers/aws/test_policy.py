"""The IAM policy that onebox prints: what it allows, and what it does not."""

from __future__ import annotations

import json
import time

import pytest

from onebox.providers.aws import policy
from onebox.providers.aws.provider import AWS
from onebox.providers.values import Requirements
from tests.fakes.aws.account import Account, Call
from tests.fakes.aws.iam import Permission, allowed, permissions_of

from ..boxes import MakeRequest, image_of, remove_free_objects, when_up
from .conftest import MakeProvider

OURS = {"aws:ResourceTag/onebox:managed": "1"}
ANY = "arn:aws:ec2:us-east-1:123456789012"


def whole_life(
    make_provider: MakeProvider, make_request: MakeRequest, account: Account
) -> list[Call]:
    """Use every feature of the provider; return all its calls."""
    account.calls.clear()
    provider = make_provider(ssh_cidr=None, tags={"cost-center": "42"})
    moved = make_provider(ssh_cidr=None, my_ip=lambda: "203.0.113.9")
    provider.checks()
    provider.offers(Requirements("small", 4, 16 << 30, spot=True, fallback=True))
    box = when_up(provider, provider.create(make_request()))
    moved.allow_my_ip(box)
    box = provider.set_host_key(box, "ssh-ed25519 AAAAnew")
    provider.console(box)
    provider.stop(box)
    request = make_request()
    image = provider.save(box, image_of(request))
    provider.images(image.tags.owner)
    box = when_up(provider, provider.start(box, time.time() + 900))
    provider.delete(box)
    again = provider.create(make_request(image=image))
    provider.delete(again)
    provider.delete_image(image)
    spot = when_up(provider, provider.create(make_request(spot=True)))
    account.preempt(spot.id)
    account.wait(spot.id, "terminated")
    (kept,) = provider.find(spot.tags.owner, everywhere=True)
    rescued = when_up(provider, provider.start(kept, time.time() + 900))
    provider.leftovers(rescued.id)
    provider.delete(rescued)
    remove_free_objects(provider, rescued.tags.owner)
    private = make_provider(private=True, ssh_cidr=None)
    provider.delete(private.create(make_request()))
    return list(account.calls)


class TestPolicy:
    def test_the_policy_allows_every_call_and_no_unused_action(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The calls are those of a box's whole life."""
        document = make_provider().policy()
        calls = whole_life(make_provider, make_request, account)
        needed = [permission for call in calls for permission in permissions_of(call)]
        # Doctor probes a foreign instance, which the policy must forbid.
        refused = {
            (one.action, one.resource) for one in needed if not allowed(document, one)
        }
        assert refused == {("ec2:TerminateInstances", f"{ANY}:instance/x-1")}
        terminated = [one for one in needed if one.action == "ec2:TerminateInstances"]
        assert sum(allowed(document, one) for one in terminated) == len(terminated) - 1
        used = {permission.action for permission in needed}
        named = {
            action
            for statement in json.loads(document)["Statement"]
            for action in statement["Action"]
        }
        assert named - used == {"iam:CreateServiceLinkedRole", "ec2:DeleteSnapshot"}

    def test_the_policy_is_valid_for_iam(self) -> None:
        """It has a version and ids, no wildcard for an action, and a legal size."""
        document = json.loads(policy.document())
        assert document["Version"] == "2012-10-17"
        ids = [statement["Sid"] for statement in document["Statement"]]
        assert len(set(ids)) == len(ids)
        assert all(sid.isalnum() for sid in ids)
        for statement in document["Statement"]:
            assert not any("*" in action for action in statement["Action"])
        # IAM's size limit ignores white space.
        assert len(json.dumps(document, separators=(",", ":"))) < 6144

    @pytest.mark.parametrize(
        ("action", "kind"),
        [
            ("TerminateInstances", "instance"),
            ("StopInstances", "instance"),
            ("StartInstances", "instance"),
            ("ModifyInstanceAttribute", "instance"),
            ("CreateImage", "instance"),
            ("DeleteVolume", "volume"),
            ("DetachVolume", "volume"),
            ("AttachVolume", "volume"),
            ("DeregisterImage", "image"),
            ("DeleteSnapshot", "snapshot"),
            ("AuthorizeSecurityGroupIngress", "security-group"),
            ("RevokeSecurityGroupIngress", "security-group"),
        ],
    )
    def test_only_tagged_objects_may_be_changed_or_deleted(
        self, action: str, kind: str
    ) -> None:
        """The tag is that of onebox."""
        arn = f"{ANY}:{kind}/x-1"
        document = policy.document()
        assert allowed(document, Permission(f"ec2:{action}", arn, OURS))
        assert not allowed(document, Permission(f"ec2:{action}", arn))

    def test_the_policy_forbids_to_tag_a_foreign_instance(self) -> None:
        """A tag would make it onebox's."""
        permission = Permission(
            "ec2:CreateTags", f"{ANY}:instance/x", {"aws:TagKeys": ["onebox:managed"]}
        )
        assert not allowed(policy.document(), permission)

    def test_only_tagged_instances_may_be_created(self) -> None:
        """Instances with open metadata are forbidden too."""
        document, arn = policy.document(), f"{ANY}:instance/x"
        good = {
            "aws:RequestTag/onebox:managed": "1",
            "ec2:MetadataHttpTokens": "required",
        }
        assert allowed(document, Permission("ec2:RunInstances", arn, good))
        for key in good:
            bad = {**good, key: "optional"}
            assert not allowed(document, Permission("ec2:RunInstances", arn, bad))
        disk = {"aws:RequestTag/onebox:managed": "1", "ec2:Encrypted": "false"}
        volume = f"{ANY}:volume/x"
        assert not allowed(document, Permission("ec2:RunInstances", volume, disk))

    @pytest.mark.parametrize(
        "action",
        [
            "iam:PassRole",
            "ec2:CreateKeyPair",
            "ec2:RequestSpotInstances",
            "s3:GetObject",
        ],
    )
    def test_nothing_else_is_allowed(self, action: str) -> None:
        """No role can be passed on, and no other service changed."""
        assert not allowed(policy.document(), Permission(action, f"{ANY}:x/x", OURS))


def test_the_provider_prints_this_policy(provider: AWS) -> None:
    """It is the text of `Provider.policy`."""
    assert provider.policy() == policy.document()
