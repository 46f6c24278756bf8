"""The user's tags, which DigitalOcean has as one word each."""

from __future__ import annotations

import pytest

from onebox.errors import OneboxError
from tests.fakes.digitalocean.server import Server

from ..boxes import MakeRequest
from ..user_tags import UserTags, after_a_restart
from .conftest import MakeProvider

TAGS = {"Cost-Center": "42", "nightly": ""}
WORDS = {"Cost-Center:42", "nightly"}


def test_droplets_and_snapshots_have_them(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """The create call sets them; firewalls, which would select by them, have none."""
    server.account.behavior.required_tag = "Cost-Center:42"
    provider = make_provider(tags=TAGS)
    box, image = after_a_restart(provider, make_request)

    [droplet] = server.account.droplets.values()
    [snapshot] = [one for one in server.account.images.values() if one["tags"]]
    assert set(droplet.body["tags"]) >= WORDS
    assert set(droplet.tags) >= WORDS
    assert set(snapshot["tags"]) >= WORDS
    [firewall] = server.account.firewalls.values()
    assert not WORDS & set(firewall["tags"])
    provider.delete(box)
    provider.delete_image(image)
    # They may be on other objects of the account, so they stay.
    assert {word.lower() for word in WORDS} <= set(server.account.tags)


def test_without_them_the_account_refuses(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """So the test above proves something."""
    server.account.behavior.required_tag = "Cost-Center:42"
    with pytest.raises(OneboxError, match="no tag Cost-Center:42"):
        make_provider().create(make_request())


class TestUserTags(UserTags):
    """The tests that all clouds share."""
