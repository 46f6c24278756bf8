"""Start a stopped box for a limited time, and power it off again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onebox.boxes import bring_up
from onebox.boxes.create import adopt
from onebox.errors import OneboxError
from onebox.providers.values import Box

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A box that is started only to fetch its outputs powers itself off after this many
# seconds.
FETCH_ONLY_SECONDS = 1800.0


def start(context: BoxContext, box: Box, deadline: float | None = None) -> Box:
    """
    Start a stopped box, wait until it is up, and return it.

    Args:
        deadline: The box's new deadline (epoch seconds). None means a deadline in
            `FETCH_ONLY_SECONDS` from now.
    """
    if deadline is None:
        deadline = context.now() + FETCH_ONLY_SECONDS
    if context.store.record.box == box.id:
        context.store.update(booted=False)
    with context.store.intent("start", box=box.id):
        box = context.provider.start(box, deadline)
    context.boxes.set_current(box)
    box = bring_up.finish_boot(context, box)
    box = bring_up.with_armed_deadline(context, box)
    context.boxes.set_current(box)
    adopt(context, box)
    return box


@contextmanager
def off_again_if_it_fails(context: BoxContext, box: Box) -> Iterator[None]:
    """Power the box off if the body fails and *box* was stopped before the body."""
    try:
        yield
    except BaseException:
        if box.state == "stopped":
            power_off(context, box)
        raise


def power_off(context: BoxContext, box: Box) -> None:
    """Power off a box that was started only for its outputs; its disk stays."""
    context.close()
    try:
        current = context.provider.get(box.id, box.place)
        if current is None or current.state not in ("starting", "running"):
            return
        context.provider.stop(current)
    except OneboxError as error:
        context.screen.warn(f"{box.id} may still be on: {error.message}")
        return
    finally:
        context.boxes.invalidate()
    context.screen.note(f"{box.id} is off again: inv teardown removes its disk")
