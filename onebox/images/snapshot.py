"""Make an image of what stands there; a crash leaves it whole, or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox.errors import OneboxError, Unclear
from onebox.images import packer_output
from onebox.providers.base import Box, Image, Tags
from onebox.signals import Interrupted
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.box_store import random_id
from onebox.store.journal import Intent, Outcome

if TYPE_CHECKING:
    from onebox.context import BoxContext

# How often a save is asked for again that a provider cannot see the end of. Each
# time it waits as long as it thinks right.
PATIENCE = 3
# What a crash can interrupt here, as the journal calls it.
INTENTS = ("save", "adopt", "packer", "unsave")


def new_image(
    context: BoxContext, tags: Tags, name: str, arch: str, *, recipe: str, base: str
) -> Image:
    """Return what an image is going to be; its id is decided here."""
    return Image(
        id=f"oi-{random_id()}",
        name=name,
        recipe=recipe,
        created=time.time(),
        stored=0,
        arch=arch,
        tags=replace(tags, name=context.settings.name, kind="image"),
        base=base,
    )


def save(
    context: BoxContext, box: Box, image: Image, inputs: Mapping[str, str] | None = None
) -> Image:
    """
    Save a stopped box's disk as an image.

    What is half made is removed if that fails, or is interrupted by the user.

    Args:
        inputs: What the recipe was made of, to be remembered with the image.
    """
    with begun(context, box, image, inputs) as outcome:
        try:
            saved = _patiently(context, box, image)
        except (OneboxError, Interrupted) as error:
            if not isinstance(error, Unclear):
                # Should this fail, the intent stays open and is seen to later.
                context.provider.delete_image(image)
                outcome.undone = True
            raise
    _saved(context, inputs)
    return saved


@contextmanager
def begun(
    context: BoxContext, box: Box, image: Image, inputs: Mapping[str, str] | None
) -> Iterator[Outcome]:
    """Have it in the journal that a box is being saved, until the body has ended."""
    what = {
        "image": asdict(image),
        "inputs": dict(inputs or {}),
        "box": box.id,
        "place": box.place,
        "provider": context.provider.name,
    }
    with context.store.intent("save", **what) as outcome:
        yield outcome


def is_open(context: BoxContext) -> bool:
    """Tell whether a save was begun of which nobody knows yet how it ended."""
    return any(intent.action == "save" for intent in context.store.open_intents())


def adopt(
    context: BoxContext, artifact: str, image: Image, inputs: Mapping[str, str]
) -> Image:
    """Make an image of ours of one that Packer has built."""
    what = {
        "artifact": artifact,
        "image": asdict(image),
        "inputs": dict(inputs),
        "provider": context.provider.name,
    }
    with context.store.intent("adopt", **what):
        adopted = context.provider.adopt_image(artifact, image)
    _saved(context, inputs)
    return adopted


def remove(context: BoxContext, image: Image) -> None:
    """Remove an image, and whatever its provider keeps for it."""
    what = {"image": asdict(image), "provider": context.provider.name}
    with context.store.intent("unsave", **what):
        context.provider.delete_image(image)
    context.images = None


def finish(context: BoxContext, intent: Intent) -> None:
    """Go on with what an earlier command was interrupted at; at worst, undo it."""
    if not isinstance(intent.details.get("image"), dict):
        return
    image = _image(intent.details["image"])
    if intent.action == "unsave":
        context.provider.delete_image(image)
        return
    context.screen.note(
        f"an earlier command was interrupted while it saved {image.name}"
    )
    try:
        if _finished(context, intent, image):
            _saved(context, intent.details.get("inputs"))
        else:
            context.provider.delete_image(image)
            context.images = None
    except Unclear:
        raise
    except OneboxError as error:
        context.screen.warn(f"{image.name} is given up: {error.message}")
        context.provider.delete_image(image)


def remember(context: BoxContext, inputs: Mapping[str, str]) -> None:
    """Write down what the image that there is was made of, unless that is known."""
    if inputs != remembered(context):
        path = _memory(context)
        private_dir(path.parent)
        write_atomically(path, json.dumps(dict(inputs), indent=1).encode())


def remembered(context: BoxContext) -> dict[str, str]:
    """Return what the latest image known here was made of, nothing if that is lost."""
    with suppress(FileNotFoundError, ValueError):
        found = json.loads(_memory(context).read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _memory(context: BoxContext) -> Path:
    return context.store.directory / "recipe.json"


def _patiently(context: BoxContext, box: Box, image: Image) -> Image:
    """Save a box; where no clear answer comes, ask for the same image again."""
    for _ in range(PATIENCE):
        try:
            return context.provider.save(box, image)
        except Unclear as error:
            context.screen.note(f"{error.message}; asking again")
    return context.provider.save(box, image)


def _finished(context: BoxContext, intent: Intent, image: Image) -> bool:
    provider = context.provider
    if any(one.id == image.id for one in provider.images(context.owner)):
        return True
    if intent.action == "adopt":
        provider.adopt_image(str(intent.details["artifact"]), image)
        return True
    if intent.action == "packer":
        raw = Path(str(intent.details["output"]))
        packer_output.wait_for_end(
            raw, lambda: context.screen.note("Packer is still at work: waiting for it")
        )
        artifact = packer_output.artifact(packer_output.read(raw))
        if artifact:
            provider.adopt_image(artifact, image)
        return bool(artifact)
    box = provider.get(intent.box, intent.place)
    if box is None or box.state not in ("stopping", "stopped"):
        # What runs is not clean any more.
        return False
    provider.stop(box)
    _patiently(context, box, image)
    return True


def _saved(context: BoxContext, inputs: Mapping[str, str] | None) -> None:
    context.images = None
    if inputs:
        remember(context, inputs)


def _image(told: Mapping[str, Any]) -> Image:
    return Image(
        **{**told, "tags": Tags(**told["tags"]), "places": tuple(told["places"])}
    )
