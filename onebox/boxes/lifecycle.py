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
    BootConfig,
    Box,
    FreeThing,
    Image,
    Leftover,
    Offer,
    Provider,
    Request,
    Tags,
)
from onebox.remote import agent_bundle, keys
from onebox.signals import Interrupted
from onebox.store import project_id
from onebox.store.box_store import config_dir, note_provider, random_id, state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext

# How long a deleted box may take to be gone for good.
GONE_SECONDS = 300.0


def create(
    context: BoxContext,
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
    vm = context.settings.builder if builder else context.settings.size
    refused = Refusals(context.provider)
    for size in (
        offers.find_for_builder(context) if builder else offers.find(context, image)
    ):
        if refused.covers(size):
            continue
        try:
            offers.check_price(context, size, vm)
            if not builder:
                offers.confirm(context, size)
            doing(f"asking for {size.type} {size.place}".rstrip())
            box = _create(context, kind, image, size)
        except (NoCapacity, QuotaExceeded, Unsuitable) as error:
            refused.refused.append((size, error))
            continue
        for row in refused.rows():
            context.screen.note(row)
        if not builder:
            offers.obtained(context, size)
        return box
    # What was made for them all: the next command makes it again.
    tidy(context)
    raise refused.error(vm.name, "[image] size" if builder else "--vm")


def remove(context: BoxContext, box: Box) -> None:
    """
    Delete a box and ask until the provider says that nothing of it is left.

    It is forgotten here as soon as it is gone, before anything else of it is asked
    for: nothing looks for it again, whatever ends this command.

    Raises:
        OneboxError: Something is left; it is listed with its price.
    """
    context.forget_connection()
    what = {
        "box": box.id,
        "kind": box.tags.kind,
        "provider": context.provider.name,
        "place": box.place,
        "created": box.created,
        "seen": context.seen(box.id),
        "tags": asdict(box.tags),
    }
    with context.store.intent("delete", **what):
        context.provider.delete(box)
        context.box_ended(box.id)
        see_gone(context.provider, box.id, box.place)


def see_gone(provider: Provider, box: str, place: str) -> None:
    """
    Ask until the provider says that nothing is left of a box that was deleted.

    Raises:
        OneboxError: Something is left; it is listed with its price.
    """
    until = time.monotonic() + GONE_SECONDS
    left = provider.leftovers(box, place)
    while left and time.monotonic() < until:
        time.sleep(max(provider.poll_interval, 0.5))
        left = provider.leftovers(box, place)
    if left:
        raise OneboxError(
            f"{box} was deleted, but there is still: {_listed(left)}",
            next="inv teardown once more, then inv sweep",
        )


def tidy(context: BoxContext, gone: Collection[str] = ()) -> None:
    """
    Remove what costs nothing and no box of this owner's uses; say what stays, and why.

    Args:
        gone: Boxes that are known to be gone, or never to have been made.
    """
    provider, stay = context.provider, []
    try:
        things = provider.free_things(context.owner, gone)
    except OneboxError as error:
        context.screen.note(f"what is free was not looked for: {error.message}")
        return
    for thing in things:
        why = thing.why or remove_free(provider, context.owner, thing)
        if why:
            stay.append(f"{thing.kind} {thing.id}: {why}")
    if stay:
        context.screen.note(f"free of charge, and stays: {formatting.some(stay)}")


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


def recover(context: BoxContext) -> None:
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
    begun = context.store.open_intents()
    for intent in begun:
        if intent.get("provider", context.provider.name) != context.provider.name:
            # Only where it was made can it be looked for.
            continue
        if intent["do"] == "create":
            if not _recover_create(context, intent):
                never_made.append(str(intent["box"]))
        elif intent["do"] == "delete":
            if not _recover_delete(context, intent):
                continue
        elif intent["do"] in snapshot.INTENTS:
            snapshot.finish(context, intent)
        context.store.close_intent(intent, "seen to")
    if never_made:
        tidy(context, never_made)
    context.forget_look()
    for builder in context.builders:
        _remove_left(context, builder)
    if begun:
        context.choose_provider()


def _recover_create(context: BoxContext, intent: Mapping[str, Any]) -> bool:
    """Adopt the box that an interrupted create has made; tell whether it has."""
    place = str(intent.get("place", ""))
    box = context.settled(str(intent["box"]), place, context.there(float(intent["at"])))
    if box is None or box.state == "gone":
        context.screen.note(
            f"an earlier command was interrupted before there was a "
            f"{intent.get('kind', 'box')}: nothing to clean up"
        )
        return False
    if box.tags.kind == "box":
        own = bool(intent.get("ours_to_end"))
        adopt(context, box, ours_to_end=own, arrived=False)
    return True


def _recover_delete(context: BoxContext, intent: Mapping[str, Any]) -> bool:
    """
    Remove the box whose removal was interrupted; tell whether nothing is left of it.

    One that had been seen before it was to go does not lag: if it is missing, it is
    gone. What else was made for it is removed then.
    """
    box_id, place = str(intent["box"]), str(intent.get("place", ""))
    created = 0.0 if intent.get("seen") else float(intent.get("created", 0.0))
    box = context.settled(box_id, place, created)
    if box is not None and box.state != "gone":
        _remove_left(context, box)
        return True
    context.box_ended(box_id)
    if "tags" in intent:
        context.provider.delete(_gone(box_id, place, Tags(**intent["tags"])))
    left = context.provider.leftovers(box_id, place)
    if left:
        context.screen.warn(f"of {box_id}, which is gone, there is: {_listed(left)}")
    return not left


def _gone(box: str, place: str, tags: Tags) -> Box:
    """Return a box that is gone, as far as its removal has to know it."""
    size = Offer("", "", cpus=0, memory=0, price=None, on_demand=None, place=place)
    return Box(
        box,
        tags,
        state="gone",
        offer=size,
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


def _remove_left(context: BoxContext, box: Box) -> None:
    if box.id == context.store.record.kept_builder:
        context.screen.note(f"removing {box.id}, the builder that --keep has left up")
    else:
        context.screen.note(f"an earlier command was interrupted: removing {box.id}")
    remove(context, box)


def adopt(
    context: BoxContext, box: Box, *, ours_to_end: bool = False, arrived: bool = True
) -> None:
    """
    Write down which box this is, unless that is known.

    Args:
        ours_to_end: The box was made by a chain for itself, which owes its end.

        arrived: It has come up, as far as is known.
    """
    if context.store.record.box == box.id:
        context.remember(deadline=box.deadline)
        return
    context.store.forget()
    context.remember(
        box=box.id,
        provider=context.provider.name,
        place=box.place,
        vm=box.offer.name,
        price=box.offer.hourly,
        on_demand=box.offer.hourly_on_demand,
        created=box.created,
        deadline=box.deadline,
        image=box.image,
        ours_to_end=ours_to_end,
        arrived=arrived,
    )


def _create(
    context: BoxContext,
    kind: Literal["box", "builder"],
    image: Image | None,
    size: Offer,
) -> Box:
    limits = context.settings.limits
    builder = kind == "builder"
    vm = context.settings.builder if builder else context.settings.size
    until = offers.deadline(context)
    ours = config_dir(context.environ)
    key = keys.identity(ours)
    request = Request(
        box=f"ob-{random_id()}",
        tags=Tags(
            owner=context.owner,
            project=context.project,
            name=context.settings.name,
            expires=until,
            version=__version__,
            kind=kind,
        ),
        offer=size,
        image=image,
        user_key=keys.public_half(key),
        host_key=keys.new_host_key(ours),
        arming=BootConfig(
            deadline=until,
            setup_grace=limits.setup_minutes * 60,
            idle_grace=limits.idle_minutes * 60,
            agent=agent_bundle.bundle(),
            seed=agent_bundle.seed(),
        ),
        base=context.settings.image.use or context.settings.image.base,
        disk=vm.disk,
    )
    note_provider(state_dir(context.environ), context.provider.name)
    if context.settings.source("project") == "default":
        project_id.note(context.root, context.project, state_dir(context.environ))
    own = kind == "box" and context.line.makes_for_itself
    what = {
        "box": request.box,
        "provider": context.provider.name,
        "kind": kind,
        "size": size.type,
        "place": size.place,
        "ours_to_end": own,
    }
    try:
        with context.store.intent("create", **what) as outcome:
            try:
                box = context.provider.create(request)
                if kind == "box":
                    context.made(box)
                    adopt(context, box, ours_to_end=own, arrived=False)
                return box
            except Interrupted:
                # The second key press would leave it; the first one cleans up.
                _undo(context, request.box, size.place)
                outcome["undone"] = True
                raise
            except OneboxError as error:
                # A clear refusal: nothing was made, nothing need be looked for.
                outcome["undone"] = not isinstance(error, (StateError, Unclear))
                raise
    except StateError:
        # The disk is too full to remember the box.
        _undo(context, request.box, size.place)
        raise


def _undo(context: BoxContext, box: str, place: str) -> None:
    """Remove what a create has made, also if it does not show yet."""
    made = context.settled(box, place, context.now())
    if made is not None:
        context.provider.delete(made)
    context.box_ended(box)
