"""The small part of the tally: every kind of fault, and nothing is ever lost."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.chaos import tally
from tests.chaos.world import Outcome

SEED = int(os.environ.get("ONEBOX_TEST_SEED") or secrets.randbits(32))
# Most of the time something is waited for.
JOBS = 4
PARTS = tally.plan(SEED, full=False)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Outcome]]:
    """How every fault of each kind went; kinds go on side by side."""
    found: dict[str, list[Outcome]] = {kind: [] for kind in PARTS}
    work = [(kind, part) for kind, parts in PARTS.items() for part in parts]
    for kind, outcome in tally.together(work, JOBS):
        found[kind].append(outcome)
    return found


@pytest.mark.parametrize("kind", PARTS)
def test_nothing_is_lost(outcomes: dict[str, list[Outcome]], kind: str) -> None:
    """
    Whatever is killed, cut, full or done at once: no box, output or state is lost.

    ONEBOX_TEST_SEED repeats a failure: its seed is in the message.
    """
    lost = [f"{o.kind}: {o.fault}\n{o.why}" for o in outcomes[kind] if o.why]
    assert not lost, f"seed {SEED}\n" + "\n\n".join(lost)
    # Small disks take root, to mount them.
    assert outcomes[kind] or (kind == "disks" and os.geteuid())
