"""
Build the image with the job's environment if its recipe has changed.

`inv image --from-box` saves the live box as an image instead.
"""

from __future__ import annotations

import re
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from onebox import formatting, providers
from onebox.boxes import announcement, bring_up, offers, power, replay_journal
from onebox.errors import ConfigError, OneboxError, UsageError
from onebox.images import (
    builder,
    image_list,
    job_packages,
    packer,
    recipe,
    sanitize,
    snapshot,
    stale_lock,
)
from onebox.jobs import remote_job
from onebox.providers.values import Image
from onebox.remote.answers import Hello
from onebox.signals import Interrupted
from onebox.stages import environment

if TYPE_CHECKING:
    from onebox.context import BoxContext

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def find(context: BoxContext) -> Image | None:
    """
    Return the image that `use` or the recipe in onebox.toml selects.

    The result is None if this image is not built yet. It is also None if the box boots
    an image of the provider instead of one of this owner's images.

    Raises:
        ConfigError: `use` names an image that does not exist.

        UsageError: No offer for the requested size has the image's architecture.
    """
    image = _find(context)
    if image is not None and image.arch not in ("", recipe.arch(context)):
        # The best offer cannot boot the image, but another offer may. If no offer can,
        # this call raises UsageError.
        offers.find(context, image)
    return image


def reason(context: BoxContext) -> str | None:
    """Return why an image has to be built, None if it exists or is not needed."""
    job_packages.check(context)
    if not recipe.title(context) or find(context) is not None:
        return None
    packer.check(context)
    return recipe.change(context)


def describe_outdated(context: BoxContext) -> str:
    """
    Return a phrase if the live box keeps its older image, else "".

    The image is then built when the next box is created, or by `inv image`.
    """
    if reason(context) is None:
        return ""
    why = environment.outdated_image(context, context.find_box())
    return f"{why}; built for the next box, or by inv image" if why else ""


def describe_up_to_date(context: BoxContext) -> str:
    """Return a phrase that describes the image from which a new box boots."""
    if not recipe.makes_image(context):
        return job_packages.describe(context)
    image = find(context)
    if image is None:
        return _describe_base(context)
    day = time.strftime("%d %b", time.localtime(image.created)).lstrip("0")
    if context.settings.image.use:
        return f"{image.name}, saved {day}"
    return f"{recipe.title(context)} unchanged, built {day}"


def perform(context: BoxContext, *, rebuild: bool = False) -> Image | None:
    """
    Build the image if necessary, and return it.

    A stage that needs the image does not rebuild it if the live box can be updated.

    The result is None if the box boots an image of the provider, or has an older one.

    Raises:
        InputError: uv.lock is older than pyproject.toml.
    """
    stale = stale_lock.problem(context.root, context.settings.image.requirements)
    if stale is not None:
        raise stale
    announcement.print_title(context)
    context.invocation.box_used = True
    if context.store.open_intents() or context.boxes.builders:
        context.lock()
        replay_journal.replay(context)
    if rebuild and recipe.title(context):
        why: str | None = "--rebuild"
    else:
        why = reason(context)
    announcement.announce(context)
    outdated = describe_outdated(context) if why and not rebuild else ""
    if outdated and context.invocation.is_need:
        context.screen.print_stage("image", "kept", "out of date", outdated)
        return None
    if why is None:
        detail = describe_up_to_date(context)
        context.screen.print_stage("image", "done", "up to date", detail)
        image = find(context)
        if image is not None and recipe.title(context):
            snapshot.remember(context, recipe.inputs(context))
        return image
    context.lock()
    with context.chain.timed("image"):
        if context.settings.image.packer:
            return packer.build(context, why)
        return builder.build(context, why)


def save_from_box(context: BoxContext, name: str, *, yes: bool) -> Image:
    """
    Save the live box's disk as an image called *name*.

    The box is stopped for the save and started again.

    Args:
        yes: Do not ask before saving files that look like secrets.

    Raises:
        UsageError: There is no box, its job still runs, the name is not valid, or
            the user does not want an image with secrets.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--from-box needs a name for the image, got {name!r}",
            next="inv image --from-box --as=my-environment",
        )
    context.boxes.running()
    context.lock()
    replay_journal.replay(context)
    context.boxes.refresh()
    box = bring_up.wait_until_reachable(context)
    remote_job.refuse_running(context, remote_job.latest(context))
    hello: Hello = context.call_resuming(
        lambda channel: Hello.parse(channel.request("hello"))
    )
    if builder.warn_of_secrets(context, box) and not yes:
        _confirm_secrets(context, name)
    # `box.image` is "" if the box booted from the provider's base image.
    base = box.image or recipe.base(context)
    image = snapshot.new_image(
        context, box.tags, name, hello.arch, recipe="", base=base
    )
    with context.chain.timed("image"), context.screen.stage("image") as stage_line:
        stage_line.doing(f"cleaning {box.id}")
        builder.on_box(context, box, partial(sanitize.clean, keep_box=True))
        stage_line.doing(f"stopping {box.id}")
        context.forget_connection()
        try:
            context.provider.stop(box)
            stage_line.doing("saving the disk")
            image = snapshot.save(context, box, image, progress=stage_line.saved)
        except (OneboxError, Interrupted):
            stage_line.doing("starting the box again")
            power.start(context, box, box.deadline)
            raise
        stage_line.doing("starting the box again")
        power.start(context, box, box.deadline)
        stage_line.end("", f"{name}: {image_list.stored_size(image)}, from {box.id}")
    context.screen.note(f'use it: [image] use = "{name}" in onebox.toml')
    return image


def show_list(context: BoxContext) -> None:
    """Print this owner's images."""
    image_list.show(context)


def prune(context: BoxContext, name: str, *, everywhere: bool, yes: bool) -> None:
    """Remove the images that newer ones replace; see `image_list.prune`."""
    try:
        current = _find(context)
    except ConfigError:
        current = None
    image_list.prune(context, name, current=current, everywhere=everywhere, yes=yes)


def _confirm_secrets(context: BoxContext, name: str) -> None:
    if context.screen.can_ask and not context.screen.ask(
        f"Everyone who uses {name} can read them. Type yes to save it with them:", "yes"
    ):
        raise UsageError(
            "no image was saved",
            next="remove them on the box (inv ssh), or --yes",
        )


def _describe_base(context: BoxContext) -> str:
    given = any(path.startswith("image.") for path in context.settings.sources)
    nothing = "[image] installs nothing" if given else "no [image] settings"
    if context.provider.own_system:
        return f"{nothing}; plain {recipe.base(context)}"
    if not context.provider.powers_off:
        return f"{nothing}; using the cluster's own Python"
    python = "{}.{}".format(*sys.version_info)
    return f"{nothing}; using this machine's Python {python}"


def _find(context: BoxContext) -> Image | None:
    settings = context.settings.image
    if not recipe.makes_image(context):
        return None
    images = image_list.images(context)
    if settings.use:
        for image in images:
            if settings.use in (image.id, image.name):
                return image
        if providers.row_of(context.provider_name).has_image_id(settings.use):
            # The image belongs to the provider, not to this owner. `recipe.base` raises
            # an error if the image does not exist.
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
