"""Forward ports of the box to this machine, and print their addresses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from onebox import formatting
from onebox.context import BoxContext
from onebox.errors import UsageError
from onebox.providers.values import Box
from onebox.remote import forwarding
from onebox.remote.forwarding import Forwarded
from onebox.settings.ports import PortPair


def of_job(context: BoxContext) -> list[PortPair]:
    """Return the ports that `[run] ports` names."""
    return [PortPair.parse(text) for text in context.settings.run.ports]


def of_flag(values: Sequence[str]) -> list[PortPair]:
    """
    Return the ports that the flag `--forward` names.

    Raises:
        UsageError: A value names no ports.
    """
    try:
        return [PortPair.parse(text) for text in values]
    except ValueError as error:
        raise UsageError(f"--forward: {error}", next="inv ssh --forward=8888") from None


@contextlib.contextmanager
def forwarded(
    context: BoxContext, box: Box, pairs: Sequence[PortPair], when: str = ""
) -> Iterator[list[Forwarded]]:
    """
    Forward ports while the body runs, and print the address of each.

    Args:
        when: A phrase that says from when on the ports answer.
    """
    if pairs and not context.provider.powers_off:
        context.screen.note(
            "ports are not forwarded: the job runs on a node of the cluster"
        )
        pairs = []
    chosen = forwarding.choose(pairs, shared=context.provider.shares_ports)
    with forwarding.forwarding(context.ssh(box), chosen):
        for port in chosen:
            context.screen.note(", ".join(filter(None, [port.text, when])))
        yield chosen


def warn_of_taken(context: BoxContext) -> None:
    """Warn if the job cannot listen on a port, because a local box shares our ports."""
    if not context.provider.shares_ports:
        return
    busy = [
        str(pair.remote)
        for pair in of_job(context)
        if not forwarding.is_free(pair.remote)
    ]
    if busy:
        context.screen.warn(
            f"in use on this machine: port {formatting.first_names(busy)}. A local "
            "box has the ports of this machine, so the job cannot listen there"
        )
