"""How many CPUs and how much memory a job may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box

# A number that may be unknown, if it is None.
Number = TypeVar("Number", int, "int | None")


def of(
    context: BoxContext, box: Box, cpus: Number, memory: Number
) -> tuple[Number, Number]:
    """
    Return the CPUs and the bytes of memory that a job may use.

    Args:
        cpus, memory: Those of the machine that runs it. On a cluster, the job has the
            part of a node that it asked for.
    """
    if context.provider.powers_off:
        return cpus, memory
    return box.offer.cpus, box.offer.memory
