"""The small part of the tally: every kind of fault, and nothing is lost."""

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
    """The outcomes of each kind of fault; the kinds run at the same time."""
    found: dict[str, list[Outcome]] = {kind: [] for kind in PARTS}
    work = [(kind, part) for kind, parts in PARTS.items() for part in parts]
    for kind, outcome in tally.in_threads(work, JOBS):
        found[kind].append(outcome)
    return found


@pytest.mark.parametrize("kind", PARTS)
def test_no_fault_loses_a_box_an_output_or_state(
    outcomes: dict[str, list[Outcome]], kind: str
) -> None:
    """Faults are kills, cut connections, full disks and concurrent commands."""
    lost = [f"{o.kind}: {o.fault}\n{o.why}" for o in outcomes[kind] if o.why]
    assert not lost, f"seed {SEED}\n" + "\n\n".join(lost)
    # Small disks take root, to mount them.
    assert outcomes[kind] or (kind == "disks" and os.geteuid())
