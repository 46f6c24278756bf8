"""Make a box where there is room for it, and remove it: builders and boxes alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Literal

from .. import __version__, identity, words
from ..errors import (
    NoCapacity,
    OneboxError,
    QuotaExceeded,
    StateError,
    Unclear,
    Unsuitable,
)
from ..providers.base import (
    Arming,
    Box,
    FreeThing,
    Image,
    Provider,
    Request,
    Size,
    Tags,
)
from ..signals import Interrupted
from ..state import config_dir, note_provider, random_id, state_dir
from ..transport import bundle, keys
from . import offers
from .images import saving
from .refusals import Refusals

if TYPE_CHECKING:
    from ..session import Session

# How long a deleted box may take to be gone for good.
GONE_SECONDS = 300.0


def create(
    session: Session,
    *,
    kind: Literal["box", "builder"],
    image: Image | None,
    doing: Callable[[str], None] = lambda text: None,
) -> Box:
    """
    Make a box, trying each candidate in turn; the intent is journaled first.

    A box, other than a builder, is written down before that intent is closed: so
    a crash at any moment leaves one of the two that tells who it was made for.

    Args:
        doing: Shows which candidate is asked for.

    Raises:
        NoCapacity: None of the candidates could be had; each cause is said once.

        QuotaExceeded: The account's own limits forbid all of them.

        UsageError: All of them could cost more than is allowed, or what is wrong
            is wrong for any candidate.
    """
    builder = kind == "builder"
    vm = session.settings.builder if builder else session.settings.size
    refused = Refusals(session.provider)
    for size in (
        offers.builder_sizes(session) if builder else offers.sizes(session, image)
    ):
        if refused.covers(size):
            continue
        try:
            offers.check_price(session, size, vm)
            if not builder:
                offers.confirm(session, size)
            doing(f"asking for {size.type} {size.place}".rstrip())
            box = _create(session, kind, image, size)
        except (NoCapacity, QuotaExceeded, Unsuitable) as error:
            refused.refused.append((size, error))
            continue
        for row in refused.rows():
            session.screen.note(row)
        if not builder:
            offers.obtained(session, size)
        return box
    # What was made for them all: the next command makes it again.
    tidy(session)
    raise refused.error(vm.name, "[image] size" if builder else "--vm")


def remove(session: Session, box: Box) -> None:
    """
    Delete a box and ask until the provider says that nothing of it is left.

    Raises:
        OneboxError: Something is left; it is listed with its price.
    """
    session.forget_door()
    what = {"box": box.id, "provider": session.provider.name, "place": box.place}
    with session.notebook.intent("delete", kind=box.tags.kind, **what):
        remove_from(session.provider, box)


def remove_from(provider: Provider, box: Box) -> None:
    """Delete a box at its provider, and see it gone."""
    provider.delete(box)
    until = time.monotonic() + GONE_SECONDS
    left = provider.leftovers(box.id, box.place)
    while left and time.monotonic() < until:
        time.sleep(max(provider.pace, 0.5))
        left = provider.leftovers(box.id, box.place)
    if left:
        listed = words.some([f"{x.kind} {x.id} ({words.rate(x.price)})" for x in left])
        raise OneboxError(
            f"{box.id} was deleted, but there is still: {listed}",
            next="inv teardown once more, then inv sweep",
        )


def tidy(session: Session, gone: Collection[str] = ()) -> None:
    """
    Remove what costs nothing and no box of this owner's uses; say what stays, and why.

    Args:
        gone: Boxes that are known to be gone, or never to have been made.
    """
    provider, stay = session.provider, []
    try:
        things = provider.free_things(session.owner, gone)
    except OneboxError as error:
        session.screen.note(f"what is free was not looked for: {error.message}")
        return
    for thing in things:
        why = thing.why or remove_free(provider, session.owner, thing)
        if why:
            stay.append(f"{thing.kind} {thing.id}: {why}")
    if stay:
        session.screen.note(f"free of charge, and stays: {words.some(stay)}")


def remove_free(provider: Provider, owner: str, thing: FreeThing) -> str:
    """Remove one free thing; return why it stays, "" if it does not."""
    try:
        provider.remove_free(owner, thing)
    except OneboxError as error:
        return error.message
    return ""


def recover(session: Session) -> None:
    """
    Finish or undo what an earlier command had begun when it was killed.

    A box is written down, with who it was made for: the stage that comes next
    uses it or tears it down. A deletion is done again, an image that was being
    saved is saved. A builder is removed, since nobody builds while we hold the
    lock; also one that --keep had left.

    What a create has left may not show in the provider's lists for some time: it
    is waited for.
    """
    never_made = []
    for intent in session.notebook.open_intents():
        if intent.get("provider", session.provider.name) != session.provider.name:
            # Only where it was made can it be looked for.
            continue
        if intent["do"] in ("create", "delete"):
            box = session.settled(
                str(intent["box"]),
                str(intent.get("place", "")),
                float(intent["at"]) if intent["do"] == "create" else 0.0,
            )
            if box is None or box.state == "gone":
                if intent["do"] == "create":
                    never_made.append(str(intent["box"]))
                    session.screen.note(
                        f"an earlier command was interrupted before there was a "
                        f"{intent.get('kind', 'box')}: nothing to clean up"
                    )
            elif intent["do"] == "delete":
                _remove_left(session, box)
            elif box.tags.kind == "box":
                adopt(session, box, ours_to_end=bool(intent.get("ours_to_end")))
        elif intent["do"] in saving.INTENTS:
            saving.finish(session, intent)
        session.notebook.close_intent(intent, "seen to")
    if never_made:
        tidy(session, never_made)
    session.forget_look()
    for builder in session.builders:
        _remove_left(session, builder)


def _remove_left(session: Session, box: Box) -> None:
    if box.id == session.notebook.record.kept_builder:
        session.screen.note(f"removing {box.id}, the builder that --keep has left up")
    else:
        session.screen.note(f"an earlier command was interrupted: removing {box.id}")
    remove(session, box)


def adopt(session: Session, box: Box, *, ours_to_end: bool = False) -> None:
    """
    Write down which box this is, unless that is known.

    Args:
        ours_to_end: The box was made by a chain for itself, which owes its end.
    """
    if session.notebook.record.box == box.id:
        session.remember(deadline=box.deadline)
        return
    session.notebook.forget()
    session.remember(
        box=box.id,
        provider=session.provider.name,
        place=box.place,
        vm=box.size.name,
        price=box.size.hourly,
        on_demand=box.size.hourly_on_demand,
        created=box.created,
        deadline=box.deadline,
        image=box.image,
        ours_to_end=ours_to_end,
    )


def _create(
    session: Session,
    kind: Literal["box", "builder"],
    image: Image | None,
    size: Size,
) -> Box:
    limits = session.settings.limits
    builder = kind == "builder"
    vm = session.settings.builder if builder else session.settings.size
    until = offers.deadline(session)
    ours = config_dir(session.environ)
    key = keys.identity(ours)
    request = Request(
        box=f"ob-{random_id()}",
        tags=Tags(
            owner=session.owner,
            project=session.project,
            name=session.settings.name,
            expires=until,
            version=__version__,
            kind=kind,
        ),
        size=size,
        image=image,
        user_key=keys.public_half(key),
        host_key=keys.new_host_key(ours),
        arming=Arming(
            deadline=until,
            setup_grace=limits.setup_minutes * 60,
            idle_grace=limits.idle_minutes * 60,
            agent=bundle.bundle(),
            seed=bundle.seed(),
        ),
        base=session.settings.image.use or session.settings.image.base,
        disk=vm.disk,
    )
    note_provider(state_dir(session.environ), session.provider.name)
    if session.settings.source("project") == "default":
        identity.note(session.root, session.project, state_dir(session.environ))
    own = kind == "box" and session.line.makes_for_itself
    what = {
        "box": request.box,
        "provider": session.provider.name,
        "kind": kind,
        "size": size.type,
        "place": size.place,
        "ours_to_end": own,
    }
    try:
        with session.notebook.intent("create", **what) as outcome:
            try:
                box = session.provider.create(request)
            except OneboxError as error:
                # A clear refusal: nothing was made, nothing need be looked for.
                outcome["undone"] = not isinstance(error, Unclear)
                raise
            if kind == "box":
                session.made(box)
                adopt(session, box, ours_to_end=own)
            return box
    except (Interrupted, StateError):
        # The second key press would leave it; the first one cleans up. So does
        # a disk too full to remember it.
        made = session.settled(request.box, size.place, time.time())
        if made is not None:
            session.provider.delete(made)
        raise
