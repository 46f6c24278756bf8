"""Find everything of this owner, in every project, and remove what has expired."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import providers, words
from ..errors import OneboxError
from ..providers.base import Box, Provider
from . import launch

if TYPE_CHECKING:
    from ..session import Session

# A box is removed only this long after its deadline: by then it has had every
# chance to power itself off, and its owner to fetch.
AFTER_DEADLINE_SECONDS = 3600.0


def perform(session: Session, *, yes: bool) -> None:
    """
    Print what there is, with age, cost and verdict; with *yes*, remove the expired.

    What is not expired is `teardown`'s to remove, in its own project.

    Raises:
        OneboxError: Something expired is left.
    """
    now = time.time()
    rows, expired = [], []
    for name in _used(session):
        provider = session.provider_called(name)
        for box in provider.find(session.owner):
            over = now > box.deadline + AFTER_DEADLINE_SECONDS
            hours = max(now - box.created, 0) / 3600
            cost = None if box.size.price is None else box.size.price * hours
            verdict = "expired" if over else f"off at {words.clock(box.deadline, now)}"
            if over:
                expired.append((provider, box))
            rows.append(
                (
                    name,
                    f"{box.tags.project}/{box.tags.name}",
                    box.id,
                    box.state,
                    words.seconds(max(now - box.created, 0)),
                    words.money(cost),
                    verdict,
                )
            )
    if not rows:
        session.screen.print("nothing of yours is there")
        return
    head = ("provider", "box of", "id", "state", "age", "cost so far", "verdict")
    session.screen.table(head, rows)
    if not expired:
        session.screen.say("nothing has expired; inv teardown removes a live box")
    elif not yes:
        boxes = words.count(len(expired), "box", "boxes")
        session.screen.say(f"{boxes} expired; outputs on them go too")
        session.screen.say("  next: inv sweep --yes removes them")
    else:
        _remove(session, expired)


def _used(session: Session) -> list[str]:
    # `local` costs nothing to ask; of the clouds, the one that is configured.
    here = dict.fromkeys(["local", session.settings.provider])
    return [name for name in here if name in providers.PROVIDERS]


def _remove(session: Session, expired: list[tuple[Provider, Box]]) -> None:
    failed = []
    for provider, box in expired:
        try:
            launch.remove_from(provider, box)
        except OneboxError as error:
            failed.append(f"{box.id}: {error.message}")
            continue
        session.screen.line("sweep", "done", "removed", box.id)
    if failed:
        raise OneboxError(
            f"not removed: {words.some(failed)}", next="inv sweep --yes once more"
        )
