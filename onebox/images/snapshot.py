"""
Save a stopped box's disk as an image, and remove images.

Each of these operations is written to the journal before it begins. After a crash the
next command completes or undoes it, so that no incomplete image stays.
"""

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
from onebox.providers.values import (
    Box,
    Image,
    SaveProgress,
    Tags,
    ignore_progress,
)
from onebox.signals import Interrupted
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.identity import random_id
from onebox.store.journal import Intent, Outcome

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A save is requested again at most this many times while its outcome is unclear. The
# provider decides how long each request waits.
SAVE_RETRIES = 3
# The names of this module's operations in the journal.
OPERATIONS = ("save", "adopt", "packer", "unsave")


def new_image(
    context: BoxContext, tags: Tags, name: str, arch: str, *, recipe: str, base: str
) -> Image:
    """Return an `Image` with a new id, to describe an image that is not saved yet."""
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
    context: BoxContext,
    box: Box,
    image: Image,
    inputs: Mapping[str, str] | None = None,
    progress: SaveProgress = ignore_progress,
) -> Image:
    """
    Save a stopped box's disk as an image.

    After a failure or Ctrl-C the incomplete image is removed. If the outcome is
    unclear, the save stays open in the journal.

    Args:
        inputs: The hashes of the recipe's inputs, which are stored on this machine.
            With None nothing is stored.

        progress: Is called with each fraction that the provider reports.
    """
    with save_intent(context, box, image, inputs) as outcome:
        try:
            saved = _save_with_retries(context, box, image, progress)
        except (OneboxError, Interrupted) as error:
            if not isinstance(error, Unclear):
                # If the removal fails, the save stays open in the journal, and the next
                # command completes or undoes it.
                context.provider.delete_image(image)
                outcome.undone = True
            raise
    _update_local_state(context, inputs)
    return saved


@contextmanager
def save_intent(
    context: BoxContext, box: Box, image: Image, inputs: Mapping[str, str] | None
) -> Iterator[Outcome]:
    """
    Record in the journal that a box is being saved, and close the record at the end.

    If the block raises, the record stays open, unless the block sets `undone` of the
    yielded outcome.
    """
    intent = {
        "image": asdict(image),
        "inputs": dict(inputs or {}),
        "box": box.id,
        "place": box.place,
        "provider": context.provider.name,
    }
    with context.store.intent("save", **intent) as outcome:
        yield outcome


def is_open(context: BoxContext) -> bool:
    """Return whether the journal contains a save that has no result yet."""
    return any(intent.action == "save" for intent in context.store.open_intents())


def adopt(
    context: BoxContext, artifact: str, image: Image, inputs: Mapping[str, str]
) -> Image:
    """Give an image that Packer has built the owner's tags; return the image."""
    intent = {
        "artifact": artifact,
        "image": asdict(image),
        "inputs": dict(inputs),
        "provider": context.provider.name,
    }
    with context.store.intent("adopt", **intent):
        adopted = context.provider.adopt_image(artifact, image)
    _update_local_state(context, inputs)
    return adopted


def remove(context: BoxContext, image: Image) -> None:
    """Remove an image at the provider, and record that in the journal."""
    intent = {"image": asdict(image), "provider": context.provider.name}
    with context.store.intent("unsave", **intent):
        context.provider.delete_image(image)
    context.cache.images = None


def replay(context: BoxContext, intent: Intent) -> None:
    """Complete the operation *intent* of an interrupted command, or undo it."""
    if not isinstance(intent.details.get("image"), dict):
        return
    image = _parse_image(intent.details["image"])
    if intent.action == "unsave":
        context.provider.delete_image(image)
        return
    context.screen.note(
        f"an earlier command was interrupted while it saved {image.name}"
    )
    try:
        if _complete(context, intent, image):
            _update_local_state(context, intent.details.get("inputs"))
        else:
            context.provider.delete_image(image)
            context.cache.images = None
    except Unclear:
        raise
    except OneboxError as error:
        context.screen.warn(f"{image.name} is not saved: {error.message}")
        context.provider.delete_image(image)


def remember(context: BoxContext, inputs: Mapping[str, str]) -> None:
    """Store *inputs* on this machine, unless they are stored already."""
    if inputs != remembered(context):
        path = _inputs_file(context)
        private_dir(path.parent)
        write_atomically(path, json.dumps(dict(inputs), indent=1).encode())


def remembered(context: BoxContext) -> dict[str, str]:
    """Return the inputs that `remember` stored last, {} if there are none."""
    with suppress(FileNotFoundError, ValueError):
        inputs = json.loads(_inputs_file(context).read_bytes())
        if isinstance(inputs, dict):
            return inputs
    return {}


def _inputs_file(context: BoxContext) -> Path:
    return context.store.directory / "recipe.json"


def _save_with_retries(
    context: BoxContext,
    box: Box,
    image: Image,
    progress: SaveProgress = ignore_progress,
) -> Image:
    """Save a box as *image*; if the outcome is unclear, request the image again."""
    for _ in range(SAVE_RETRIES):
        try:
            return context.provider.save(box, image, progress)
        except Unclear as error:
            context.screen.note(f"{error.message}; trying again")
    return context.provider.save(box, image, progress)


def _complete(context: BoxContext, intent: Intent, image: Image) -> bool:
    """Complete the interrupted operation; return False if it must be undone."""
    provider = context.provider
    if any(saved.id == image.id for saved in provider.images(context.owner)):
        return True
    if intent.action == "adopt":
        provider.adopt_image(str(intent.details["artifact"]), image)
        return True
    if intent.action == "packer":
        output = Path(str(intent.details["output"]))
        packer_output.wait_for_end(
            output, lambda: context.screen.note("Packer still runs: waiting for it")
        )
        artifact = packer_output.artifact(packer_output.read(output))
        if artifact:
            provider.adopt_image(artifact, image)
        return bool(artifact)
    box = provider.get(intent.box, intent.place)
    if box is None or box.state not in ("stopping", "stopped"):
        # A running box has booted since it was cleaned, so its disk is not clean.
        return False
    provider.stop(box)
    _save_with_retries(context, box, image)
    return True


def _update_local_state(context: BoxContext, inputs: Mapping[str, str] | None) -> None:
    context.cache.images = None
    if inputs:
        remember(context, inputs)


def _parse_image(fields: Mapping[str, Any]) -> Image:
    """Return the image whose *fields*, made by `asdict`, are in the journal."""
    return Image(
        **{
            **fields,
            "tags": Tags.parse(fields["tags"]),
            "places": tuple(fields["places"]),
        }
    )
