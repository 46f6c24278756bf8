"""Detect that a job was probably killed for lack of memory; suggest a larger size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from onebox import formatting
from onebox.context import BoxContext
from onebox.jobs import job_limits
from onebox.providers import CLOUDS
from onebox.providers.values import Box
from onebox.remote.job_answers import ExitRecord
from onebox.settings import Size

# A killed job that used at least this part of the memory probably had too little.
NEAR = 0.9
# A size has more memory if it has at least this many times the present one. A machine
# type often has a little less than its size promises.
MORE = 1.2
# The exit code of a program that SIGKILL has ended.
KILLED = 137


def memory_advice(context: BoxContext, box: Box, record: ExitRecord) -> str:
    """
    Return a sentence on a job that was probably killed for lack of memory.

    Return "" if the job ended for another reason.
    """
    # On a cluster, another size has more memory too.
    is_cloud = context.provider.name in CLOUDS or not context.provider.powers_off
    sizes = context.settings.sizes.values()
    _, total = job_limits.of(context, box, None, record.memory_total)
    record = replace(record, memory_total=total)
    return advice(record, box.offer.memory, sizes, is_cloud=is_cloud)


def advice(
    record: ExitRecord, memory: int, sizes: Iterable[Size], *, is_cloud: bool
) -> str:
    """
    Return what `memory_advice` returns.

    Args:
        memory: The memory of the box in bytes, as its offer names it.

        sizes: The sizes of which one with more memory is named.

        is_cloud: Whether the box is at a cloud, so that another size has more memory.
    """
    total = record.memory_total or memory
    peak = record.memory_peak or 0
    was_near = total > 0 and peak >= NEAR * total
    was_killed = record.code == KILLED and record.cause in ("signal", "exit")
    if record.cause != "oom" and not (was_killed and was_near):
        return ""
    text = "probably out of memory"
    if peak and total:
        text += f": peak {formatting.bytes_of(peak, total)}"
    least = MORE * max(total, memory)
    larger = min(
        (size for size in sizes if size.memory > least),
        key=lambda size: (size.memory, size.cpus),
        default=None,
    )
    if larger is None:
        return text
    cloud = "" if is_cloud else f"a cloud: --provider={CLOUDS[0]} "
    return f"{text}; try {cloud}--vm={larger.name}"
