"""Start a stopped box again, for as long as it is needed; power it off after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onebox.boxes import bring_up, lifecycle
from onebox.errors import OneboxError
from onebox.providers.base import Box

if TYPE_CHECKING:
    from onebox.context import Session

# A box that is started again only for its outputs needs no more than this.
RESCUE_SECONDS = 1800.0


def start(session: Session, box: Box, seconds: float = RESCUE_SECONDS) -> Box:
    """Start a stopped box again, for a limited time, and wait until it is up."""
    until = session.now() + seconds
    if session.notebook.record.box == box.id:
        session.remember(arrived=False)
    with session.notebook.intent("start", box=box.id):
        box = session.provider.start(box, until)
    session.made_again(box)
    box = bring_up.wait(
        session, box, session.settings.limits.boot_minutes * 60, lambda text: None
    )
    box = bring_up.check_deadline(session, box)
    session.made_again(box)
    lifecycle.adopt(session, box)
    return box


@contextmanager
def off_again(session: Session, box: Box) -> Iterator[None]:
    """Have a box that was off before off again, if what is done with it fails."""
    try:
        yield
    except BaseException:
        if box.state == "stopped":
            rest(session, box)
        raise


def rest(session: Session, box: Box) -> None:
    """Power a box off that was started only to be read, and say so."""
    session.hang_up()
    try:
        now = session.provider.get(box.id, box.place)
        if now is None or now.state not in ("starting", "running"):
            return
        session.provider.stop(now)
    except OneboxError as error:
        session.screen.warn(f"{box.id} may still be on: {error.message}")
        return
    finally:
        session.forget_look()
    session.screen.note(f"{box.id} is off again: inv teardown removes its disk")
