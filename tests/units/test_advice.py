"""What units used, compared with what onebox.toml says."""

from __future__ import annotations

from typing import Any

from onebox.units.advice import advise
from onebox.units.results import UnitResult
from tests.units.test_results import result

GB = 1 << 30


def units(total: int = 100, **change: Any) -> dict[int, UnitResult]:
    """Return units that used 1.9 GB and one core, or what *change* says."""
    values: dict[str, Any] = {
        "code": 0,
        "seconds": 60,
        "cpu_seconds": 60,
        "memory_peak": int(1.9 * GB),
        **change,
    }
    return {n: result(n, **values) for n in range(1, total + 1)}


def advice(
    results: dict[int, UnitResult],
    cpus: int = 4,
    memory: int | None = 16 * GB,
    box: tuple[int, int] = (16, 64 * GB),
) -> list[str]:
    """Return the advice for a box with 16 CPUs and 64 GB."""
    return advise(results, cpus=cpus, memory=memory, box_cpus=box[0], box_memory=box[1])


def test_values_that_let_more_units_run_are_named() -> None:
    """Memory has a margin over the highest peak."""
    assert [
        'units used at most 1.9 GB and 1.0 of 4 cores: memory = "2.5 GB" and cpus = 1 '
        "would run 16 at once instead of 4"
    ] == advice(units())


def test_only_the_value_that_limits_is_named() -> None:
    """A value that changes nothing is not part of the sentence."""
    many_cpus = advice(units(), memory=2 * GB)
    much_memory = advice(units(cpu_seconds=240), memory=32 * GB)
    without = advice(units(), memory=None)

    assert many_cpus[0].endswith("4 cores: cpus = 1 would run 16 at once instead of 4")
    assert much_memory[0].endswith(
        ': memory = "2.5 GB" would run 4 at once instead of 2'
    )
    assert without[0].endswith("4 cores: cpus = 1 would run 16 at once instead of 4")


def test_units_without_a_memory_limit_do_not_exceed_the_box() -> None:
    """If memory limits more than CPUs do, it is part of the advice."""
    found = advice(units(memory_peak=6 * GB), memory=None)

    assert found[0].endswith(
        'memory = "7.5 GB" and cpus = 1 would run 8 at once instead of 4'
    )


def test_typical_peak_is_named_if_it_is_clearly_lower() -> None:
    """One large unit decides on the memory; the user sees that it is alone."""
    results = units()
    results[7] = units(7, memory_peak=4 * GB)[7]

    assert advice(results)[0].startswith(
        "units used at most 4 GB (typically 1.9 GB) and 1.0 of 4 cores: "
    )


def test_units_that_used_more_than_their_memory_are_named() -> None:
    """One is named; of several, the one that used the most."""
    one = units(cpu_seconds=240)
    one[17] = units(17, memory_peak=12 * GB, cpu_seconds=240)[17]
    several = {**one, 3: units(3, memory_peak=9 * GB, cpu_seconds=240)[3]}

    assert ["unit 17 used 12 GB, more than [map] memory = 8 GB"] == advice(
        one, memory=8 * GB
    )
    assert [
        "2 units used more than [map] memory = 8 GB; unit 17 the most: 12 GB"
    ] == advice(several, memory=8 * GB)


def test_small_gain_is_not_worth_a_sentence() -> None:
    """Fewer than 25 % more units at once are no gain; nor are more than there are."""
    assert [] == advice(units(cpu_seconds=240), memory=4 * GB)
    assert [] == advice(
        units(cpu_seconds=420), cpus=8, memory=2 * GB, box=(56, 64 * GB)
    )
    assert [] == advice(units(total=4))
    assert "would run 6 at once instead of 4" in advice(units(total=6))[0]


def test_nothing_is_said_without_data() -> None:
    """Units that failed, or whose use is unknown, tell nothing."""
    assert [] == advice({})
    assert [] == advice(units(code=1))
    assert [] == advice(units(memory_peak=None))
    assert [] == advice(units(memory_peak=0))


def test_unit_that_ran_out_of_memory_ends_the_advice() -> None:
    """It would have used more than its peak, so no lower value is safe."""
    results = units()
    results[5] = units(5, code=137, cause="oom", signal=9)[5]

    assert [] == advice(results)


def test_short_units_say_nothing_of_cores() -> None:
    """The times of a unit of less than a second are too inexact."""
    found = advice(units(seconds=0.5, cpu_seconds=0.1), memory=32 * GB)

    assert [
        'units used at most 1.9 GB: memory = "2.5 GB" would run 4 at once instead of 2'
    ] == found


def test_more_busy_cores_than_a_whole_number_need_one_more() -> None:
    """A unit that keeps 1.3 cores busy needs two; of 1.05 cores, one is enough."""
    assert "cpus = 2 would" in advice(units(cpu_seconds=78), memory=2 * GB)[0]
    assert "cpus = 1 would" in advice(units(cpu_seconds=63), memory=2 * GB)[0]
