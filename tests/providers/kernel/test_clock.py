"""The clock of a cloud's API, which may differ from that of this machine."""

from __future__ import annotations

import email.utils

import pytest

from onebox.providers.kernel.clock import ServerClock

NOW = 1_700_000_000.0


def dated(seconds: float) -> str:
    """Return a time as the Date of an answer."""
    return email.utils.formatdate(seconds, usegmt=True)


@pytest.mark.parametrize("ahead", [-86400.0, -6.0, 6.0, 86400.0])
def test_the_date_of_an_answer_corrects_the_clock(ahead: float) -> None:
    """The difference to this machine is kept until the next answer."""
    here = [NOW]
    clock = ServerClock(lambda: here[0])
    clock.correct(dated(NOW + ahead))
    here[0] += 10
    assert clock() == NOW + ahead + 10


def test_a_difference_that_the_transfer_explains_is_no_correction() -> None:
    """A Date is in whole seconds, and an answer takes time; it ends a correction."""
    clock = ServerClock(lambda: NOW)
    clock.correct(dated(NOW + 60))
    clock.correct(dated(NOW - 4))
    assert clock() == NOW


@pytest.mark.parametrize("date", [None, "", "yesterday", "Tue, 99 Foo 2023 00:00"])
def test_a_malformed_date_changes_nothing(date: str | None) -> None:
    """The correction by the last valid answer stays."""
    clock = ServerClock(lambda: NOW)
    clock.correct(dated(NOW + 60))
    clock.correct(date)
    assert clock() == NOW + 60
