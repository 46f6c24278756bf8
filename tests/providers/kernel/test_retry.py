"""When an API call is repeated, and which error it ends in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onebox.errors import (
    NoCapacity,
    NotAllowed,
    OneboxError,
    ProviderError,
    Throttled,
    Unclear,
)
from onebox.providers.kernel.errors import RetryAfter, Unanswered
from onebox.providers.kernel.retry import Retry


def failing(*errors: Exception) -> Callable[[], str]:
    """Return an attempt that raises these errors, one a time, then returns "done"."""
    left = list(errors)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


def make(pauses: list[float], **limits: float) -> Retry:
    """Return a policy that records its pauses instead of sleeping."""
    return Retry(sleep=pauses.append, **limits)  # type: ignore[arg-type] # by name


def test_a_refusal_is_never_repeated() -> None:
    """A refusal is the final answer: it is raised at once, as it is."""
    pauses: list[float] = []
    refusal = NoCapacity("none")
    with pytest.raises(NoCapacity) as caught:
        make(pauses).call(failing(refusal))
    assert caught.value is refusal
    assert pauses == []


@pytest.mark.parametrize("error", [Unclear("lost"), Unanswered("lost")])
def test_a_call_without_a_response_is_repeated(error: OneboxError) -> None:
    """Attempts without a response are repeated, up to the limit of attempts."""
    assert make([]).call(failing(*[error] * 3)) == "done"
    with pytest.raises(type(error)):
        make([]).call(failing(*[error] * 4))


def test_a_call_that_is_not_repeatable_stops_at_the_first_lost_response() -> None:
    """Without a token only attempts that certainly changed nothing are repeated."""
    assert make([]).call(failing(Unanswered("")), repeatable=False) == "done"
    with pytest.raises(Unclear):
        make([]).call(failing(Unclear("")), repeatable=False)


@pytest.mark.parametrize("error", [NotAllowed, Throttled, Unanswered])
def test_a_lost_response_stays_unclear_if_the_repetition_fails(
    error: type[ProviderError],
) -> None:
    """Such an error does not show that nothing was created."""
    policy = make([], throttled_seconds=0.0, attempts=2)
    with pytest.raises(Unclear, match="later") as caught:
        policy.call(failing(Unclear("lost"), error("later")))
    assert isinstance(caught.value.__cause__, error)


def test_a_refusal_after_a_lost_response_is_final() -> None:
    """A refusal for a reason of the call's own also holds for the lost attempt."""
    with pytest.raises(NoCapacity):
        make([]).call(failing(Unclear("lost"), NoCapacity("none")))


def test_the_result_of_a_lost_call_can_be_found() -> None:
    """The caller may look for what the lost call created."""
    attempt = failing(Unclear("lost"), NoCapacity("none"))
    assert make([]).call(attempt, after_loss=lambda error: "found") == "found"


def test_throttling_is_waited_for_up_to_a_budget() -> None:
    """Throttled calls do not count as attempts; their pauses count as seconds."""
    pauses: list[float] = []
    policy = make(pauses, throttled_seconds=100.0)
    assert policy.call(failing(*[Throttled("slow down")] * 6)) == "done"
    with pytest.raises(Throttled):
        policy.call(failing(*[Throttled("slow down")] * 100))
    assert sum(pauses) <= 200.0


def test_the_pause_that_the_server_asks_for_is_taken() -> None:
    """Retry-After replaces the pause, as far as that is granted."""
    pauses: list[float] = []
    policy = make(pauses, longest_demanded=16.0)
    asked = [RetryAfter(Throttled("slow down"), s) for s in (7.0, 1000.0)]
    assert policy.call(failing(*asked)) == "done"
    assert pauses == [7.0, 16.0]


def test_a_pause_beyond_the_budget_is_not_begun() -> None:
    """If the server asks for more time than there is, the call fails at once."""
    pauses: list[float] = []
    with pytest.raises(Throttled):
        make(pauses).call(failing(RetryAfter(Throttled("slow down"), 2400.0)))
    assert pauses == []


def test_pauses_grow_to_a_limit() -> None:
    """The pauses double on average, and end at the longest one."""
    pauses: list[float] = []
    policy = make(pauses, attempts=9, first_pause=1.0, longest_pause=8.0)
    policy.call(failing(*[Unanswered("")] * 8))
    assert all(
        longest / 4 <= pause <= longest
        for pause, longest in zip(pauses, [1, 2, 4, 8, 8, 8, 8, 8])
    )
