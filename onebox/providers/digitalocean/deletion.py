"""Delete a box, and list what is left of it."""

from __future__ import annotations

from contextlib import suppress

from onebox.errors import Gone, NotAllowed, Unclear
from onebox.providers.base import Box, Leftover
from onebox.providers.digitalocean import images, metadata, network, tag_api
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.errors import Pending
from onebox.providers.digitalocean.instances import Droplets, check_all, shape

# The price of a volume, in USD per GB and month.
VOLUME_PRICE = 0.10


def delete(calls: Calls, droplets: Droplets, box: Box) -> None:
    """
    Delete the droplets of a box, its duplicates too, and everything that was theirs.

    A box is found by its droplet. So the snapshots go first and the droplet second:
    a crash after that leaves nothing that is billed.

    Raises:
        NotAllowed: One droplet carries other tags; nothing was touched.

        Unclear: The droplets still exist.
    """
    found = _found(calls, droplets, box)
    check_all(found, box.id, box.tags)
    images.remove_half_made(calls, box.id)
    own: set[str] = set()
    for droplet in found:
        own.update(str(tag).lower() for tag in droplet["tags"])
        destroy(calls, int(droplet["id"]))
    _wait_until_gone(calls, droplets, box.id)
    network.remove(calls, box.id)
    for volume in _volumes(calls, box.id):
        with suppress(Gone):
            calls.delete(f"volumes/{volume['id']}")
    keys = ("box", "expires", "bootstrap-key", "hostkey", "image")
    prefixes = tuple(f"onebox-{key}:" for key in keys)
    tag_api.forget(calls, sorted(tag for tag in own if tag.startswith(prefixes)))


def leftovers(calls: Calls, droplets: Droplets, box: str) -> list[Leftover]:
    """Return what still exists of a box, each with its price an hour."""
    left = [
        Leftover("droplet", str(one["id"]), shape(one.get("size") or {}, one, "").price)
        for one in droplets.called(box)
    ]
    left += [
        Leftover("firewall", str(one["id"]), 0.0) for one in network.of_box(calls, box)
    ]
    left += [
        Leftover(
            "volume",
            str(one["id"]),
            float(one.get("size_gigabytes") or 0) * VOLUME_PRICE / images.MONTH_HOURS,
        )
        for one in _volumes(calls, box)
    ]
    return left + [
        Leftover("snapshot", str(one["id"]), images.price(one))
        for one in images.half_made(calls, box)
    ]


def destroy(calls: Calls, number: int) -> None:
    """Delete one droplet, as soon as it is not busy; one that is gone is fine."""
    busy: list[Pending] = []

    def is_deleted() -> bool | None:
        try:
            calls.delete(f"droplets/{number}")
        except Gone:
            return True
        except Pending as error:
            busy.append(error)
            return None
        return True

    if calls.poller.until(is_deleted, calls.patience.gone) is None:
        raise busy[-1]


def _found(calls: Calls, droplets: Droplets, box: Box) -> list[Answer]:
    """Return the droplets of a box; a new one may not show in the lists at once."""
    found = droplets.called(box.id)
    # Both times are whole seconds, and the clock of this machine may be wrong.
    fresh = calls.time() - box.created < calls.patience.settle + 1
    if found or not fresh or droplets.known(box.id):
        return found
    shown = calls.poller.until(
        lambda: droplets.called(box.id) or None, calls.patience.settle
    )
    return shown or []


def _wait_until_gone(calls: Calls, droplets: Droplets, box: str) -> None:
    seconds = calls.patience.gone
    gone = calls.poller.until(lambda: not droplets.called(box) or None, seconds)
    if gone is None:
        raise Unclear(
            f"droplets of {box} still exist {seconds:.0f} s after their deletion",
            next="inv teardown again, then inv sweep",
        )


def _volumes(calls: Calls, box: str) -> list[Answer]:
    tag = metadata.tag("box", box)
    try:
        volumes = calls.all("volumes", "volumes")
    except NotAllowed:
        # onebox creates none itself, so a token without that scope hides nothing.
        return []
    return [
        volume
        for volume in volumes
        if tag in {str(one).lower() for one in volume.get("tags") or []}
    ]
