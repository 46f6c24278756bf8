"""The user's tags as labels of servers, firewalls, keys, addresses and snapshots."""

from __future__ import annotations

import pytest

from onebox.errors import OneboxError
from tests.fakes.hetzner.server import Server

from ..boxes import MakeRequest
from ..user_tags import UserTags, after_a_restart
from .conftest import MakeProvider

TAGS = {"cost-center": "42", "example.com/team": "blue"}


def test_every_call_that_creates_an_object_sets_them(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """All objects have them, also after a restart, which writes labels."""
    server.project.behavior.required_label = "cost-center"
    provider = make_provider(tags=TAGS)
    box, image = after_a_restart(provider, make_request)

    labelled = {
        one.kind: one.labels
        for one in server.project.resources.values()
        if "onebox-managed" in one.labels or "onebox-box" in one.labels
    }
    assert {"servers", "firewalls", "ssh_keys", "images"} <= set(labelled)
    for kind, labels in labelled.items():
        assert TAGS.items() <= labels.items(), kind
    provider.delete(box)
    provider.delete_image(image)


def test_without_them_the_project_refuses(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """So the test above proves something."""
    server.project.behavior.required_label = "cost-center"
    with pytest.raises(OneboxError, match="no label cost-center"):
        make_provider().create(make_request())


class TestUserTags(UserTags):
    """The tests that all clouds share."""
