"""Save the disk of a live box as an image; the box is stopped and started again."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from onebox.boxes import bring_up, create, replay_journal
from onebox.errors import OneboxError, UsageError
from onebox.images import builder, catalog, recipe, sanitize, snapshot
from onebox.jobs import client
from onebox.providers.values import Box, Image
from onebox.remote.answers import Hello
from onebox.signals import Interrupted

if TYPE_CHECKING:
    from onebox.context import BoxContext

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def save(context: BoxContext, name: str, *, yes: bool) -> Image:
    """
    Save the live box's disk as an image called *name*.

    The box is stopped for the save and started again.

    Args:
        yes: Do not ask before saving files that look like secrets.

    Raises:
        UsageError: There is no box, its job still runs, the name is not valid, or
            the user does not want an image with secrets.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--from-box needs a name for the image, got {name!r}",
            next="inv image --from-box --as=my-environment",
        )
    context.boxes.running()
    context.lock()
    replay_journal.replay(context)
    context.boxes.refresh()
    box = bring_up.wait_until_ready(context)
    latest = client.latest(context)
    if latest is not None and latest.state == "running":
        raise UsageError(
            f"job {latest.job} still runs on {context.title}",
            next="inv logs, or inv cancel",
        )
    hello: Hello = context.call_resuming(
        lambda channel: Hello.parse(channel.request("hello"))
    )
    if builder.warn_of_secrets(context, box) and not yes:
        _confirm_secrets(context, name)
    # A box is created from an image of ours or from the provider's base image.
    base = box.image or recipe.base(context)
    image = snapshot.new_image(
        context, box.tags, name, hello.arch, recipe="", base=base
    )
    with context.chain.timed("image"), context.screen.stage("image") as line:
        line.doing(f"cleaning {box.id}")
        builder.on_box(context, box, partial(sanitize.clean, keep_box=True))
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
        line.end("", f"{name}: {catalog.stored_size(image)}, from {box.id}")
    context.screen.note(f'use it: [image] use = "{name}" in onebox.toml')
    return image


def _confirm_secrets(context: BoxContext, name: str) -> None:
    if context.screen.can_ask and not context.screen.ask(
        f"Everyone who uses {name} can read them. Type yes to save it with them:", "yes"
    ):
        raise UsageError(
            "no image was saved",
            next="remove them on the box (inv ssh), or --yes",
        )


def _start(context: BoxContext, box: Box) -> None:
    minutes = context.settings.limits.boot_minutes
    with context.store.intent("start", box=box.id):
        box = context.provider.start(box, box.deadline)
    context.boxes.set_current(box)
    box = bring_up.wait_and_prepare(context, box, minutes * 60, lambda text: None)
    context.boxes.set_current(box)
    create.adopt(context, box)
