"""The proof that the faults of `inv map` in the tally find what they look for."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos import unit_kills
from tests.chaos.world import PACKAGE

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Fault:
    """
    A mistake that onebox could have.

    In each of some modules, a text becomes another one.
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]
    finding: str


FAULTS = [
    Fault(
        "units run again that are done",
        (
            (
                "agent/units/pool.py",
                "if unit_result.is_done(path, self.head, unit):",
                "if False:",
            ),
            (
                "units/results.py",
                "return [n for n in numbers if n not in results or not results[n].ok]",
                "return list(numbers)",
            ),
        ),
        "was done by",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_planted_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    """A copy of onebox has a mistake; after a kill on its box the result is a loss."""
    package = tmp_path / "onebox"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, old, new in fault.changes:
        path = package / module
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
    with unit_kills.units(work="sleep 0.4") as made:
        made.project.environ["PYTHONPATH"] = str(tmp_path)
        outcome = unit_kills.kill_in_box(
            made, unit_kills.BOTH, ("map",), random.Random(0)
        )

    assert outcome.verdict == "lost"
    assert fault.finding in outcome.why, outcome.why


def test_table_is_written_after_a_kill_just_before_it() -> None:
    """After the kill the box is removed; then `inv map --failed` has to write it."""
    with unit_kills.units() as made:
        step = next(
            step
            for step in unit_kills.steps(made)
            if step.startswith("os.rename") and "units/table.py" in step
        )
        outcome = unit_kills.kill_client(made, step, ("teardown",))

    assert outcome is not None
    assert not outcome.why, outcome.why
