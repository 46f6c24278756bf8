"""Remove a box with all that was made for it, and prove it."""

from __future__ import annotations

import time
from contextlib import suppress

from onebox.errors import Gone, NotAllowed, Unclear
from onebox.providers.base import Box, Leftover
from onebox.providers.digitalocean import images, metadata, network, tag_api
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.errors import Pending
from onebox.providers.digitalocean.instances import Droplets, check_all, shape
from onebox.providers.digitalocean.settings import Timeouts

# What a month of a gigabyte on a volume costs, in USD.
VOLUME_PRICE = 0.10


def delete(calls: Calls, droplets: Droplets, patience: Timeouts, box: Box) -> None:
    """
    Remove the droplets of a box, its doubles too, and what was theirs.

    What costs goes first, and the droplet with it: by the droplet a box is known,
    so a crash in between leaves nothing behind it that costs and nobody finds.

    Raises:
        NotAllowed: One of them carries other tags; nothing was touched.

        Unclear: They are still there after all.
    """
    found = _found(calls, droplets, patience, box)
    check_all(found, box.id, box.tags)
    images.remove_half_made(calls, box.id)
    own: set[str] = set()
    for droplet in found:
        own.update(str(word).lower() for word in droplet["tags"])
        destroy(calls, patience, int(droplet["id"]))
    _see_gone(calls, droplets, patience, box.id)
    network.remove(calls, box.id)
    for volume in _volumes(calls, box.id):
        with suppress(Gone):
            calls.delete(f"volumes/{volume['id']}")
    keys = ("box", "expires", "bootstrap-key", "hostkey", "image")
    wanted = tuple(f"onebox-{key}:" for key in keys)
    tag_api.forget(calls, sorted(word for word in own if word.startswith(wanted)))


def leftovers(calls: Calls, droplets: Droplets, box: str) -> list[Leftover]:
    """Ask for everything that belonged to a box, each with its price an hour."""
    left = [
        Leftover(
            "droplet",
            str(one["id"]),
            shape(one.get("size") or {}, one, "").price,
        )
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


def destroy(calls: Calls, patience: Timeouts, number: int) -> None:
    """Remove one droplet, as soon as it is not busy with something else."""
    until = time.monotonic() + patience.gone
    while True:
        try:
            calls.delete(f"droplets/{number}")
            return
        except Gone:
            return
        except Pending:
            if time.monotonic() > until:
                raise
            calls.sleep(patience.look)


def _found(
    calls: Calls, droplets: Droplets, patience: Timeouts, box: Box
) -> list[Answer]:
    """Return the box's droplets; one that was just made may not show at once."""
    found = droplets.called(box.id)
    # Both times are whole seconds, and the clock of this machine may be wrong.
    fresh = calls.time() - box.created < patience.settle + 1
    until = time.monotonic() + patience.settle
    while fresh and not found and not droplets.known(box.id):
        if time.monotonic() > until:
            break
        calls.sleep(patience.look)
        found = droplets.called(box.id)
    return found


def _see_gone(calls: Calls, droplets: Droplets, patience: Timeouts, box: str) -> None:
    until = time.monotonic() + patience.gone
    while droplets.called(box):
        if time.monotonic() > until:
            raise Unclear(
                f"droplets of {box} are still there {patience.gone:.0f} s after their "
                "removal",
                next="inv teardown once more, then inv sweep",
            )
        calls.sleep(patience.look)


def _volumes(calls: Calls, box: str) -> list[Answer]:
    wanted = metadata.tag("box", box)
    try:
        listed = calls.all("volumes", "volumes")
    except NotAllowed:
        # onebox itself makes none, so a token without that scope hides nothing.
        return []
    return [
        one
        for one in listed
        if wanted in {str(word).lower() for word in one.get("tags") or []}
    ]
