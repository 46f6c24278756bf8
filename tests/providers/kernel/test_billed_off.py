"""The choice of a user whose cloud bills machines that are powered off."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from onebox.errors import ConfigError
from onebox.providers.kernel.billed_off import BilledOff

WORDS = BilledOff("Cirrus", "cirrus", "a wisp", "CIRRUS_TOKEN", "few rights")


@dataclass(frozen=True)
class Chosen:
    """The settings of a user."""

    accept_no_watchdog: bool = False
    destroy_token: str = ""


def test_a_user_who_has_not_chosen_gets_no_box() -> None:
    """The error names both ways out."""
    with pytest.raises(ConfigError, match="Cirrus bills a wisp") as caught:
        WORDS.token(Chosen(), {}, "main")
    assert "[cirrus] destroy_token" in caught.value.next
    assert "accept_no_watchdog = true" in caught.value.next


def test_the_token_of_the_boxes_is_another_one() -> None:
    """All rights of the user would be on the box otherwise."""
    chosen = Chosen(destroy_token="END")
    assert WORDS.token(chosen, {"END": " end "}, "main") == "end"
    with pytest.raises(ConfigError, match="END, which is not set"):
        WORDS.token(chosen, {}, "main")
    with pytest.raises(ConfigError, match="the same token as CIRRUS_TOKEN"):
        WORDS.token(chosen, {"END": "main"}, "main")


def test_what_was_chosen_is_said() -> None:
    """In the note of each box, and by inv doctor."""
    accepted, token = Chosen(accept_no_watchdog=True), Chosen(destroy_token="END")
    assert WORDS.token(accepted, {}, "main") == ""
    assert "inv sweep" in WORDS.note(accepted)
    assert "deletes itself" in WORDS.note(token)
    assert WORDS.check(accepted, {}, "main").ok is None
    assert WORDS.check(token, {"END": "end"}, "main").ok is True
    assert (
        WORDS.stopped_note(0.5)
        == "a wisp that is powered off is billed in full, $0.50/h"
    )
    assert WORDS.stopped_note(None).endswith("billed in full")
