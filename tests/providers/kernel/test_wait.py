"""The loop that repeats a question or an action until it succeeds or time is up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onebox.errors import ProviderError, Unclear
from onebox.providers.kernel.wait import Poller


class Clock:
    """A clock that only its own sleep moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        """Return the time."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.pauses.append(seconds)
        self.time += seconds


def test_the_first_result_is_returned() -> None:
    """The loop ends with the first true result; False and an empty list are none."""
    clock = Clock()
    results = iter([None, False, [], ["found"]])
    poller = Poller(clock.sleep, clock)
    assert poller.until(lambda: next(results), 60.0) == ["found"]
    assert clock.pauses == [1.0, 1.5, 2.25]


def test_pauses_grow_to_the_longest() -> None:
    """Each pause is half as long again as the one before, up to the longest."""
    clock = Clock()
    assert Poller(clock.sleep, clock, 1.0, 3.0).until(lambda: None, 8.0) is None
    assert clock.pauses == [1.0, 1.5, 2.25, 3.0, 3.0]


def test_there_is_a_look_after_the_deadline() -> None:
    """An event during the last pause is still seen."""
    clock = Clock()
    poller = Poller(clock.sleep, clock)
    assert poller.until(lambda: True if clock.time >= 1004 else None, 4.0)


def test_a_slow_look_counts() -> None:
    """The time of the looks themselves counts, not only that of the pauses."""
    clock = Clock()
    looks: list[float] = []

    def look() -> None:
        looks.append(clock.time)
        clock.time += 30

    assert Poller(clock.sleep, clock).until(look, 50.0) is None
    assert len(looks) == 3


def test_without_a_clock_the_pauses_are_the_time() -> None:
    """A sleep that returns at once still ends the loop."""
    assert Poller(lambda seconds: None, None).until(lambda: None, 600.0) is None


def test_what_takes_too_long_is_unclear() -> None:
    """If a deadline passes, the change may still come: the error is Unclear."""
    with pytest.raises(Unclear, match="the disk has taken longer than 9 s"):
        Poller(lambda seconds: None, None).require(lambda: None, 9.0, "the disk")


def refused(*messages: str) -> Callable[[], str]:
    """Return an action that fails with these messages, one a time, then succeeds."""
    left = list(messages)

    def act() -> str:
        if left:
            raise ProviderError(left.pop(0))
        return "done"

    return act


def is_busy(error: ProviderError) -> bool:
    """Return whether an error of `refused` means that the object is busy."""
    return error.message.startswith("busy")


def test_an_action_is_repeated_while_its_object_is_busy() -> None:
    """Its result is returned as soon as the object is free."""
    clock = Clock()
    poller = Poller(clock.sleep, clock)
    assert poller.until_free(refused("busy", "busy"), 60.0, is_busy) == "done"
    assert clock.pauses == [1.0, 1.5]


def test_an_object_that_stays_busy_ends_in_its_last_error() -> None:
    """The error of the last attempt is raised when the time is up."""
    act = refused(*(f"busy {number}" for number in range(100)))
    clock = Clock()
    with pytest.raises(ProviderError, match="busy 3"):
        Poller(clock.sleep, clock).until_free(act, 4.0, is_busy)


def test_an_action_that_is_refused_is_not_repeated() -> None:
    """Any other error than that of a busy object is raised at once."""
    clock = Clock()
    with pytest.raises(ProviderError, match="refused"):
        Poller(clock.sleep, clock).until_free(refused("refused"), 60.0, is_busy)
    assert clock.pauses == []
