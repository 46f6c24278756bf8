"""Say whether a job was probably killed for lack of memory, and what has more."""

from __future__ import annotations

from onebox import formatting
from onebox.context import BoxContext
from onebox.providers import CLOUDS
from onebox.providers.values import Box
from onebox.remote.answers import ExitRecord
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
    total = record.memory_total or box.offer.memory
    peak = record.memory_peak or 0
    was_near = total > 0 and peak >= NEAR * total
    was_killed = record.code == KILLED and record.cause in ("signal", "exit")
    if record.cause != "oom" and not (was_killed and was_near):
        return ""
    text = "probably out of memory"
    if peak and total:
        text += f": peak {formatting.bytes_of(peak, total)}"
    larger = _next_larger(context, max(total, box.offer.memory))
    if larger is None:
        return text
    if context.provider.name in CLOUDS:
        return f"{text}; try --vm={larger.name}"
    return f"{text}; try a cloud: --provider={CLOUDS[0]} --vm={larger.name}"


def _next_larger(context: BoxContext, memory: int) -> Size | None:
    """Return the smallest size with more than *memory* bytes, None if there is none."""
    larger = [
        size for size in context.settings.sizes.values() if size.memory > MORE * memory
    ]
    return min(larger, key=lambda size: (size.memory, size.cpus), default=None)
