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
    from onebox.context import Session

GB = 1 << 30


def images(session: Session) -> list[Image]:
    """Return this owner's images, newest first; the provider is asked once."""
    if session.images is None:
        session.images = list(session.provider.images(session.owner))
    return session.images


def show(session: Session) -> None:
    """Print what there is, what it costs and which boxes were made from it."""
    mine = images(session)
    if not mine:
        session.screen.print("no images yet")
        return
    now, users = time.time(), _users(session)
    rows = [
        (
            image.name,
            image.id,
            image.tags.project,
            size(image),
            formatting.seconds(max(now - image.created, 0)),
            price(session, image),
            "recipe" if image.recipe else "by hand",
            formatting.some(users.get(image.id, [])) or "-",
        )
        for image in mine
    ]
    head = ("name", "id", "project", "size", "age", "a month", "from", "used by")
    session.screen.table(head, rows)


def price(session: Session, image: Image) -> str:
    """Write what an image costs a month; a bound is labelled as one."""
    rate = session.provider.image_rate
    cost = formatting.money(None if rate is None else rate * image.size / GB)
    return f"at most {cost}" if image.at_most and rate else cost


def size(image: Image) -> str:
    """Write how much of an image is stored; a bound is labelled as one."""
    text = formatting.size(image.size)
    return f"at most {text}" if image.at_most else text


def prune(
    session: Session,
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
    session.lock()
    mine = list(session.provider.images(session.owner))
    users = _users(session)
    keep = {current.id} if current else set()
    old = _named(mine, name) if name else [*_outdated(session, mine), *expendable(mine)]
    found = [
        image
        for image in dict.fromkeys(old)
        if image.id not in users and image.id not in keep
        if everywhere or image.tags.project == session.project
    ]
    if not found:
        session.screen.print("there is no image to remove")
        return
    for image in found:
        session.screen.print(
            f"{image.name}  {image.id}  {size(image)}  {price(session, image)} a month"
        )
    count = formatting.count(len(found), "image")
    if not yes and not session.screen.ask(
        f"Remove {count} for good? Type yes to do so:", "yes"
    ):
        raise UsageError("no image was removed", next="inv image --prune --yes")
    for image in found:
        snapshot.remove(session, image)
    session.screen.line("image", "done", "removed", count)


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


def replace_older(session: Session, box: Box) -> None:
    """
    Remove the older images of the recipe that a box, which answers, was made from.

    What another box was made from stays. A failure is told, and does no harm: the
    next box made from the image tries again.
    """
    mine = images(session)
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
        users = _users(session)
        gone = [one for one in older if one.id not in users]
        for one in gone:
            snapshot.remove(session, one)
    except OneboxError as error:
        session.screen.warn(f"an older image is left: {error.message}")
        return
    if gone:
        ids = formatting.some([one.id for one in gone])
        session.screen.note(f"{ids}: removed, {image.id} has taken its place")


def _outdated(session: Session, mine: Sequence[Image]) -> list[Image]:
    """Return the images of this recipe, as it is today or was before."""
    arch, name = recipe.arch(session), session.settings.name
    return [
        image
        for image in mine
        if image.recipe and image.arch == arch
        if (image.tags.project, image.tags.name) == (session.project, name)
    ]


def _named(mine: Sequence[Image], name: str) -> list[Image]:
    found = [image for image in mine if name in (image.name, image.id)]
    if not found:
        raise UsageError(f"there is no image {name}", next="inv image --list")
    return found


def _users(session: Session) -> dict[str, list[str]]:
    """Return which boxes were made from each image: its id to their titles."""
    users: dict[str, list[str]] = {}
    for box in session.provider.find(session.owner, everywhere=True):
        if box.image:
            title = f"{box.tags.project}/{box.tags.name}"
            users.setdefault(box.image, []).append(title)
    return users
