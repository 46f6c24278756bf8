"""The small part of the tally: every kind of fault, and nothing is lost."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.chaos import tally

SEED = int(os.environ.get("ONEBOX_TEST_SEED") or secrets.randbits(32))
# Each part is a test of its own, so that several run at the same time.
PARTS = [
    pytest.param(kind, number, id=f"{kind}-{number}")
    for kind, parts in tally.plan(SEED, full=False).items()
    for number in range(len(parts))
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), PARTS)
def test_no_fault_loses_a_box_an_output_or_state(kind: str, number: int) -> None:
    """Faults are kills, cut connections, full disks and concurrent commands."""
    outcomes = list(tally.plan(SEED, full=False)[kind][number]())

    lost = [f"{o.kind}: {o.fault}\n{o.why}" for o in outcomes if o.why]
    assert not lost, f"seed {SEED}\n" + "\n\n".join(lost)
    # Small disks take root, to mount them, and a cluster takes its programs too.
    assert outcomes or (kind == "disks" and os.geteuid()) or kind in ("slurm", "ray")
