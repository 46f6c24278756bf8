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
    from onebox.context import Session


def reason(session: Session) -> str | None:
    """
    Say why a box has to be made or started, or None.

    Raises:
        UsageError: The box that is there contradicts what is asked for: there
            is never a silent second machine.
    """
    box = session.box
    if box is None:
        other_providers.refuse(session)
        return f"there is no box {session.title}"
    check(session, box)
    if salvage.is_disk(box):
        return f"of {box.id} only its disk is left, which is read first"
    if box.state in ("stopped", "stopping"):
        return f"{box.id} is {box.state}"
    return None


def up_to_date(session: Session) -> str:
    """Say which box is there when there is nothing to do."""
    box = session.running_box()
    up = formatting.seconds(max(session.now() - box.created, 0))
    return f"{box.id}, {box.place}, up {up}"


def perform(session: Session) -> Box:
    """Bring the box up and return it."""
    offers.greet(session)
    session.lock()
    lifecycle.recover(session)
    session.look_again()
    why = reason(session)
    offers.announce(session)
    if why is None:
        box = session.running_box()
        if not bring_up.arrived(session, box):
            # A command that has begun that was killed.
            boot = session.settings.limits.boot_minutes * 60
            box = bring_up.wait(session, box, boot, lambda text: None)
            session.made_again(box)
        session.screen.line("provision", "done", "up to date", up_to_date(session))
        if not session.provider.off_is_free:
            _say_notes(session, box)
        _use(session, box)
        return box
    with session.timed("provision"):
        return _bring_up(session)


def _bring_up(session: Session) -> Box:
    old = session.box
    with session.screen.stage("provision") as line:
        boot = session.settings.limits.boot_minutes * 60
        if old is not None and not salvage.is_disk(old):
            line.doing(f"starting {old.id}")
            hours = session.settings.limits.max_hours
            old = power.start(session, old, hours * 3600)
            if not old.rescue:
                line.end("", f"{old.id} started again, {old.place}")
                _use(session, old)
                _say_notes(session, old)
                return old
        if old is not None:
            salvage.finish(session, old, line)
        line.doing("making the box")
        wanted = image.wanted(session)
        box = lifecycle.create(session, kind="box", image=wanted, doing=line.doing)
        try:
            box = bring_up.wait(session, box, boot, line.doing)
            session.made_again(box)
        except (OneboxError, Interrupted):
            line.doing("removing what was made")
            lifecycle.remove(session, box)
            session.notebook.forget()
            session.look_again()
            raise
        line.end("", f"{box.id}, {box.place}, host key verified")
    image.proved(session, box)
    _say_notes(session, box)
    return box


def _say_notes(session: Session, box: Box) -> None:
    if box.notes:
        session.screen.note("; ".join(box.notes))


def _use(session: Session, box: Box) -> None:
    """Take the box that is there; an emptied state is filled from its tags."""
    lifecycle.adopt(session, box)
    if box.exposed:
        session.made_again(bring_up.secure(session, box))
    if session.line.box_wanted or session.line.keep:
        session.remember(ours_to_end=False)


def check(session: Session, box: Box) -> None:
    """Raise UsageError if the box that is there is not the one asked for."""
    settings = session.settings
    end = f"inv teardown --name={settings.name}"
    if session.given("vm") and settings.vm not in (box.size.name, box.size.type):
        raise UsageError(
            f"{settings.source('vm')} asks for {settings.vm}, but {session.title} "
            f"({box.id}) is {box.size.name}",
            next=f"{end}, or another box: --name=second",
        )
    spot = settings.spot
    # A machine that reads a disk is never the one that was asked for.
    given = session.given("spot") and not box.rescue
    if given and spot is not None and spot != box.size.spot:
        kind = "spot" if box.size.spot else "on demand"
        raise UsageError(
            f"{session.title} ({box.id}) is {kind} capacity",
            next=f"{end}, or another box: --name=second",
        )
    made_from = box.image
    if image.reason(session) is not None:
        raise UsageError(
            f"{session.title} ({box.id}) was made from an older image: "
            f"{image.reason(session)}",
            next=f"{end}; or --only to work with the box as it is",
        )
    now = image.wanted(session)
    if made_from != (now.id if now else ""):
        raise UsageError(
            f"{session.title} ({box.id}) was made from another image than "
            "onebox.toml asks for now",
            next=f"{end}; or --only to work with the box as it is",
        )
