"""Start a stopped box again, for as long as it is needed; power it off after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onebox.boxes import bring_up, lifecycle
from onebox.errors import OneboxError
from onebox.providers.base import Box

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A box that is started again only for its outputs needs no more than this.
RESCUE_SECONDS = 1800.0


def start(context: BoxContext, box: Box, seconds: float = RESCUE_SECONDS) -> Box:
    """Start a stopped box again, for a limited time, and wait until it is up."""
    until = context.now() + seconds
    if context.store.record.box == box.id:
        context.remember(arrived=False)
    with context.store.intent("start", box=box.id):
        box = context.provider.start(box, until)
    context.made_again(box)
    box = bring_up.wait(
        context, box, context.settings.limits.boot_minutes * 60, lambda text: None
    )
    box = bring_up.check_deadline(context, box)
    context.made_again(box)
    lifecycle.adopt(context, box)
    return box


@contextmanager
def off_again(context: BoxContext, box: Box) -> Iterator[None]:
    """Have a box that was off before off again, if what is done with it fails."""
    try:
        yield
    except BaseException:
        if box.state == "stopped":
            rest(context, box)
        raise


def rest(context: BoxContext, box: Box) -> None:
    """Power a box off that was started only to be read, and say so."""
    context.close()
    try:
        now = context.provider.get(box.id, box.place)
        if now is None or now.state not in ("starting", "running"):
            return
        context.provider.stop(now)
    except OneboxError as error:
        context.screen.warn(f"{box.id} may still be on: {error.message}")
        return
    finally:
        context.forget_look()
    context.screen.note(f"{box.id} is off again: inv teardown removes its disk")
