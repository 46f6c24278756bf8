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
    from onebox.context import Session

# Images that somebody else has made, by the providers' own ids.
FOREIGN = re.compile(r"ami-[0-9a-f]+|projects/[a-z0-9:.-]+/global/images/.+")


def wanted(session: Session) -> Image | None:
    """
    Return the image that today's recipe asks for, if the provider holds it.

    Raises:
        ConfigError: `use` names an image that there is not.

        UsageError: The box asked for has another architecture than the image.
    """
    image = _wanted(session)
    if image is not None and image.arch not in ("", recipe.arch(session)):
        # Perhaps another of the candidates can boot it; if none can it says so.
        offers.sizes(session, image)
    return image


def reason(session: Session) -> str | None:
    """Say why an image has to be built, or None."""
    if not recipe.title(session) or wanted(session) is not None:
        return None
    packer.check(session)
    return recipe.change(session)


def up_to_date(session: Session) -> str:
    """Say what is there when there is no reason to build."""
    image = wanted(session)
    if image is None:
        return f"no recipe: plain {recipe.base(session)}"
    day = time.strftime("%d %b", time.localtime(image.created)).lstrip("0")
    if session.settings.image.use:
        return f"{image.name}, saved {day}"
    return f"{recipe.title(session)} unchanged, built {day}"


def perform(session: Session, *, rebuild: bool = False) -> Image | None:
    """Bring the image up to date and return it; None stands for the plain base."""
    offers.greet(session)
    if session.notebook.open_intents() or session.builders:
        session.lock()
        lifecycle.recover(session)
    again = rebuild and bool(recipe.title(session))
    why = "asked to" if again else reason(session)
    offers.announce(session)
    if why is None:
        session.screen.line("image", "done", "up to date", up_to_date(session))
        image = wanted(session)
        if image is not None and recipe.title(session):
            snapshot.remember(session, recipe.inputs(session))
        return image
    session.lock()
    with session.timed("image"):
        if session.settings.image.packer:
            return packer.build(session, why)
        return builder.build(session, why)


def proved(session: Session, box: Box) -> None:
    """Take note that a box has come up: what its image replaces can go."""
    catalog.replace_older(session, box)


def save_from_box(session: Session, name: str, *, yes: bool = False) -> Image:
    """Save the live box's disk as an image called *name*."""
    return save_box.save(session, name, yes=yes)


def show_list(session: Session) -> None:
    """Print this owner's images."""
    catalog.show(session)


def prune(session: Session, name: str, *, everywhere: bool, yes: bool) -> None:
    """Remove the images that nothing asks for any more."""
    catalog.prune(
        session, name, current=_current(session), everywhere=everywhere, yes=yes
    )


def _current(session: Session) -> Image | None:
    """Return the image that onebox.toml asks for today, None if there is none."""
    try:
        return _wanted(session)
    except ConfigError:
        return None


def _wanted(session: Session) -> Image | None:
    settings = session.settings.image
    mine = catalog.images(session)
    if settings.use:
        for image in mine:
            if settings.use in (image.id, image.name):
                return image
        if FOREIGN.fullmatch(settings.use):
            # Not ours, but the provider's: it says whether there is such a one.
            recipe.base(session)
            return None
        have = formatting.some(sorted({i.name for i in mine})) or "none"
        raise ConfigError(
            f"[image] use = {settings.use!r}: there is no such image of yours "
            f"(there are: {have})",
            next="inv image --list",
        )
    if not recipe.title(session):
        return None
    today = recipe.digest(recipe.inputs(session))
    return next((image for image in mine if image.recipe == today), None)
