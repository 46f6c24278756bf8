"""The tests of one cluster are run by one process, at its beginning."""

from __future__ import annotations

import pytest

from tests.order import spread

NAMES = [
    *[f"tests/agent/test_jobs.py::test_{n}" for n in range(200)],
    *[f"tests/chaos/test_tally.py::test_no_fault[ray-{n}]" for n in range(2)],
    *[f"tests/chaos/test_tally.py::test_no_fault[slurm-{n}]" for n in range(4)],
    *[f"tests/fakes/test_ray.py::test_{n}" for n in range(3)],
    *[f"tests/providers/aws/test_machines.py::test_{n}" for n in range(7)],
    *[f"tests/system/test_map.py::test_{n}" for n in range(150)],
    *[f"tests/system/test_ray.py::test_{n}" for n in range(15)],
    *[f"tests/system/test_slurm.py::test_{n}" for n in range(12)],
    *[f"tests/units/test_plan.py::test_{n}" for n in range(90)],
]


def parts(names: list[str], count: int) -> list[list[str]]:
    """Return the names as `--dist worksteal` distributes them."""
    left, found = list(names), []
    for number in range(count):
        size = len(left) // (count - number)
        found.append(left[:size])
        del left[:size]
    return found


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_tests_of_a_cluster_begin_one_part(count: int) -> None:
    """They are in one part, without other tests between them."""
    ordered = spread(NAMES, count, str)
    for word in ("ray", "slurm"):
        (part,) = [
            part
            for part in parts(ordered, count)
            if any(f"[{word}-" in name or f"test_{word}.py" in name for name in part)
        ]
        own = [f"[{word}-" in name or f"test_{word}.py" in name for name in part]
        begin, end = own.index(True), len(own) - own[::-1].index(True)

        assert all(own[begin:end])
        assert 0 == begin


@pytest.mark.parametrize("count", [1, 2, 5, 200])
def test_all_tests_remain_in_their_order(count: int) -> None:
    """None is lost or run twice, and the tests of a module stay together."""
    ordered = spread(NAMES, count, str)

    assert sorted(NAMES) == sorted(ordered)
    for file in {name.partition("::")[0] for name in NAMES} - {
        "tests/chaos/test_tally.py"
    }:
        assert [n for n in NAMES if n.startswith(file)] == [
            n for n in ordered if n.startswith(file)
        ]
