"""Package the job's environment: whether it is up to date, and what is done if not."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import lifecycle, offers
from onebox.errors import ConfigError
from onebox.images import builder, catalog, packer, recipe, save_box, snapshot
from onebox.providers.base import Box, Image

if TYPE_CHECKING:
    from onebox.context import BoxContext

# Images that somebody else has made, by the providers' own ids.
FOREIGN = re.compile(r"ami-[0-9a-f]+|projects/[a-z0-9:.-]+/global/images/.+")


def wanted(context: BoxContext) -> Image | None:
    """
    Return the image that today's recipe asks for, if the provider holds it.

    Raises:
        ConfigError: `use` names an image that there is not.

        UsageError: The box asked for has another architecture than the image.
    """
    image = _wanted(context)
    if image is not None and image.arch not in ("", recipe.arch(context)):
        # Perhaps another of the candidates can boot it; if none can it says so.
        offers.find(context, image)
    return image


def reason(context: BoxContext) -> str | None:
    """Say why an image has to be built, or None."""
    if not recipe.title(context) or wanted(context) is not None:
        return None
    packer.check(context)
    return recipe.change(context)


def up_to_date(context: BoxContext) -> str:
    """Say what is there when there is no reason to build."""
    image = wanted(context)
    if image is None:
        return f"no recipe: plain {recipe.base(context)}"
    day = time.strftime("%d %b", time.localtime(image.created)).lstrip("0")
    if context.settings.image.use:
        return f"{image.name}, saved {day}"
    return f"{recipe.title(context)} unchanged, built {day}"


def perform(context: BoxContext, *, rebuild: bool = False) -> Image | None:
    """Bring the image up to date and return it; None stands for the plain base."""
    offers.greet(context)
    if context.store.open_intents() or context.builders:
        context.lock()
        lifecycle.recover(context)
    again = rebuild and bool(recipe.title(context))
    why = "asked to" if again else reason(context)
    offers.announce(context)
    if why is None:
        context.screen.line("image", "done", "up to date", up_to_date(context))
        image = wanted(context)
        if image is not None and recipe.title(context):
            snapshot.remember(context, recipe.inputs(context))
        return image
    context.lock()
    with context.timed("image"):
        if context.settings.image.packer:
            return packer.build(context, why)
        return builder.build(context, why)


def proved(context: BoxContext, box: Box) -> None:
    """Take note that a box has come up: what its image replaces can go."""
    catalog.replace_older(context, box)


def save_from_box(context: BoxContext, name: str, *, yes: bool = False) -> Image:
    """Save the live box's disk as an image called *name*."""
    return save_box.save(context, name, yes=yes)


def show_list(context: BoxContext) -> None:
    """Print this owner's images."""
    catalog.show(context)


def prune(context: BoxContext, name: str, *, everywhere: bool, yes: bool) -> None:
    """Remove the images that nothing asks for any more."""
    catalog.prune(
        context, name, current=_current(context), everywhere=everywhere, yes=yes
    )


def _current(context: BoxContext) -> Image | None:
    """Return the image that onebox.toml asks for today, None if there is none."""
    try:
        return _wanted(context)
    except ConfigError:
        return None


def _wanted(context: BoxContext) -> Image | None:
    settings = context.settings.image
    mine = catalog.images(context)
    if settings.use:
        for image in mine:
            if settings.use in (image.id, image.name):
                return image
        if FOREIGN.fullmatch(settings.use):
            # Not ours, but the provider's: it says whether there is such a one.
            recipe.base(context)
            return None
        have = formatting.some(sorted({i.name for i in mine})) or "none"
        raise ConfigError(
            f"[image] use = {settings.use!r}: there is no such image of yours "
            f"(there are: {have})",
            next="inv image --list",
        )
    if not recipe.title(context):
        return None
    today = recipe.digest(recipe.inputs(context))
    return next((image for image in mine if image.recipe == today), None)
