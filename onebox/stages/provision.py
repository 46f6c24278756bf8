"""Create, start or reuse the box, and wait until it is reachable over ssh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import (
    announcement,
    bring_up,
    create,
    delete,
    no_box,
    offers,
    other_providers,
    power,
    replay_journal,
)
from onebox.errors import OneboxError, UsageError
from onebox.images import image_list, recipe
from onebox.providers.values import Box
from onebox.signals import Interrupted
from onebox.stages import environment, fetch_preempted, image

if TYPE_CHECKING:
    from onebox.context import BoxContext


def reason(context: BoxContext) -> str | None:
    """
    Return why a box has to be created or started, None if one is up.

    Raises:
        UsageError: The existing box is not the requested one. onebox never creates a
            second box silently.
    """
    box = context.find_box()
    if box is None:
        other_providers.refuse(context)
        return no_box.message(context)
    check(context, box)
    if fetch_preempted.is_only_disk(box):
        return f"only the disk of {box.id} is left; it is read first"
    if box.state in ("stopped", "stopping"):
        return f"{box.id} is {box.state}"
    return None


def describe_up_to_date(context: BoxContext) -> str:
    """Return a phrase with the id, the place and the age of the box that is up."""
    box = context.boxes.running()
    age = formatting.seconds(max(context.now() - box.created, 0))
    return f"{box.id}, {box.place}, up {age}"


def perform(context: BoxContext) -> Box:
    """Bring up the box and return it."""
    announcement.print_title(context)
    context.lock()
    replay_journal.replay(context)
    context.boxes.refresh()
    why = reason(context)
    announcement.announce(context)
    if why is None:
        return _reuse(context, context.boxes.running())
    _build_missing_image(context)
    with context.chain.timed("provision"):
        return _start_or_create(context)


def _reuse(context: BoxContext, box: Box) -> Box:
    if not bring_up.has_booted(context, box):
        # The command that created the box was killed before the box was prepared.
        box = bring_up.finish_boot(context, box)
        context.boxes.set_current(box)
    context.screen.print_stage(
        "provision", "done", "up to date", describe_up_to_date(context)
    )
    if not context.provider.stopped_is_free:
        _print_notes(context, box)
    _adopt(context, box)
    return box


def _build_missing_image(context: BoxContext) -> None:
    """
    Build the image for a new box, if the recipe has changed since the image stage ran.

    This happens if the stage has used the old image of a box that is gone by now.
    """
    box = context.find_box()
    is_new = box is None or fetch_preempted.is_only_disk(box)
    if is_new and image.reason(context) is not None:
        image.perform(context)


def _start_or_create(context: BoxContext) -> Box:
    """Start the stopped box or create a new one."""
    old = context.find_box()
    with context.screen.stage("provision") as stage_line:
        if old is not None and not fetch_preempted.is_only_disk(old):
            stage_line.doing(f"starting {old.id}")
            old = power.start(context, old, offers.deadline(context))
            # The provider may start a smaller machine that can only read the disk.
            if not old.rescue:
                stage_line.end("", f"{old.id} started again, {old.place}")
                _adopt(context, old)
                _print_notes(context, old)
                return old
        if old is not None:
            fetch_preempted.rescue_and_remove(context, old, stage_line)
        stage_line.doing("creating the box")
        # An image that `use` names has no recipe.
        inputs = {} if context.settings.image.use else recipe.inputs(context)
        boot_image = image.find(context)
        box = create.create(
            context, kind="box", image=boot_image, doing=stage_line.doing
        )
        try:
            box = bring_up.finish_boot(context, box, stage_line.doing)
            context.boxes.set_current(box)
        except (OneboxError, Interrupted):
            stage_line.doing("removing the new box")
            delete.delete(context, box)
            context.store.forget()
            context.boxes.refresh()
            raise
        environment.note_new_box(context, box, inputs)
        stage_line.end("", f"{box.id}, {box.place}, {_proof(box)}")
    image_list.remove_replaced(context, box)
    _print_notes(context, box)
    return box


def _print_notes(context: BoxContext, box: Box) -> None:
    if box.notes:
        context.screen.note("; ".join(box.notes))


def _adopt(context: BoxContext, box: Box) -> None:
    """
    Record the existing box, and replace its bootstrap key if it still has one.

    A box that was found by its tags may be missing from the record. If the user asked
    for the box itself (`inv provision`) or set `--keep`, the box is recorded as not
    temporary.
    """
    create.adopt(context, box)
    if box.bootstrap_key:
        context.boxes.set_current(bring_up.replace_bootstrap_key(context, box))
    if context.invocation.box_requested or context.invocation.keep:
        context.store.update(temporary=False)


def check(context: BoxContext, box: Box) -> None:
    """Raise UsageError if the existing box is not the requested one."""
    _check_size(context, box)
    _check_spot(context, box)
    _check_image(context, box)
    _check_place(context, box)
    _check_identity(context, box)


def _check_place(context: BoxContext, box: Box) -> None:
    place = context.provider.other_place(box)
    if place:
        raise UsageError(
            f"{context.title} ({box.id}) is for {place}, which the settings do not "
            "name any more",
            next=f"{_teardown(context)}, or another box: --name=second",
        )


def _check_size(context: BoxContext, box: Box) -> None:
    settings = context.settings
    is_requested = settings.overrides_file("vm")
    if is_requested and settings.vm not in (box.offer.name, box.offer.type):
        raise UsageError(
            f"{settings.source('vm')} requests {settings.vm}, but {context.title} "
            f"({box.id}) is {box.offer.name}",
            next=f"{_teardown(context)}, or another box: --name=second",
        )


def _check_spot(context: BoxContext, box: Box) -> None:
    spot = context.settings.spot
    # A rescue machine only reads a disk, so it does not matter whether it is spot.
    requested = context.settings.overrides_file("spot") and not box.rescue
    if requested and spot is not None and spot != box.offer.spot:
        kind = "spot" if box.offer.spot else "on-demand"
        raise UsageError(
            f"{context.title} ({box.id}) is {kind} capacity",
            next=f"{_teardown(context)}, or another box: --name=second",
        )


def _check_image(context: BoxContext, box: Box) -> None:
    change, current = image.reason(context), image.find(context)
    if change is None and box.image == (current.id if current else ""):
        return
    if environment.outdated_image(context, box):
        # The push updates the packages on the box.
        return
    if change is not None:
        raise UsageError(
            f"{context.title} ({box.id}) was created from an older image: {change}",
            next=f"{_teardown(context)}; or --only to use the box as it is",
        )
    raise UsageError(
        f"{context.title} ({box.id}) was created from an image other than "
        "the one in onebox.toml",
        next=f"{_teardown(context)}; or --only to use the box as it is",
    )


def _check_identity(context: BoxContext, box: Box) -> None:
    provider, settings = context.provider, context.settings
    # No job runs on a machine that only reads a disk.
    if box.identity == provider.identity or fetch_preempted.is_only_disk(box):
        return
    key = settings.providers[provider.name].identity_setting
    setting, present = f"[{provider.name}] {key}", f"the identity {box.identity}"
    requested = f"{setting} is not set"
    if provider.identity:
        source = settings.source(f"{provider.name}.{key}")
        requested = f"{source}: {setting} requests {provider.identity}"
    raise UsageError(
        f"{context.title} ({box.id}) has {present if box.identity else 'no identity'}, "
        f"but {requested}",
        next=f"{_teardown(context)}; or --only to use the box as it is",
    )


def _teardown(context: BoxContext) -> str:
    return f"inv teardown --name={context.settings.name}"


def _proof(box: Box) -> str:
    """Return how the connection is known to lead to the box."""
    if box.is_folder:
        return "a folder of this machine"
    return "by your own ssh" if box.user_ssh else "host key verified"
