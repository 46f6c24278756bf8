"""The small part of the tally: every kind of fault, and nothing is ever lost."""

from __future__ import annotations

import os
import secrets

import pytest

from . import tally

SEED = int(os.environ.get("ONEBOX_TEST_SEED") or secrets.randbits(32))
PARTS = [
    pytest.param(part, id=f"{kind}-{number}")
    for kind, parts in tally.plan(SEED, full=False).items()
    for number, part in enumerate(parts)
]


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_lost(part: tally.Work) -> None:
    """
    Whatever is killed, cut, full or done at once: no box, output or state is lost.

    The seed of a failure is in its message; ONEBOX_TEST_SEED repeats it.
    """
    outcomes = list(part())
    assert outcomes
    lost = [f"{o.kind}: {o.fault}\n{o.why}" for o in outcomes if o.verdict == "lost"]
    assert not lost, f"seed {SEED}\n" + "\n\n".join(lost)
