"""Tests of the user's tags that are the same at every cloud."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onebox.providers.base import Provider
from onebox.providers.values import Box, Image

from .boxes import MakeRequest, image_of, when_up


def after_a_restart(provider: Provider, make_request: MakeRequest) -> tuple[Box, Image]:
    """Return a box that was stopped, saved as an image and started, and the image."""
    box = when_up(provider, provider.create(make_request()))
    provider.stop(box)
    image = provider.save(box, image_of(make_request()))
    return when_up(provider, provider.start(box, box.deadline + 60)), image


class UserTags:
    """
    The tests that each cloud's own tests inherit.

    They need the fixtures `make_provider`, whose keyword *tags* has the user's tags,
    and `make_request`.
    """

    def test_they_never_decide_whose_a_box_is(
        self, make_provider: Callable[..., Any], make_request: MakeRequest
    ) -> None:
        """Other tags, or none: the box stays its owner's."""
        box = make_provider(tags={"cost-center": "42"}).create(make_request())
        (found,) = make_provider(tags={"cost-center": "43"}).find(box.tags.owner)
        assert (found.id, found.tags) == (box.id, box.tags)
        make_provider().delete(found)
        assert make_provider().find(box.tags.owner) == []
