"""The user's tags as labels, in a project whose policy requires them."""

from __future__ import annotations

import pytest

from onebox.errors import OneboxError
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest
from ..user_tags import UserTags, after_a_restart
from .conftest import MakeProvider

TAGS = {"cost-center": "42", "nightly": ""}


def test_every_call_that_creates_an_object_sets_them(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """Machine, disk and image have them; a restart keeps them."""
    server.account.required_label = "cost-center"
    provider = make_provider(tags=TAGS)
    box, image = after_a_restart(provider, make_request)

    [insert] = server.calls("instances.insert")
    [saving] = server.calls("images.insert")
    disk = insert.body["disks"][0]["initializeParams"]
    present = server.account.instance(box.id)
    for labels in (
        *(insert.body["labels"], disk["labels"], saving.body["labels"]),
        present["labels"],
    ):
        assert TAGS.items() <= labels.items()
    provider.delete(box)
    provider.delete_image(image)


def test_without_them_the_project_refuses(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """So the test above proves something."""
    server.account.required_label = "cost-center"
    with pytest.raises(OneboxError, match="no label cost-center"):
        make_provider().create(make_request())


class TestUserTags(UserTags):
    """The tests that all clouds share."""
