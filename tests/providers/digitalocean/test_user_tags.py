"""The user's tags, which DigitalOcean has as one word each."""

from __future__ import annotations

import pytest

from onebox.errors import OneboxError
from tests.fakes.digitalocean.server import Server

from ..boxes import MakeRequest, image_of, when_up
from .conftest import MakeProvider

TAGS = {"Cost-Center": "42", "nightly": ""}
WORDS = {"Cost-Center:42", "nightly"}


def test_droplets_and_snapshots_have_them(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """The create call sets them; firewalls, which would select by them, have none."""
    server.account.behavior.required_tag = "Cost-Center:42"
    provider = make_provider(tags=TAGS)
    box = when_up(provider, provider.create(make_request()))
    provider.stop(box)
    image = provider.save(box, image_of(make_request()))
    box = when_up(provider, provider.start(box, box.deadline + 60))

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


def test_they_never_decide_whose_a_box_is(
    make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """Other tags, or none: the box stays its owner's."""
    box = make_provider(tags=TAGS).create(make_request())
    (found,) = make_provider(tags={"cost-center": "43"}).find(box.tags.owner)
    assert (found.id, found.tags) == (box.id, box.tags)
    make_provider().delete(found)
    assert make_provider().find(box.tags.owner) == []
