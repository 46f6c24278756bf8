"""Have a box of the right size, made from the right image, ready for ssh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up, lifecycle, offers, other_providers, power
from onebox.errors import OneboxError, UsageError
from onebox.providers.base import Box
from onebox.signals import Interrupted
from onebox.stages import image, salvage

if TYPE_CHECKING:
    from onebox.context import BoxContext


def reason(context: BoxContext) -> str | None:
    """
    Say why a box has to be made or started, or None.

    Raises:
        UsageError: The box that is there contradicts what is asked for: there
            is never a silent second machine.
    """
    box = context.box
    if box is None:
        other_providers.refuse(context)
        return f"there is no box {context.title}"
    check(context, box)
    if salvage.is_disk(box):
        return f"of {box.id} only its disk is left, which is read first"
    if box.state in ("stopped", "stopping"):
        return f"{box.id} is {box.state}"
    return None


def up_to_date(context: BoxContext) -> str:
    """Say which box is there when there is nothing to do."""
    box = context.running_box()
    up = formatting.seconds(max(context.now() - box.created, 0))
    return f"{box.id}, {box.place}, up {up}"


def perform(context: BoxContext) -> Box:
    """Bring the box up and return it."""
    offers.greet(context)
    context.lock()
    lifecycle.recover(context)
    context.look_again()
    why = reason(context)
    offers.announce(context)
    if why is None:
        box = context.running_box()
        if not bring_up.arrived(context, box):
            # A command that has begun that was killed.
            boot = context.settings.limits.boot_minutes * 60
            box = bring_up.wait(context, box, boot, lambda text: None)
            context.made_again(box)
        context.screen.line("provision", "done", "up to date", up_to_date(context))
        if not context.provider.stopped_is_free:
            _say_notes(context, box)
        _use(context, box)
        return box
    with context.timed("provision"):
        return _bring_up(context)


def _bring_up(context: BoxContext) -> Box:
    old = context.box
    with context.screen.stage("provision") as line:
        boot = context.settings.limits.boot_minutes * 60
        if old is not None and not salvage.is_disk(old):
            line.doing(f"starting {old.id}")
            hours = context.settings.limits.max_hours
            old = power.start(context, old, hours * 3600)
            if not old.rescue:
                line.end("", f"{old.id} started again, {old.place}")
                _use(context, old)
                _say_notes(context, old)
                return old
        if old is not None:
            salvage.finish(context, old, line)
        line.doing("making the box")
        wanted = image.wanted(context)
        box = lifecycle.create(context, kind="box", image=wanted, doing=line.doing)
        try:
            box = bring_up.wait(context, box, boot, line.doing)
            context.made_again(box)
        except (OneboxError, Interrupted):
            line.doing("removing what was made")
            lifecycle.remove(context, box)
            context.store.forget()
            context.look_again()
            raise
        line.end("", f"{box.id}, {box.place}, host key verified")
    image.proved(context, box)
    _say_notes(context, box)
    return box


def _say_notes(context: BoxContext, box: Box) -> None:
    if box.notes:
        context.screen.note("; ".join(box.notes))


def _use(context: BoxContext, box: Box) -> None:
    """Take the box that is there; an emptied state is filled from its tags."""
    lifecycle.adopt(context, box)
    if box.bootstrap_key:
        context.made_again(bring_up.secure(context, box))
    if context.line.box_wanted or context.line.keep:
        context.remember(ours_to_end=False)


def check(context: BoxContext, box: Box) -> None:
    """Raise UsageError if the box that is there is not the one asked for."""
    settings = context.settings
    end = f"inv teardown --name={settings.name}"
    if context.given("vm") and settings.vm not in (box.offer.name, box.offer.type):
        raise UsageError(
            f"{settings.source('vm')} asks for {settings.vm}, but {context.title} "
            f"({box.id}) is {box.offer.name}",
            next=f"{end}, or another box: --name=second",
        )
    spot = settings.spot
    # A machine that reads a disk is never the one that was asked for.
    given = context.given("spot") and not box.rescue
    if given and spot is not None and spot != box.offer.spot:
        kind = "spot" if box.offer.spot else "on demand"
        raise UsageError(
            f"{context.title} ({box.id}) is {kind} capacity",
            next=f"{end}, or another box: --name=second",
        )
    made_from = box.image
    if image.reason(context) is not None:
        raise UsageError(
            f"{context.title} ({box.id}) was made from an older image: "
            f"{image.reason(context)}",
            next=f"{end}; or --only to work with the box as it is",
        )
    now = image.wanted(context)
    if made_from != (now.id if now else ""):
        raise UsageError(
            f"{context.title} ({box.id}) was made from another image than "
            "onebox.toml asks for now",
            next=f"{end}; or --only to work with the box as it is",
        )
