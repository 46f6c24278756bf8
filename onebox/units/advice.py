"""Compare what units of `map` used with what onebox.toml says they need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median

from onebox import formatting
from onebox.settings.units import GB, parse_bytes
from onebox.units.results import UnitResult

# Of a shorter unit (seconds), the mean number of busy cores is too inexact.
SHORTEST = 1.0
# A unit that keeps this part of a core more busy does not need another core.
TOLERANCE = 0.1
# The suggested memory is at least this many times the highest peak.
HEADROOM = 1.25
# A change is suggested if at least this many times as many units run at once.
GAIN = 1.25
# The typical peak is named too if it is below this part of the highest one.
CLEARLY_LESS = 0.9


def advise(
    results: Mapping[int, UnitResult],
    *,
    cpus: int,
    memory: int | None,
    box_cpus: int,
    box_memory: int,
) -> list[str]:
    """
    Return sentences on units that used more than expected, or clearly less.

    Args:
        cpus, memory: The CPUs and the memory (bytes) of a unit as onebox.toml has them;
            None if it has no memory.

        box_cpus, box_memory: Those of the box.
    """
    lines = _excess(results.values(), memory) if memory else []
    # A unit that ran out of memory would have used more than its peak.
    if not any(result.cause == "oom" for result in results.values()):
        lines += _gain(results.values(), cpus, memory or None, box_cpus, box_memory)
    return lines


def _excess(results: Iterable[UnitResult], memory: int) -> list[str]:
    """Return a sentence on the units that used more than *memory* bytes, if any."""
    above = [result for result in results if (result.memory_peak or 0) > memory]
    if not above:
        return []
    most = max(above, key=lambda result: result.memory_peak or 0)
    limit = f"[map] memory = {formatting.byte_count(memory)}"
    used = formatting.byte_count(most.memory_peak or 0)
    if len(above) == 1:
        return [f"unit {most.unit} used {used}, more than {limit}"]
    amount = formatting.count(len(above), "unit")
    return [f"{amount} used more than {limit}; unit {most.unit} the most: {used}"]


def _gain(
    results: Iterable[UnitResult],
    cpus: int,
    memory: int | None,
    box_cpus: int,
    box_memory: int,
) -> list[str]:
    """Return a sentence with the values that let clearly more units run at once."""
    ended = list(results)
    peaks = [result.memory_peak for result in ended if result.memory_peak]
    cores = [
        result.cpu_seconds / result.seconds
        for result in ended
        if result.ok and result.cpu_seconds and result.seconds >= SHORTEST
    ]
    # Units that failed may have ended before they used much.
    if not peaks or not any(result.ok for result in ended):
        return []

    def at_once(cpus: int, memory: int | None) -> int:
        by_memory = box_memory // memory if memory else len(ended)
        return min(max(1, min(box_cpus // cpus, by_memory)), len(ended))

    fewer = _suggested_cpus(max(cores), cpus) if cores else cpus
    less_text = _suggested_memory(max(peaks))
    less = parse_bytes(less_text)
    if memory and max(peaks) <= memory <= less:
        less = memory
    now, best = at_once(cpus, memory), at_once(fewer, less)
    if best < GAIN * now:
        return []
    changes = [f'memory = "{less_text}"', f"cpus = {fewer}"]
    if at_once(cpus, less) == best:
        del changes[1]
    elif at_once(fewer, memory) == best:
        del changes[0]
    used = [_used_memory(peaks)]
    if cores and cpus > 1:
        used.append(f"{max(cores):.1f} of {cpus} cores")
    return [
        f"units used at most {' and '.join(used)}: {' and '.join(changes)} would run "
        f"{best} at once instead of {now}"
    ]


def _used_memory(peaks: list[int]) -> str:
    highest, typical = max(peaks), median(peaks)
    text = formatting.byte_count(highest)
    if typical < CLEARLY_LESS * highest:
        text += f" (typically {formatting.byte_count(typical)})"
    return text


def _suggested_cpus(cores: float, cpus: int) -> int:
    return min(cpus, max(1, math.ceil(cores - TOLERANCE)))


def _suggested_memory(peak: int) -> str:
    """Return a round amount of memory that is clearly more than *peak* bytes."""
    wanted = HEADROOM * peak
    step = GB // 8 if wanted <= GB else GB // 2 if wanted <= 16 * GB else GB
    return formatting.byte_count(math.ceil(wanted / step) * step)
