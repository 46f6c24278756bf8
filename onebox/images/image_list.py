"""List the owner's images, and remove those that newer ones replace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import OneboxError, UsageError
from onebox.images import recipe, snapshot
from onebox.providers.values import Box, Image
from onebox.settings.units import GB
from onebox.store import image_names
from onebox.store.paths import state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext


def images(context: BoxContext) -> list[Image]:
    """Return this owner's images, newest first; the provider's answer is cached."""
    if context.cache.images is None:
        found = list(context.provider.images(context.owner))
        context.cache.images = found
        for text in context.provider.unreadable.values():
            context.screen.warn(f"an image cannot be read, and is left out: {text}")
        for text in context.provider.undeletable:
            context.screen.warn(f"a deleted image could not be removed: {text}")
        names = [image.name for image in found]
        image_names.note(state_dir(context.environ), context.provider_name, names)
    return context.cache.images


@dataclass(frozen=True)
class ListedImage:
    """
    An image as `inv image --list` prints it.

    *stored_bytes* and *monthly_usd*, None if the price is unknown, are upper bounds if
    *at_most* is set. *created* is in epoch seconds. *used_by* are the titles of the
    boxes created from it.
    """

    name: str
    id: str
    project: str
    stored_bytes: int
    at_most: bool
    created: float
    monthly_usd: float | None
    by_recipe: bool
    used_by: tuple[str, ...]


def listed(context: BoxContext) -> list[ListedImage]:
    """Return all images of this owner, newest first."""
    users = _boxes_by_image(context) if images(context) else {}
    return [
        ListedImage(
            image.name,
            image.id,
            image.tags.project,
            image.stored,
            image.at_most,
            image.created,
            _month(context, image),
            bool(image.recipe),
            tuple(users.get(image.id, [])),
        )
        for image in images(context)
    ]


def show(context: BoxContext) -> None:
    """Print the images with their monthly cost and the boxes created from them."""
    found = listed(context)
    if context.screen.json:
        context.screen.print_json("images", {"images": found})
        return
    if not found:
        context.screen.print("no images yet")
        return
    now = time.time()
    rows = [
        (
            image.name,
            image.id,
            image.project,
            bound(formatting.byte_count(image.stored_bytes), image.at_most),
            formatting.age(max(now - image.created, 0)),
            bound(formatting.money(image.monthly_usd), image.at_most),
            "recipe" if image.by_recipe else "by hand",
            formatting.first_names(list(image.used_by)) or "-",
        )
        for image in found
    ]
    head = ("name", "id", "project", "size", "age", "a month", "from", "used by")
    context.screen.table(head, rows)


def monthly_price(context: BoxContext, image: Image) -> str:
    """Return an image's price for a month as text; "at most" marks an upper bound."""
    return bound(formatting.money(_month(context, image)), image.at_most)


def stored_size(image: Image) -> str:
    """Return an image's stored size as text; "at most" marks an upper bound."""
    return bound(formatting.byte_count(image.stored), image.at_most)


def _month(context: BoxContext, image: Image) -> float | None:
    rate = context.provider.image_rate
    return None if rate is None else rate * image.stored / GB


def bound(text: str, at_most: bool) -> str:
    """
    Return *text*, marked as an upper bound if it is one.

    >>> bound("$2", True), bound("$0", True)
    ('at most $2', '$0')
    """
    return f"at most {text}" if at_most and text not in ("$0", "0 B") else text


def prune(
    context: BoxContext,
    name: str,
    *,
    current: Image | None,
    everywhere: bool,
    yes: bool,
) -> None:
    """
    Remove the images that newer ones replace, after a confirmation.

    An image from which a box was created is not removed.

    Args:
        name: Remove only the images with this name or id, even if they were saved by
            hand. If it is "", remove the replaced images and all images of this recipe.

        current: The image that onebox.toml names. It is not removed.

        everywhere: Prune in every project of this owner.

        yes: Remove the images without a confirmation.

    Raises:
        UsageError: The user did not confirm, or there is no terminal to ask.
    """
    context.lock()
    own_images = list(context.provider.images(context.owner))
    users = _boxes_by_image(context)
    kept = {current.id} if current else set()
    if name:
        candidates = _named(own_images, name)
    else:
        candidates = [*_of_this_recipe(context, own_images), *replaced(own_images)]
    removable = [
        image
        for image in dict.fromkeys(candidates)
        if image.id not in users and image.id not in kept
        if everywhere or image.tags.project == context.project
    ]
    if not removable:
        context.screen.print("there is no image to remove")
        return
    for image in removable:
        price = monthly_price(context, image)
        context.screen.print(
            f"{image.name}  {image.id}  {stored_size(image)}  {price} a month"
        )
    count = formatting.count(len(removable), "image")
    if not yes and not context.screen.ask(
        f"Remove {count} for good? Type yes to do so:", "yes"
    ):
        raise UsageError("no image was removed", next="inv image --prune --yes")
    for image in removable:
        snapshot.remove(context, image)
    context.screen.print_stage("image", "done", "removed", count)


def replaced(own_images: Sequence[Image]) -> list[Image]:
    """
    Return the images in *own_images* that a newer image replaces.

    Nothing replaces the newest image of each recipe and architecture. Images saved by
    hand cannot be built again, so nothing replaces the newest of each name either.
    """
    newest, older = set(), []
    for image in sorted(own_images, key=lambda image: image.created, reverse=True):
        if _series(image) in newest:
            older.append(image)
        newest.add(_series(image))
    return older


def remove_replaced(context: BoxContext, box: Box) -> None:
    """
    Remove the older images of the recipe to which the image of *box* belongs.

    An image from which a box was created is not removed. A failure causes only a
    warning, because the next box created from the new image tries again.
    """
    own_images = images(context)
    image = next((image for image in own_images if image.id == box.image), None)
    if image is None or not image.recipe:
        return
    older = [
        other
        for other in own_images
        if other.created < image.created and _series(other) == _series(image)
    ]
    if not older:
        return
    try:
        users = _boxes_by_image(context)
        unused = [other for other in older if other.id not in users]
        for other in unused:
            snapshot.remove(context, other)
    except OneboxError as error:
        context.screen.warn(f"an older image could not be removed: {error.message}")
        return
    if unused:
        ids = formatting.first_names([other.id for other in unused])
        context.screen.note(f"{ids}: removed, {image.id} replaces it")


def _series(image: Image) -> tuple[str, ...]:
    """
    Return a key that tells which images replace each other.

    An image replaces all older images with the same key.
    """
    name = "" if image.recipe else image.name
    return (image.tags.project, image.tags.name, image.arch, name)


def _of_this_recipe(context: BoxContext, own_images: Sequence[Image]) -> list[Image]:
    """Return the images of this project's recipe, and of older versions of it."""
    arch, name = recipe.arch(context), context.settings.name
    return [
        image
        for image in own_images
        if image.recipe and image.arch == arch
        if (image.tags.project, image.tags.name) == (context.project, name)
    ]


def _named(own_images: Sequence[Image], name: str) -> list[Image]:
    named = [image for image in own_images if name in (image.name, image.id)]
    if not named:
        raise UsageError(f"there is no image {name}", next="inv image --list")
    return named


def _boxes_by_image(context: BoxContext) -> dict[str, list[str]]:
    """Map the id of each image to the titles of the boxes created from it."""
    users: dict[str, list[str]] = {}
    for box in context.provider.find(context.owner, everywhere=True):
        if box.image:
            title = f"{box.tags.project}/{box.tags.name}"
            users.setdefault(box.image, []).append(title)
    return users
