"""Delete a box, wait until nothing of it is left, and remove unused free objects."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import OneboxError
from onebox.providers.base import Provider
from onebox.providers.values import Box, FreeObject, Leftover

if TYPE_CHECKING:
    from onebox.context import BoxContext

# The provider may still list parts of a deleted box for this many seconds.
GONE_SECONDS = 300.0


def delete(context: BoxContext, box: Box) -> None:
    """
    Delete a box and wait until nothing billable of it is left.

    The record of the box is emptied as soon as the delete call returns, so that later
    commands do not look for the box, even if this command is interrupted.

    Raises:
        OneboxError: Parts of the box are left; the message has their prices.
    """
    with context.store.intent(
        "delete",
        box=box.id,
        kind=box.tags.kind,
        provider=context.provider.name,
        place=box.place,
        created=box.created,
        seen=context.boxes.was_seen(box.id),
        tags=asdict(box.tags),
    ):
        # This also ends the sessions of other commands, which find the intent then.
        context.forget_connection()
        context.provider.delete(box)
        context.store.forget_box(box.id)
        context.alias.remove(box.id)
        wait_until_gone(context.provider, box.id, box.place)


def wait_until_gone(provider: Provider, box_id: str, place: str) -> None:
    """
    Wait until nothing billable is left of a deleted box.

    Raises:
        OneboxError: Parts of the box are left; the message has their prices.
    """
    until = time.monotonic() + GONE_SECONDS
    left = provider.leftovers(box_id, place)
    while left and time.monotonic() < until:
        time.sleep(max(provider.poll_interval, 0.5))
        left = provider.leftovers(box_id, place)
    if left:
        raise OneboxError(
            f"{box_id} was deleted, but there is still: {list_leftovers(left)}",
            next="inv teardown again, then inv cleanup",
        )


def list_leftovers(left: Sequence[Leftover]) -> str:
    """Return a text with the kind, id and price of the first few leftovers."""
    return formatting.first_names(
        [f"{part.kind} {part.id} ({formatting.rate(part.hourly)})" for part in left]
    )


def remove_unused(context: BoxContext, gone: Collection[str] = ()) -> None:
    """
    Remove the free objects that no box of this owner uses; print those that stay.

    Args:
        gone: The ids of boxes that are known not to exist.
    """
    try:
        free_objects = context.provider.free_objects(context.owner, gone)
    except OneboxError as error:
        context.screen.note(f"unused free objects were not removed: {error.message}")
        return
    kept = []
    for item in free_objects:
        why = item.why or remove_free(context.provider, context.owner, item)
        if why:
            kept.append(f"{item.kind} {item.id}: {why}")
    if kept:
        context.screen.note(f"kept, free of charge: {formatting.first_names(kept)}")


def remove_free(provider: Provider, owner: str, item: FreeObject) -> str:
    """
    Remove one free object.

    Returns:
        "" if the object is removed, else the reason why it cannot be removed.
    """
    try:
        provider.remove_free(owner, item)
    except OneboxError as error:
        return error.message
    return ""
