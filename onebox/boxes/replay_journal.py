"""Finish or undo the actions that were under way when a command was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox.boxes.create import adopt
from onebox.boxes.delete import delete, list_leftovers, remove_unused
from onebox.images import snapshot
from onebox.providers.values import Box, Offer, Tags
from onebox.store.journal import Intent

if TYPE_CHECKING:
    from onebox.context import BoxContext


def replay(context: BoxContext) -> None:
    """
    Finish or undo every open intent, and remove builders that were left behind.

    If a create call has created a box, the box is recorded, so that the next stage
    uses it or tears it down. A delete is repeated. The save or removal of an image is
    completed or undone.

    The caller holds the lock, so no other command uses a builder. Every builder is
    removed, even one that `image --keep` has kept.
    """
    never_created = []
    intents = context.store.open_intents()
    for intent in intents:
        if not intent.concerns(context.provider.name):
            continue
        if intent.action == "create":
            if not _replay_create(context, intent):
                never_created.append(intent.box)
        elif intent.action == "delete":
            if not _replay_delete(context, intent):
                continue
        elif intent.action in snapshot.OPERATIONS:
            snapshot.replay(context, intent)
        context.store.close_intent(intent, "replayed")
    if never_created:
        remove_unused(context, never_created)
    context.boxes.invalidate()
    for builder in context.boxes.builders:
        _delete_left(context, builder)
    if intents:
        context.choose_provider()


def _replay_create(context: BoxContext, intent: Intent) -> bool:
    """
    Record the box of an interrupted create call, unless it is a builder.

    Returns:
        Whether the call has created the box or builder.
    """
    created = context.boxes.provider_time(intent.at)
    box = context.boxes.wait_until_listed(intent.box, intent.place, created)
    if box is None or box.state == "gone":
        context.screen.note(
            f"an earlier command was interrupted before it created a {intent.kind}: "
            "nothing to clean up"
        )
        return False
    if box.tags.kind == "box":
        adopt(context, box, temporary=intent.temporary, booted=False)
    return True


def _replay_delete(context: BoxContext, intent: Intent) -> bool:
    """
    Repeat an interrupted delete; return whether nothing of the box is left.

    If the provider had listed the box before the delete began, and does not list it
    now, the box is gone. Even then the delete call is repeated, because other objects
    that belong to the box may be left.
    """
    created = 0.0 if intent.seen else intent.created
    box = context.boxes.wait_until_listed(intent.box, intent.place, created)
    if box is not None and box.state != "gone":
        _delete_left(context, box)
        return True
    context.store.forget_box(intent.box)
    if intent.tags is not None:
        tags = Tags.parse(intent.tags)
        context.provider.delete(_gone_box(intent.box, intent.place, tags))
    left = context.provider.leftovers(intent.box, intent.place)
    if left:
        context.screen.warn(
            f"{intent.box} is gone, but there is still: {list_leftovers(left)}"
        )
    return not left


def _gone_box(box_id: str, place: str, tags: Tags) -> Box:
    """Return a box in state "gone", with only the values that a delete call needs."""
    offer = Offer(
        "",
        "",
        cpus=0,
        memory=0,
        machine_price=None,
        machine_on_demand=None,
        place=place,
    )
    return Box(
        box_id,
        tags,
        state="gone",
        offer=offer,
        image="",
        place=place,
        host="",
        port=22,
        user="",
        host_key="",
        # The creation time is in 1970, so that no provider waits for the box to be
        # listed.
        created=0.0,
        deadline=tags.deadline,
        agent="",
    )


def _delete_left(context: BoxContext, box: Box) -> None:
    if box.id == context.store.record.kept_builder:
        context.screen.note(f"removing {box.id}, the builder that --keep has kept")
    else:
        context.screen.note(f"an earlier command was interrupted: removing {box.id}")
    delete(context, box)
