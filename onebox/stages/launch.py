"""Make a box where there is room for it, and remove it: builders and boxes alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from .. import __version__, words
from ..errors import (
    NoCapacity,
    NotAllowed,
    OneboxError,
    QuotaExceeded,
    StateError,
    UsageError,
)
from ..providers.base import Arming, Box, Image, Need, Provider, Request, Size, Tags
from ..signals import Interrupted
from ..state import config_dir, note_provider, random_id, state_dir
from ..transport import bundle, keys

if TYPE_CHECKING:
    from ..session import Session

# How long a deleted box may take to be gone for good.
GONE_SECONDS = 300.0


def sizes(session: Session, image: Image | None = None) -> list[Size]:
    """Return what can be had for the size asked for, best first; asked for once."""
    vm, known = session.settings.size, session.sizes
    key = image.id if image else ""
    if key in known:
        return known[key]
    need = Need(
        name=vm.name,
        cpus=vm.cpus,
        memory=vm.memory,
        spot=session.settings.wants_spot,
        types=vm.types.get(session.provider.name, ()),
        fallback=session.settings.limits.spot_fallback,
        image=image,
    )
    known[key] = list(session.provider.sizes(need))
    return known[key]


def deadline(session: Session) -> float:
    """Return the moment (epoch) at which a box made now powers itself off."""
    return time.time() + session.settings.limits.max_hours * 3600


def announce(session: Session) -> None:
    """Say, once per line, which box this is about and what it may cost at most."""
    session.greet()
    box = session.box
    if box is not None and box.state == "running":
        session.headline(box.size, box.deadline)
        return
    size = sizes(session)[0]
    check_price(session, size)
    session.headline(size, deadline(session))


def check_price(session: Session, size: Size) -> None:
    """Raise UsageError if a box of this size could cost more than is allowed."""
    limits, vm = session.settings.limits, session.settings.size
    dearest = None if size.price is None else size.price * limits.max_hours
    for limit, cost, what in (
        (limits.max_price, size.price, "[limits] max_price"),
        (vm.max_price, size.price, f"[vm.{vm.name}] max_price"),
        (limits.max_cost, dearest, "[limits] max_cost"),
    ):
        if limit is None:
            continue
        if cost is None:
            raise UsageError(
                f"the price of {size.type} is not known, so {what} = "
                f"{words.money(limit)} cannot be kept",
                next=f"choose another --vm, or remove {what}",
            )
        if cost > limit:
            raise UsageError(
                f"{size.type} could cost {words.money(cost)}, more than "
                f"{what} = {words.money(limit)}",
                next="a smaller --vm, fewer max_hours, or a higher limit",
            )


def create(
    session: Session, *, kind: Literal["box", "builder"], image: Image | None
) -> Box:
    """
    Make a box, trying each candidate in turn; the intent is journaled first.

    A box, other than a builder, is written down before that intent is closed: so
    a crash at any moment leaves one of the two that tells who it was made for.

    Raises:
        NoCapacity: None of the candidates could be had; each one's cause is said.

        QuotaExceeded: The account's own limits forbid all of them.

        UsageError: All of them could cost more than is allowed.
    """
    tried: list[tuple[str, OneboxError]] = []
    for size in sizes(session, image):
        where = f"{size.type} {size.place}{' spot' if size.spot else ''}".strip()
        try:
            check_price(session, size)
            return _create(session, kind, image, size)
        except (NoCapacity, QuotaExceeded, UsageError) as error:
            tried.append((where, error))
            session.screen.note(f"{where}: {error.message}")
    causes = {type(error) for _, error in tried}
    if causes == {UsageError} or (len(tried) == 1 and causes == {QuotaExceeded}):
        raise tried[0][1]
    table = "".join(f"\n    {where:<28} {error.message}" for where, error in tried)
    if NoCapacity in causes or len(causes) > 1:
        raise NoCapacity(
            f"no candidate for {session.settings.vm} could be had:{table}",
            next="another --vm, more zones or regions in onebox.toml, or later",
        )
    raise QuotaExceeded(
        f"the account's limits allow none of {session.settings.vm}:{table}",
        next="a smaller --vm, or ask the provider for a higher quota",
    )


def remove(session: Session, box: Box) -> None:
    """
    Delete a box and ask until the provider says that nothing of it is left.

    Raises:
        OneboxError: Something is left; it is listed with its price.
    """
    session.forget_door()
    what = {"box": box.id, "provider": session.provider.name, "place": box.place}
    with session.notebook.intent("delete", kind=box.tags.kind, **what):
        remove_from(session.provider, box)


def remove_from(provider: Provider, box: Box) -> None:
    """Delete a box at its provider, and see it gone."""
    provider.delete(box)
    until = time.monotonic() + GONE_SECONDS
    left = provider.leftovers(box.id, box.place)
    while left and time.monotonic() < until:
        time.sleep(max(provider.pace, 0.5))
        left = provider.leftovers(box.id, box.place)
    if left:
        listed = words.some([f"{x.kind} {x.id} ({words.rate(x.price)})" for x in left])
        raise OneboxError(
            f"{box.id} was deleted, but there is still: {listed}",
            next="inv teardown once more, then inv sweep",
        )


def recover(session: Session) -> None:
    """
    Finish or undo what an earlier command had begun when it was killed.

    A box is written down, with who it was made for: the stage that comes next
    uses it or tears it down. A deletion is done again. A builder is removed, since
    nobody builds while we hold the lock; also one that --keep had left.

    What a create has left may not show in the provider's lists for some time: it
    is waited for.
    """
    for intent in session.notebook.open_intents():
        if intent.get("provider", session.provider.name) != session.provider.name:
            # Only where it was made can it be looked for.
            continue
        if intent["do"] in ("create", "delete"):
            box = session.settled(
                str(intent["box"]),
                str(intent.get("place", "")),
                float(intent["at"]) if intent["do"] == "create" else 0.0,
            )
            if box is None or box.state == "gone":
                pass
            elif intent["do"] == "delete":
                _remove_left(session, box)
            elif box.tags.kind == "box":
                adopt(session, box, ours_to_end=bool(intent.get("ours_to_end")))
        session.notebook.close_intent(intent, "seen to")
    session.forget_look()
    for builder in session.builders:
        _remove_left(session, builder)


def _remove_left(session: Session, box: Box) -> None:
    session.screen.note(f"an earlier command was interrupted: removing {box.id}")
    remove(session, box)


def adopt(session: Session, box: Box, *, ours_to_end: bool = False) -> None:
    """
    Write down which box this is, unless that is known.

    Args:
        ours_to_end: The box was made by a chain for itself, which owes its end.
    """
    if session.notebook.record.box == box.id:
        session.remember(deadline=box.deadline)
        return
    session.notebook.forget()
    session.remember(
        box=box.id,
        provider=session.provider.name,
        place=box.place,
        vm=box.size.name,
        price=box.size.price,
        on_demand=box.size.on_demand,
        created=box.created,
        deadline=box.deadline,
        image=box.image,
        ours_to_end=ours_to_end,
    )


def _create(
    session: Session,
    kind: Literal["box", "builder"],
    image: Image | None,
    size: Size,
) -> Box:
    limits = session.settings.limits
    until = deadline(session)
    ours = config_dir(session.environ)
    key = keys.identity(ours)
    request = Request(
        box=f"ob-{random_id()}",
        tags=Tags(
            owner=session.owner,
            project=session.project,
            name=session.settings.name,
            expires=until,
            version=__version__,
            kind=kind,
        ),
        size=size,
        image=image,
        user_key=keys.public_half(key),
        host_key=keys.new_host_key(ours),
        arming=Arming(
            deadline=until,
            setup_grace=limits.setup_minutes * 60,
            idle_grace=limits.idle_minutes * 60,
            agent=bundle.bundle(),
        ),
        base=session.settings.image.use or session.settings.image.base,
        disk=session.settings.size.disk,
    )
    note_provider(state_dir(session.environ), session.provider.name)
    own = kind == "box" and session.line.makes_for_itself
    what = {
        "box": request.box,
        "provider": session.provider.name,
        "kind": kind,
        "size": size.type,
        "place": size.place,
        "ours_to_end": own,
    }
    try:
        with session.notebook.intent("create", **what) as outcome:
            try:
                box = session.provider.create(request)
            except (NoCapacity, QuotaExceeded, NotAllowed):
                # A clear refusal: nothing was made, nothing need be looked for.
                outcome["undone"] = True
                raise
            if kind == "box":
                session.made(box)
                adopt(session, box, ours_to_end=own)
            return box
    except (Interrupted, StateError):
        # The second key press would leave it; the first one cleans up. So does
        # a disk too full to remember it.
        made = session.settled(request.box, size.place, time.time())
        if made is not None:
            session.provider.delete(made)
        raise
