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
    from onebox.context import Session

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def save(session: Session, name: str, *, yes: bool) -> Image:
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
    session.running_box()
    session.lock()
    lifecycle.recover(session)
    session.look_again()
    box = bring_up.ready(session)
    running = client.latest(session)
    if running is not None and running.state == "running":
        raise UsageError(
            f"job {running.job} still runs on {session.title}",
            next="inv logs, or inv cancel",
        )
    hello: Hello = session.resuming(lambda link: Hello.parse(link.ask("hello")))
    if builder.warn_of_secrets(session, box) and not yes:
        _may_hold_secrets(session, name)
    image = snapshot.new_image(
        session, box.tags, name, hello.arch, recipe="", base=_base(session, box)
    )
    with session.timed("image"), session.screen.stage("image") as line:
        line.doing(f"cleaning {box.id}")
        builder.on_box(session, box, partial(sanitize.clean, living=True))
        line.doing(f"stopping {box.id}")
        session.forget_door()
        try:
            session.provider.stop(box)
            line.doing("saving the disk")
            image = snapshot.save(session, box, image)
        except (OneboxError, Interrupted):
            line.doing("starting the box again")
            _start(session, box)
            raise
        line.doing("starting the box again")
        _start(session, box)
        line.end("", f"{name}: {catalog.size(image)}, from {box.id}")
    session.screen.note(f'use it: [image] use = "{name}" in onebox.toml')
    return image


def _may_hold_secrets(session: Session, name: str) -> None:
    if session.screen.can_ask and not session.screen.ask(
        f"Whoever uses {name} can read them. Type yes to save it with them:", "yes"
    ):
        raise UsageError(
            "no image was saved",
            next="remove them on the box (inv ssh), or --yes",
        )


def _base(session: Session, box: Box) -> str:
    """Return what the box was made from: an image of ours, or the plain system."""
    return box.image or recipe.base(session)


def _start(session: Session, box: Box) -> None:
    minutes = session.settings.limits.boot_minutes
    with session.notebook.intent("start", box=box.id):
        box = session.provider.start(box, box.deadline)
    session.made_again(box)
    box = bring_up.wait(session, box, minutes * 60, lambda text: None)
    session.made_again(box)
    lifecycle.adopt(session, box)
