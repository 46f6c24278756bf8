"""Delete a box, and list what is left of it."""

from __future__ import annotations

from contextlib import suppress

from onebox.errors import Gone, NotAllowed, Unclear
from onebox.providers.digitalocean import images, metadata, network, prices, tag_api
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.instances import Droplets, check_all, read_offer
from onebox.providers.kernel.clock import CLOSE_SECONDS
from onebox.providers.kernel.errors import Pending
from onebox.providers.values import Box, Leftover


def delete(cloud: Cloud, droplets: Droplets, box: Box) -> None:
    """
    Delete all droplets of a box, and everything that belongs to the box.

    Snapshots without an image tag are deleted before the droplets, because a later
    command finds the box only by its droplet. A crash after both leaves nothing that is
    billed.

    Raises:
        NotAllowed: A droplet with this box id carries the tags of another box; nothing
            was touched.

        Unclear: The droplets still exist after the time limit.
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
    """Return everything of a box that still exists, with its price in USD an hour."""
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
    """Delete a droplet as soon as it is not busy; it is no error if it is gone."""
    with suppress(Gone):
        cloud.poller.until_free(
            lambda: cloud.delete(f"droplets/{number}"),
            cloud.timeouts.deletion,
            lambda error: isinstance(error, Pending),
        )


def _found(cloud: Cloud, droplets: Droplets, box: Box) -> list[Answer]:
    """
    Return the droplets of a box.

    If the box is new and no droplet shows, wait for as long as the lists may lag
    behind.
    """
    found = droplets.of_box(box.id)
    # The margin allows for times in whole seconds, and for small errors of the clock.
    limit = cloud.timeouts.consistency_lag + CLOSE_SECONDS + 1
    fresh = cloud.clock() - box.created < limit
    if found or not fresh or droplets.has_seen(box.id):
        return found
    shown = cloud.poller.until(
        lambda: droplets.of_box(box.id), cloud.timeouts.consistency_lag
    )
    return shown or []


def _wait_until_saved(cloud: Cloud, number: int) -> None:
    """
    Wait until no snapshot of the droplet is being created.

    A command that was killed may have begun one. If it completed after the deletion, it
    would stay and be billed.
    """

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
        # The token lacks the scope to list volumes. onebox itself creates no volumes,
        # so none are missed.
        return []
    return [
        volume
        for volume in volumes
        if tag in {str(one).lower() for one in volume.get("tags") or []}
    ]
