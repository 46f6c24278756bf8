"""The images there are: list them, remove the ones that nothing asks for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import OneboxError, UsageError
from onebox.images import recipe, snapshot
from onebox.providers.base import Box, Image

if TYPE_CHECKING:
    from onebox.context import BoxContext

GB = 1 << 30


def images(context: BoxContext) -> list[Image]:
    """Return this owner's images, newest first; the provider is asked once."""
    if context.images is None:
        context.images = list(context.provider.images(context.owner))
    return context.images


def show(context: BoxContext) -> None:
    """Print what there is, what it costs and which boxes were made from it."""
    mine = images(context)
    if not mine:
        context.screen.print("no images yet")
        return
    now, users = time.time(), _users(context)
    rows = [
        (
            image.name,
            image.id,
            image.tags.project,
            size(image),
            formatting.seconds(max(now - image.created, 0)),
            price(context, image),
            "recipe" if image.recipe else "by hand",
            formatting.some(users.get(image.id, [])) or "-",
        )
        for image in mine
    ]
    head = ("name", "id", "project", "size", "age", "a month", "from", "used by")
    context.screen.table(head, rows)


def price(context: BoxContext, image: Image) -> str:
    """Write what an image costs a month; a bound is labelled as one."""
    rate = context.provider.image_rate
    cost = formatting.money(None if rate is None else rate * image.stored / GB)
    return f"at most {cost}" if image.at_most and rate else cost


def size(image: Image) -> str:
    """Write how much of an image is stored; a bound is labelled as one."""
    text = formatting.byte_count(image.stored)
    return f"at most {text}" if image.at_most else text


def prune(
    context: BoxContext,
    name: str,
    *,
    current: Image | None,
    everywhere: bool,
    yes: bool,
) -> None:
    """
    Remove the images that nothing asks for any more, after a question.

    Args:
        name: Remove the images of this name (or id) and no others, also those
            that were saved by hand.

        current: What onebox.toml asks for, which stays.

        everywhere: In every project of this owner.

    Raises:
        UsageError: The answer was no, or nobody can be asked.
    """
    context.lock()
    mine = list(context.provider.images(context.owner))
    users = _users(context)
    keep = {current.id} if current else set()
    old = _named(mine, name) if name else [*_outdated(context, mine), *expendable(mine)]
    found = [
        image
        for image in dict.fromkeys(old)
        if image.id not in users and image.id not in keep
        if everywhere or image.tags.project == context.project
    ]
    if not found:
        context.screen.print("there is no image to remove")
        return
    for image in found:
        context.screen.print(
            f"{image.name}  {image.id}  {size(image)}  {price(context, image)} a month"
        )
    count = formatting.count(len(found), "image")
    if not yes and not context.screen.ask(
        f"Remove {count} for good? Type yes to do so:", "yes"
    ):
        raise UsageError("no image was removed", next="inv image --prune --yes")
    for image in found:
        snapshot.remove(context, image)
    context.screen.line("image", "done", "removed", count)


def expendable(mine: Sequence[Image]) -> list[Image]:
    """
    Return the images that a newer one stands in for.

    Of a recipe's images the newest of each architecture stays; so does, of those
    saved by hand, the newest of each name: nobody could build that one again.
    """
    seen, found = set(), []
    for image in sorted(mine, key=lambda image: image.created, reverse=True):
        tags = image.tags
        what = "" if image.recipe else image.name
        which = (tags.project, tags.name, image.arch, bool(image.recipe), what)
        if which in seen:
            found.append(image)
        seen.add(which)
    return found


def replace_older(context: BoxContext, box: Box) -> None:
    """
    Remove the older images of the recipe that a box, which answers, was made from.

    What another box was made from stays. A failure is told, and does no harm: the
    next box made from the image tries again.
    """
    mine = images(context)
    image = next((one for one in mine if one.id == box.image), None)
    if image is None or not image.recipe:
        return
    tags = image.tags
    older = [
        one
        for one in mine
        if one.recipe and one.created < image.created
        if (one.arch, one.tags.project, one.tags.name)
        == (image.arch, tags.project, tags.name)
    ]
    if not older:
        return
    try:
        users = _users(context)
        gone = [one for one in older if one.id not in users]
        for one in gone:
            snapshot.remove(context, one)
    except OneboxError as error:
        context.screen.warn(f"an older image is left: {error.message}")
        return
    if gone:
        ids = formatting.some([one.id for one in gone])
        context.screen.note(f"{ids}: removed, {image.id} has taken its place")


def _outdated(context: BoxContext, mine: Sequence[Image]) -> list[Image]:
    """Return the images of this recipe, as it is today or was before."""
    arch, name = recipe.arch(context), context.settings.name
    return [
        image
        for image in mine
        if image.recipe and image.arch == arch
        if (image.tags.project, image.tags.name) == (context.project, name)
    ]


def _named(mine: Sequence[Image], name: str) -> list[Image]:
    found = [image for image in mine if name in (image.name, image.id)]
    if not found:
        raise UsageError(f"there is no image {name}", next="inv image --list")
    return found


def _users(context: BoxContext) -> dict[str, list[str]]:
    """Return which boxes were made from each image: its id to their titles."""
    users: dict[str, list[str]] = {}
    for box in context.provider.find(context.owner, everywhere=True):
        if box.image:
            title = f"{box.tags.project}/{box.tags.name}"
            users.setdefault(box.image, []).append(title)
    return users
