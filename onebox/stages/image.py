"""Build the image with the job's environment if its recipe has changed."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import announcement, offers, replay_journal
from onebox.errors import ConfigError
from onebox.images import builder, catalog, packer, recipe, save_box, snapshot
from onebox.providers.values import Box, Image

if TYPE_CHECKING:
    from onebox.context import BoxContext

# Ids of images that onebox did not create: Amazon's and Google's.
FOREIGN = re.compile(r"ami-[0-9a-f]+|projects/[a-z0-9:.-]+/global/images/.+")


def find(context: BoxContext) -> Image | None:
    """
    Return the image of the current recipe, None if it is not built or not needed.

    Raises:
        ConfigError: `use` names an image that does not exist.

        UsageError: The image and the requested box have different architectures.
    """
    image = _find(context)
    if image is not None and image.arch not in ("", recipe.arch(context)):
        # Another offer may boot the image. If none can, this raises.
        offers.find(context, image)
    return image


def reason(context: BoxContext) -> str | None:
    """Return why an image has to be built, None if it exists or is not needed."""
    if not recipe.title(context) or find(context) is not None:
        return None
    packer.check(context)
    return recipe.change(context)


def describe_up_to_date(context: BoxContext) -> str:
    """Return a phrase for the image that a box boots from."""
    image = find(context)
    if image is None:
        return f"no recipe: plain {recipe.base(context)}"
    day = time.strftime("%d %b", time.localtime(image.created)).lstrip("0")
    if context.settings.image.use:
        return f"{image.name}, saved {day}"
    return f"{recipe.title(context)} unchanged, built {day}"


def perform(context: BoxContext, *, rebuild: bool = False) -> Image | None:
    """Bring the image up to date; return it, None for the provider's base image."""
    announcement.greet(context)
    if context.store.open_intents() or context.boxes.builders:
        context.lock()
        replay_journal.replay(context)
    if rebuild and recipe.title(context):
        why: str | None = "--rebuild"
    else:
        why = reason(context)
    announcement.announce(context)
    if why is None:
        detail = describe_up_to_date(context)
        context.screen.line("image", "done", "up to date", detail)
        image = find(context)
        if image is not None and recipe.title(context):
            snapshot.remember(context, recipe.inputs(context))
        return image
    context.lock()
    with context.chain.timed("image"):
        if context.settings.image.packer:
            return packer.build(context, why)
        return builder.build(context, why)


def remove_replaced(context: BoxContext, box: Box) -> None:
    """Remove the images that a box's image replaces, now that the box is up."""
    catalog.remove_replaced(context, box)


def save_from_box(context: BoxContext, name: str, *, yes: bool = False) -> Image:
    """Save the live box's disk as an image called *name*."""
    return save_box.save(context, name, yes=yes)


def show_list(context: BoxContext) -> None:
    """Print this owner's images."""
    catalog.show(context)


def prune(context: BoxContext, name: str, *, everywhere: bool, yes: bool) -> None:
    """Remove the images that newer ones replace; see `catalog.prune`."""
    try:
        current = _find(context)
    except ConfigError:
        current = None
    catalog.prune(context, name, current=current, everywhere=everywhere, yes=yes)


def _find(context: BoxContext) -> Image | None:
    settings = context.settings.image
    images = catalog.images(context)
    if settings.use:
        for image in images:
            if settings.use in (image.id, image.name):
                return image
        if FOREIGN.fullmatch(settings.use):
            # Not our image but the provider's: this raises if it does not exist.
            recipe.base(context)
            return None
        names = (
            formatting.first_names(sorted({image.name for image in images})) or "none"
        )
        raise ConfigError(
            f"[image] use = {settings.use!r}: you have no such image "
            f"(your images: {names})",
            next="inv image --list",
        )
    if not recipe.title(context):
        return None
    digest = recipe.digest(recipe.inputs(context))
    return next((image for image in images if image.recipe == digest), None)
