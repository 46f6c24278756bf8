"""A user chooses what ends the billing of a machine that is powered off."""

from __future__ import annotations

import pytest

from onebox.errors import ConfigError
from onebox.providers.kernel.billed_off import BilledOff, BilledOffSettings

WORDS = BilledOff("Cirrus", "cirrus", "a wisp", "CIRRUS_TOKEN", "few rights")


def test_without_a_choice_of_the_user_there_is_no_box() -> None:
    """The error names both settings."""
    with pytest.raises(ConfigError, match="Cirrus bills a wisp") as caught:
        WORDS.token(BilledOffSettings(), {}, "main")
    assert "[cirrus] destroy_token" in caught.value.next
    assert "accept_no_watchdog = true" in caught.value.next


def test_the_token_of_the_boxes_differs_from_onebox_s_own() -> None:
    """Otherwise all rights of the user would be on the box."""
    settings = BilledOffSettings(destroy_token="END")
    assert WORDS.token(settings, {"END": " end "}, "main") == "end"
    with pytest.raises(ConfigError, match="END, which is not set"):
        WORDS.token(settings, {}, "main")
    with pytest.raises(ConfigError, match="the same token as CIRRUS_TOKEN"):
        WORDS.token(settings, {"END": "main"}, "main")


def test_the_choice_is_in_the_notes_of_a_box_and_in_doctor() -> None:
    """A stopped box also has its price in a note."""
    accepted, token = (
        BilledOffSettings(accept_no_watchdog=True),
        BilledOffSettings(destroy_token="END"),
    )
    assert WORDS.token(accepted, {}, "main") == ""
    assert "inv cleanup" in WORDS.note(accepted)
    assert "deletes itself" in WORDS.note(token)
    assert WORDS.check(accepted, {}, "main").ok is None
    assert WORDS.check(token, {"END": "end"}, "main").ok is True
    assert (
        WORDS.stopped_note(0.5)
        == "a wisp that is powered off is billed in full, $0.50/h"
    )
    assert WORDS.stopped_note(None).endswith("billed in full")
