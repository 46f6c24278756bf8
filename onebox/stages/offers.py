"""What can be had, at what price, whether that is too much, and saying so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import words
from ..config.settings import VM
from ..errors import UsageError
from ..providers.base import Image, Need, Size

if TYPE_CHECKING:
    from ..session import Session


def sizes(session: Session, image: Image | None = None) -> list[Size]:
    """
    Return what can be had for the size asked for, best first; asked for once.

    Raises:
        UsageError: None of it has the image's architecture.
    """
    key = image.id if image else ""
    if key not in session.sizes:
        settings = session.settings
        found = _candidates(session, settings.size, settings.wants_spot, image)
        if image is not None:
            found = _of_arch(found, image.arch, f"image {image.name}", "--vm")
        session.sizes[key] = found
    return session.sizes[key]


def builder_sizes(session: Session) -> list[Size]:
    """Return what images can be built on: never spot, and of the box's architecture."""
    if "builder" not in session.sizes:
        found = _candidates(session, session.settings.builder, False, None)
        arch, vm = sizes(session)[0].arch, session.settings.vm
        found = _of_arch(found, arch, f"--vm={vm}", "[image] size")
        session.sizes["builder"] = found
    return session.sizes["builder"]


def _candidates(
    session: Session, vm: VM, spot: bool, image: Image | None
) -> list[Size]:
    need = Need(
        name=vm.name,
        cpus=vm.cpus,
        memory=vm.memory,
        spot=spot,
        types=vm.types.get(session.provider.name, ()),
        fallback=session.settings.limits.spot_fallback,
        image=image,
    )
    return list(session.provider.sizes(need))


def _of_arch(found: list[Size], arch: str, whose: str, option: str) -> list[Size]:
    """Keep the sizes that can run what was made for an architecture."""
    fit = [size for size in found if arch in ("", size.arch) or not size.arch]
    if not fit:
        raise UsageError(
            f"{whose} is for {arch}, and {found[0].type} is {found[0].arch}",
            next=f"another {option}, whose types are {arch}",
        )
    return fit


def deadline(session: Session) -> float:
    """Return the moment (epoch) at which a box made now powers itself off."""
    return time.time() + session.settings.limits.max_hours * 3600


def announce(session: Session) -> None:
    """Say, once per line, which box this is about and what it may cost at most."""
    greet(session)
    box = session.box
    if box is not None and box.state == "running":
        _headline(session, box.size, box.deadline, priced="when it was made")
        return
    size = sizes(session)[0]
    check_price(session, size)
    _headline(session, size, deadline(session))


def check_price(session: Session, size: Size, vm: VM | None = None) -> None:
    """Raise UsageError if a box of this size could cost more than is allowed."""
    limits, vm = session.settings.limits, vm or session.settings.size
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


def greet(session: Session) -> None:
    """Say what a line is about before a cloud's library is loaded and asked."""
    name = session.provider_name
    if session.greeted or name == "local":
        return
    session.greeted = True
    about = [session.title, name, session.settings.vm]
    session.screen.headline(about, [], whole=False)
    # What its library needs to load it may do while files are looked at.
    _ = session.provider


def _headline(
    session: Session, size: Size, deadline: float, priced: str = "now"
) -> None:
    """Say once per box what it is and what it may cost."""
    if session.headlines > session.ended:
        return
    session.headlines = session.ended + 1
    cores = f" ({size.cores} cores)" if size.cores else ""
    title = [
        "" if session.greeted else f"{session.title}   {session.provider.name}",
        f"{size.name}: {size.type}" if size.name != size.type else size.type,
        size.place,
        f"{size.cpus} vCPU{cores}",
        words.size(size.memory),
        _price(size, priced),
    ]
    more = _worst(session, size, deadline)
    session.screen.headline(title, [more], begun=session.greeted)


def _worst(session: Session, size: Size, deadline: float) -> str:
    off = f"powers itself off at {words.clock(deadline, time.time())}"
    if size.price == 0:
        return f"{off}, whatever happens here"
    hours = max(deadline - time.time(), 0) / 3600
    worst = words.money(None if size.price is None else size.price * hours)
    if not session.provider.off_is_free:
        return f"{worst} until then: {off}, but is billed until it is removed"
    return f"at most {worst}: {off}, whatever happens here"


def _price(size: Size, priced: str) -> str:
    """Write a size's price an hour, of which moment it is, and what spot saves."""
    if size.price is None or size.price == 0:
        return words.rate(size.price)
    text = f"{words.rate(size.price)} {priced}"
    if not size.spot:
        return text
    text = f"spot {text}"
    if size.on_demand:
        saved = 100 * (1 - size.price / size.on_demand)
        text += f"  (on demand {words.money(size.on_demand)}, -{saved:.0f} %)"
    return text
