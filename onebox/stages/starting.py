"""Start a box again that has stopped, for as long as it is needed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..providers.base import Box
from . import arrival, launch

if TYPE_CHECKING:
    from ..session import Session

# A box that is started again only for its outputs needs no more than this.
RESCUE_SECONDS = 1800.0


def start(session: Session, box: Box, seconds: float = RESCUE_SECONDS) -> Box:
    """Start a stopped box again, for a limited time, and wait until it is up."""
    until = time.time() + seconds
    with session.notebook.intent("start", box=box.id):
        box = session.provider.start(box, until)
    session.made_again(box)
    box = arrival.wait(
        session, box, session.settings.limits.boot_minutes * 60, lambda text: None
    )
    session.made_again(box)
    launch.adopt(session, box)
    return box
