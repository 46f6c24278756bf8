"""Make a box where there is room for it, and remove it: builders and boxes alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from onebox import __version__, formatting
from onebox.boxes import offers
from onebox.boxes.refused_offers import Refusals
from onebox.errors import (
    NoCapacity,
    OneboxError,
    QuotaExceeded,
    StateError,
    Unclear,
    Unsuitable,
)
from onebox.images import snapshot
from onebox.providers.base import (
    Arming,
    Box,
    FreeThing,
    Image,
    Leftover,
    Provider,
    Request,
    Size,
    Tags,
)
from onebox.remote import agent_bundle, keys
from onebox.signals import Interrupted
from onebox.store import project_id
from onebox.store.box_store import config_dir, note_provider, random_id, state_dir

if TYPE_CHECKING:
    from onebox.context import Session

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

    It is forgotten here as soon as it is gone, before anything else of it is asked
    for: nothing looks for it again, whatever ends this command.

    Raises:
        OneboxError: Something is left; it is listed with its price.
    """
    session.forget_door()
    what = {
        "box": box.id,
        "kind": box.tags.kind,
        "provider": session.provider.name,
        "place": box.place,
        "created": box.created,
        "seen": session.seen(box.id),
        "tags": asdict(box.tags),
    }
    with session.notebook.intent("delete", **what):
        session.provider.delete(box)
        session.box_ended(box.id)
        see_gone(session.provider, box.id, box.place)


def see_gone(provider: Provider, box: str, place: str) -> None:
    """
    Ask until the provider says that nothing is left of a box that was deleted.

    Raises:
        OneboxError: Something is left; it is listed with its price.
    """
    until = time.monotonic() + GONE_SECONDS
    left = provider.leftovers(box, place)
    while left and time.monotonic() < until:
        time.sleep(max(provider.pace, 0.5))
        left = provider.leftovers(box, place)
    if left:
        raise OneboxError(
            f"{box} was deleted, but there is still: {_listed(left)}",
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
        session.screen.note(f"free of charge, and stays: {formatting.some(stay)}")


def remove_free(provider: Provider, owner: str, thing: FreeThing) -> str:
    """Remove one free thing; return why it stays, "" if it does not."""
    try:
        provider.remove_free(owner, thing)
    except OneboxError as error:
        return error.message
    return ""


def _listed(left: Sequence[Leftover]) -> str:
    return formatting.some(
        [f"{one.kind} {one.id} ({formatting.rate(one.price)})" for one in left]
    )


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
    begun = session.notebook.open_intents()
    for intent in begun:
        if intent.get("provider", session.provider.name) != session.provider.name:
            # Only where it was made can it be looked for.
            continue
        if intent["do"] == "create":
            if not _recover_create(session, intent):
                never_made.append(str(intent["box"]))
        elif intent["do"] == "delete":
            if not _recover_delete(session, intent):
                continue
        elif intent["do"] in snapshot.INTENTS:
            snapshot.finish(session, intent)
        session.notebook.close_intent(intent, "seen to")
    if never_made:
        tidy(session, never_made)
    session.forget_look()
    for builder in session.builders:
        _remove_left(session, builder)
    if begun:
        session.choose_provider()


def _recover_create(session: Session, intent: Mapping[str, Any]) -> bool:
    """Adopt the box that an interrupted create has made; tell whether it has."""
    place = str(intent.get("place", ""))
    box = session.settled(str(intent["box"]), place, session.there(float(intent["at"])))
    if box is None or box.state == "gone":
        session.screen.note(
            f"an earlier command was interrupted before there was a "
            f"{intent.get('kind', 'box')}: nothing to clean up"
        )
        return False
    if box.tags.kind == "box":
        own = bool(intent.get("ours_to_end"))
        adopt(session, box, ours_to_end=own, arrived=False)
    return True


def _recover_delete(session: Session, intent: Mapping[str, Any]) -> bool:
    """
    Remove the box whose removal was interrupted; tell whether nothing is left of it.

    One that had been seen before it was to go does not lag: if it is missing, it is
    gone. What else was made for it is removed then.
    """
    box_id, place = str(intent["box"]), str(intent.get("place", ""))
    created = 0.0 if intent.get("seen") else float(intent.get("created", 0.0))
    box = session.settled(box_id, place, created)
    if box is not None and box.state != "gone":
        _remove_left(session, box)
        return True
    session.box_ended(box_id)
    if "tags" in intent:
        session.provider.delete(_gone(box_id, place, Tags(**intent["tags"])))
    left = session.provider.leftovers(box_id, place)
    if left:
        session.screen.warn(f"of {box_id}, which is gone, there is: {_listed(left)}")
    return not left


def _gone(box: str, place: str, tags: Tags) -> Box:
    """Return a box that is gone, as far as its removal has to know it."""
    size = Size("", "", cpus=0, memory=0, price=None, on_demand=None, place=place)
    return Box(
        box,
        tags,
        state="gone",
        size=size,
        image="",
        place=place,
        host="",
        port=22,
        user="",
        host_key="",
        # Long enough ago to be no longer waited for.
        created=0.0,
        deadline=tags.expires,
        agent="",
    )


def _remove_left(session: Session, box: Box) -> None:
    if box.id == session.notebook.record.kept_builder:
        session.screen.note(f"removing {box.id}, the builder that --keep has left up")
    else:
        session.screen.note(f"an earlier command was interrupted: removing {box.id}")
    remove(session, box)


def adopt(
    session: Session, box: Box, *, ours_to_end: bool = False, arrived: bool = True
) -> None:
    """
    Write down which box this is, unless that is known.

    Args:
        ours_to_end: The box was made by a chain for itself, which owes its end.

        arrived: It has come up, as far as is known.
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
        arrived=arrived,
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
            agent=agent_bundle.bundle(),
            seed=agent_bundle.seed(),
        ),
        base=session.settings.image.use or session.settings.image.base,
        disk=vm.disk,
    )
    note_provider(state_dir(session.environ), session.provider.name)
    if session.settings.source("project") == "default":
        project_id.note(session.root, session.project, state_dir(session.environ))
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
                if kind == "box":
                    session.made(box)
                    adopt(session, box, ours_to_end=own, arrived=False)
                return box
            except Interrupted:
                # The second key press would leave it; the first one cleans up.
                _undo(session, request.box, size.place)
                outcome["undone"] = True
                raise
            except OneboxError as error:
                # A clear refusal: nothing was made, nothing need be looked for.
                outcome["undone"] = not isinstance(error, (StateError, Unclear))
                raise
    except StateError:
        # The disk is too full to remember the box.
        _undo(session, request.box, size.place)
        raise


def _undo(session: Session, box: str, place: str) -> None:
    """Remove what a create has made, also if it does not show yet."""
    made = session.settled(box, place, session.now())
    if made is not None:
        session.provider.delete(made)
    session.box_ended(box)
