"""Create a box or a builder from the first offer that is available."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from onebox import __version__, agent_bundle
from onebox.boxes import announcement, delete, offers
from onebox.boxes.refused_offers import RefusedOffers
from onebox.errors import (
    NoCapacity,
    OneboxError,
    QuotaExceeded,
    StateError,
    Unclear,
    Unsuitable,
)
from onebox.providers.values import BootConfig, Box, Image, Offer, Request, Tags
from onebox.remote import keys
from onebox.signals import Interrupted
from onebox.store.identity import note_project, note_provider, random_id
from onebox.store.paths import config_dir, state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext

Kind = Literal["box", "builder"]


def create(
    context: BoxContext,
    *,
    kind: Kind,
    image: Image | None,
    doing: Callable[[str], None] = lambda text: None,
) -> Box:
    """
    Create a box or a builder, trying each offer in turn.

    An intent is journaled before each create call. A box is recorded before its
    intent is closed, so that after a crash at any instant the record or the journal
    names the box. A builder is not recorded.

    Args:
        doing: Called with a description of each attempt before it begins.

    Raises:
        NoCapacity: No offer is available; the message has each cause once.

        QuotaExceeded: The account's quotas refuse every offer.

        UsageError: Every offer exceeds a limit or cannot be used, the user declined a
            dearer offer, or the request is invalid.
    """
    is_builder = kind == "builder"
    size = context.settings.builder_size if is_builder else context.settings.size
    refused = RefusedOffers(context.provider)
    for offer in (
        offers.find_for_builder(context) if is_builder else offers.find(context, image)
    ):
        if refused.skip(offer):
            continue
        try:
            offers.check_price(context, offer, size)
            if not is_builder:
                announcement.confirm_dearer(context, offer)
            doing(f"asking for {offer.type} {offer.place}".rstrip())
            box = _create(context, kind, image, offer)
        except (NoCapacity, QuotaExceeded, Unsuitable) as error:
            refused.add(offer, error)
            continue
        for row in refused.rows():
            context.screen.note(row)
        if not is_builder:
            announcement.announce_obtained(context, offer)
        return box
    # The failed attempts may have left an object that several boxes can share, such
    # as a firewall.
    delete.remove_unused(context)
    raise refused.error(size.name, "[image] size" if is_builder else "--vm")


def adopt(
    context: BoxContext, box: Box, *, temporary: bool = False, booted: bool = True
) -> None:
    """
    Write *box* into the record as the current box.

    If *box* is already recorded, only its deadline is updated.

    Args:
        temporary: Whether a chain created the box for itself and must tear it down.

        booted: Whether the box has finished booting.
    """
    if context.store.record.box == box.id:
        context.store.update(deadline=box.deadline)
        return
    context.store.forget()
    context.store.update(
        box=box.id,
        provider=context.provider.name,
        place=box.place,
        size=box.offer.name,
        hourly=box.offer.hourly,
        hourly_on_demand=box.offer.hourly_on_demand,
        created=box.created,
        deadline=box.deadline,
        image=box.image,
        temporary=temporary,
        booted=booted,
    )


def _create(context: BoxContext, kind: Kind, image: Image | None, offer: Offer) -> Box:
    """
    Create a box from one offer.

    If the call is interrupted, or if the box cannot be recorded, the box is removed.
    """
    request = _request(context, kind, image, offer)
    state = state_dir(context.environ)
    note_provider(state, context.provider.name)
    if context.settings.source("project") == "default":
        note_project(context.root, context.project, state)
    temporary = kind == "box" and context.invocation.creates_temporary_box
    try:
        with context.store.intent(
            "create",
            box=request.box,
            provider=context.provider.name,
            kind=kind,
            type=offer.type,
            place=offer.place,
            temporary=temporary,
        ) as outcome:
            try:
                box = context.provider.create(request)
                if kind == "box":
                    context.invocation.created_box = True
                    context.boxes.set_current(box)
                    adopt(context, box, temporary=temporary, booted=False)
                    context.store.sessions.note_new_box(box.id)
                return box
            except Interrupted:
                # The first Ctrl-C removes the box; a second one exits at once.
                _undo(context, request.box, offer.place)
                outcome.undone = True
                raise
            except OneboxError as error:
                # Every error except these two means that the provider created nothing.
                outcome.undone = not isinstance(error, (StateError, Unclear))
                raise
    except StateError:
        # The journal or the record could not be written, for example because this
        # machine's disk is full.
        _undo(context, request.box, offer.place)
        raise


def _request(
    context: BoxContext, kind: Kind, image: Image | None, offer: Offer
) -> Request:
    settings = context.settings
    size = settings.builder_size if kind == "builder" else settings.size
    deadline = offers.deadline(context)
    key_dir = config_dir(context.environ)
    return Request(
        box=f"ob-{random_id()}",
        tags=Tags(
            owner=context.owner,
            project=context.project,
            name=settings.name,
            deadline=deadline,
            version=__version__,
            kind=kind,
        ),
        offer=offer,
        image=image,
        user_key=keys.public_half(keys.ssh_key_file(key_dir)),
        host_key=keys.new_host_key(key_dir),
        boot_config=BootConfig(
            deadline=deadline,
            setup_grace=settings.limits.setup_minutes * 60,
            idle_grace=settings.limits.idle_minutes * 60,
            agent=agent_bundle.bundle(),
            seed=agent_bundle.seed(),
        ),
        base=settings.image.use or settings.image.base,
        disk=size.disk,
    )


def _undo(context: BoxContext, box_id: str, place: str) -> None:
    """
    Delete the box of an interrupted create call as soon as the provider lists it.

    If the provider never lists it, the call has not created the box.
    """
    box = context.boxes.wait_until_listed(box_id, place, context.now())
    if box is not None:
        context.provider.delete(box)
    context.store.forget_box(box_id)
