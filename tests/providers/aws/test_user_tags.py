"""The user's tags, in an account whose company denies creates without them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from onebox.errors import NotAllowed
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, image_of, when_up
from ..user_tags import UserTags
from .conftest import MakeProvider

TAGS = {"cost-center": "42", "Team": "blue = red"}


def carried(parameters: Any, kind: str) -> dict[str, str]:
    """Return the tags in a call for an object of a kind."""
    (tags,) = (
        one["Tags"]
        for one in parameters["TagSpecifications"]
        if one["ResourceType"] == kind
    )
    return {tag["Key"]: tag["Value"] for tag in tags}


class TestUserTags(UserTags):
    def test_every_call_that_creates_an_object_sets_them(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """Machines, disks, groups, requests for spot, images, alarms, rescue."""
        account.faults.required_tag = "cost-center"
        provider = make_provider(tags=TAGS)
        box = when_up(provider, provider.create(make_request()))
        provider.stop(box)
        image = provider.save(box, image_of(make_request()))
        provider.delete(box)
        spot = when_up(provider, provider.create(make_request(spot=True)))
        account.preempt(spot.id)
        account.wait(spot.id, "terminated")
        (kept,) = provider.find(spot.tags.owner, everywhere=True)
        rescued = when_up(provider, provider.start(kept, time.time() + 900))
        provider.delete(rescued)
        provider.delete_image(image)

        made = {}
        for call in account.calls:
            if call.action == "PutMetricAlarm":
                tags = {tag["Key"]: tag["Value"] for tag in call.parameters["Tags"]}
                assert tags == TAGS
            for one in call.parameters.get("TagSpecifications", ()):
                tags = carried(call.parameters, one["ResourceType"])
                made[one["ResourceType"]] = {key: tags[key] for key in TAGS}
        assert made == dict.fromkeys(
            (
                *("security-group", "instance", "volume", "network-interface"),
                *("spot-instances-request", "image", "snapshot"),
            ),
            TAGS,
        )
        assert account.alive(box.id) == []

    def test_without_them_the_account_refuses(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """So the test above proves something; nothing is left."""
        account.faults.required_tag = "cost-center"
        request = make_request()
        with pytest.raises(NotAllowed):
            make_provider().create(request)
        assert account.alive(request.box) == []

    def test_an_alarm_without_tags_is_better_than_none(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The account may lack the permission to tag an alarm."""
        account.faults.add("PutMetricAlarm", "bad key")
        provider = make_provider(tags=TAGS)
        box = provider.create(make_request())
        (alarm,) = [call for call in account.calls if call.action == "PutMetricAlarm"]
        assert "Tags" not in alarm.parameters
        provider.delete(box)

    def test_adopted_images_get_them(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """Packer has created the image without them."""
        provider = make_provider(tags=TAGS)
        backend = account.backend("us-east-1")
        public = next(iter(backend.amis))
        built = backend.copy_image(public, "us-east-1", "built", "")
        image = provider.adopt_image(f"us-east-1:{built.id}", image_of(make_request()))
        tags = {tag["key"]: tag["value"] for tag in built.get_tags()}
        assert {key: tags[key] for key in TAGS} == TAGS
        provider.delete_image(image)
