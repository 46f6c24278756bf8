"""Save a box that was set up by hand as an image, and have the box go on."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from onebox.boxes import bring_up, lifecycle
from onebox.errors import OneboxError, UsageError
from onebox.images import builder, catalog, recipe, sanitize, snapshot
from onebox.jobs import client
from onebox.providers.base import Box, Image
from onebox.remote.answers import Hello
from onebox.signals import Interrupted

if TYPE_CHECKING:
    from onebox.context import BoxContext

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def save(context: BoxContext, name: str, *, yes: bool) -> Image:
    """
    Save the live box's disk as an image called *name*.

    The box is stopped for it and started again.

    Args:
        yes: Do not ask, although there are files that look like secrets.

    Raises:
        UsageError: There is no such box, its job still runs, no usable name was
            given, or the user does not want an image with secrets in it.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--from-box needs a name for the image, not {name!r}",
            next="inv image --from-box --as=my-environment",
        )
    context.running_box()
    context.lock()
    lifecycle.recover(context)
    context.look_again()
    box = bring_up.ready(context)
    running = client.latest(context)
    if running is not None and running.state == "running":
        raise UsageError(
            f"job {running.job} still runs on {context.title}",
            next="inv logs, or inv cancel",
        )
    hello: Hello = context.resuming(lambda channel: Hello.parse(channel.ask("hello")))
    if builder.warn_of_secrets(context, box) and not yes:
        _may_hold_secrets(context, name)
    image = snapshot.new_image(
        context, box.tags, name, hello.arch, recipe="", base=_base(context, box)
    )
    with context.timed("image"), context.screen.stage("image") as line:
        line.doing(f"cleaning {box.id}")
        builder.on_box(context, box, partial(sanitize.clean, living=True))
        line.doing(f"stopping {box.id}")
        context.forget_connection()
        try:
            context.provider.stop(box)
            line.doing("saving the disk")
            image = snapshot.save(context, box, image)
        except (OneboxError, Interrupted):
            line.doing("starting the box again")
            _start(context, box)
            raise
        line.doing("starting the box again")
        _start(context, box)
        line.end("", f"{name}: {catalog.size(image)}, from {box.id}")
    context.screen.note(f'use it: [image] use = "{name}" in onebox.toml')
    return image


def _may_hold_secrets(context: BoxContext, name: str) -> None:
    if context.screen.can_ask and not context.screen.ask(
        f"Whoever uses {name} can read them. Type yes to save it with them:", "yes"
    ):
        raise UsageError(
            "no image was saved",
            next="remove them on the box (inv ssh), or --yes",
        )


def _base(context: BoxContext, box: Box) -> str:
    """Return what the box was made from: an image of ours, or the plain system."""
    return box.image or recipe.base(context)


def _start(context: BoxContext, box: Box) -> None:
    minutes = context.settings.limits.boot_minutes
    with context.store.intent("start", box=box.id):
        box = context.provider.start(box, box.deadline)
    context.made_again(box)
    box = bring_up.wait(context, box, minutes * 60, lambda text: None)
    context.made_again(box)
    lifecycle.adopt(context, box)
