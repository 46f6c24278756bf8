"""Delete a box, and list what is left of it."""

from __future__ import annotations

from contextlib import suppress

from onebox.errors import Gone, NotAllowed, Unclear
from onebox.providers.digitalocean import images, metadata, network, prices, tag_api
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.errors import Pending
from onebox.providers.digitalocean.instances import Droplets, check_all, read_offer
from onebox.providers.kernel.clock import CLOSE_SECONDS
from onebox.providers.values import Box, Leftover


def delete(cloud: Cloud, droplets: Droplets, box: Box) -> None:
    """
    Delete the droplets of a box, duplicates too, and everything that belongs to them.

    A box is found by its droplet. So the snapshots go first and the droplet second:
    a crash after that leaves nothing that is billed.

    Raises:
        NotAllowed: One droplet carries other tags; nothing was touched.

        Unclear: The droplets still exist.
    """
    found = _found(cloud, droplets, box)
    check_all(found, box.id, box.tags)
    for droplet in found:
        _wait_until_saved(cloud, int(droplet["id"]))
    images.remove_half_made(cloud, box.id)
    own: set[str] = set()
    for droplet in found:
        own.update(str(tag).lower() for tag in droplet["tags"])
        destroy(cloud, int(droplet["id"]))
    _wait_until_gone(cloud, droplets, box.id)
    network.remove(cloud, box.id)
    for volume in _volumes(cloud, box.id):
        with suppress(Gone):
            cloud.delete(f"volumes/{volume['id']}")
    keys = ("box", "expires", "bootstrap-key", "hostkey", "image")
    prefixes = tuple(f"onebox-{key}:" for key in keys)
    tag_api.delete_unused(cloud, sorted(tag for tag in own if tag.startswith(prefixes)))


def leftovers(cloud: Cloud, droplets: Droplets, box: str) -> list[Leftover]:
    """Return what still exists of a box, each with its price an hour."""
    rows = [
        *(
            ("droplet", one, read_offer(one.get("size") or {}, one, "").price)
            for one in droplets.of_box(box)
        ),
        *(("firewall", one, 0.0) for one in network.of_box(cloud, box)),
        *(("volume", one, prices.volume(one)) for one in _volumes(cloud, box)),
        *(
            ("snapshot", one, prices.snapshot(one))
            for one in images.half_made(cloud, box)
        ),
    ]
    return [Leftover(kind, str(one["id"]), price) for kind, one, price in rows]


def destroy(cloud: Cloud, number: int) -> None:
    """Delete a droplet once it is not busy; a droplet that is gone is no error."""
    with suppress(Gone):
        cloud.poller.until_free(
            lambda: cloud.delete(f"droplets/{number}"),
            cloud.timeouts.deletion,
            lambda error: isinstance(error, Pending),
        )


def _found(cloud: Cloud, droplets: Droplets, box: Box) -> list[Answer]:
    """Return the droplets of a box; a new one may not show in the lists at once."""
    found = droplets.of_box(box.id)
    # Times are in whole seconds, and small errors of this machine's clock are ignored.
    limit = cloud.timeouts.consistency_lag + CLOSE_SECONDS + 1
    fresh = cloud.clock() - box.created < limit
    if found or not fresh or droplets.has_seen(box.id):
        return found
    shown = cloud.poller.until(
        lambda: droplets.of_box(box.id), cloud.timeouts.consistency_lag
    )
    return shown or []


def _wait_until_saved(cloud: Cloud, number: int) -> None:
    """Wait for a snapshot that a killed command has begun: it would stay, and cost."""

    def is_idle() -> bool:
        actions = cloud.all(f"droplets/{number}/actions", "actions")
        saving = [one for one in actions if one.get("type") == "snapshot"]
        return all(one.get("status") != "in-progress" for one in saving)

    with suppress(Gone):
        cloud.poller.until(is_idle, cloud.timeouts.deletion)


def _wait_until_gone(cloud: Cloud, droplets: Droplets, box: str) -> None:
    seconds = cloud.timeouts.deletion
    if not cloud.poller.until(lambda: not droplets.of_box(box), seconds):
        raise Unclear(
            f"droplets of {box} still exist {seconds:.0f} s after their deletion",
            next="inv teardown again, then inv sweep",
        )


def _volumes(cloud: Cloud, box: str) -> list[Answer]:
    tag = metadata.tag("box", box)
    try:
        volumes = cloud.all("volumes", "volumes")
    except NotAllowed:
        # onebox creates none itself, so a token without that scope hides nothing.
        return []
    return [
        volume
        for volume in volumes
        if tag in {str(one).lower() for one in volume.get("tags") or []}
    ]
