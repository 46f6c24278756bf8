"""Make a droplet: once, whatever becomes of the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from onebox.errors import NoCapacity, ProviderError, Unclear, UsageError
from onebox.providers.base import Request
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.deadline import deadline_at_boot
from onebox.providers.digitalocean.deletion import destroy
from onebox.providers.digitalocean.errors import Failed
from onebox.providers.digitalocean.instances import Droplets, check_all
from onebox.providers.digitalocean.settings import Settings, Timeouts
from onebox.providers.kernel.user_data import user_data

LARGEST_USER_DATA = 64 << 10

# What the environments of onebox.toml are called here.
_BASES = {
    "ubuntu-24.04": "ubuntu-24-04-x64",
    "ubuntu-22.04": "ubuntu-22-04-x64",
    "debian-12": "debian-12-x64",
    "debian-13": "debian-13-x64",
}
FIRST_BASE = "ubuntu-24.04"


def base_slug(name: str) -> str:
    """
    Return what DigitalOcean calls an environment.

    Raises:
        UsageError: It has none of this name.
    """
    # Also what `base` itself has answered, which says the image's number too.
    name = name.split(" ")[0] or FIRST_BASE
    if name in _BASES.values():
        return name
    if name not in _BASES:
        raise UsageError(
            f"DigitalOcean has no environment {name!r} that boxes can start from",
            next=f"[image] base = one of: {', '.join(_BASES)}",
        )
    return _BASES[name]


def body(request: Request, wishes: Settings, image: str | int, key: str) -> Answer:
    """
    Return what the create call says; everything that arms the box is in it.

    Args:
        key: The fingerprint of an ssh key of the account's.
    """
    told = user_data(request, notice="", until=deadline_at_boot(request))
    if len(told) > LARGEST_USER_DATA:
        raise ProviderError(f"user data of {len(told)} bytes is too large")
    said: Answer = {
        "name": request.box,
        "region": request.offer.place or wishes.all_regions[0],
        "size": request.offer.type,
        "image": image,
        "tags": metadata.of_box(request),
        "user_data": told.decode("ascii"),
        # Without one DigitalOcean mails a password for root.
        "ssh_keys": [key],
        "backups": False,
        "ipv6": False,
        "monitoring": False,
        # DigitalOcean's own way into the box by its web console.
        "with_droplet_agent": False,
    }
    if wishes.private:
        said["public_networking"] = False
    if wishes.vpc:
        said["vpc_uuid"] = wishes.vpc
    return said


def post(
    calls: Calls,
    droplets: Droplets,
    patience: Timeouts,
    request: Request,
    said: Answer,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """
    Send the create call and return the droplet that it has made: one at most.

    After an unclear answer the lists are asked for the box's own tag until the
    droplet is there, or would be there if it had been made. If it is not, the call
    is sent again where the API itself has said that it failed; nobody knows when a
    call whose answer was lost takes effect.

    Raises:
        Unclear: It does not show so far.
    """
    unclear: Exception | None = None
    for _ in range(patience.creates):
        try:
            droplet: Answer = calls.post("droplets", said)["droplet"]
            droplets.made(request.box, droplet)
            if unclear is None:
                return droplet
            # Should the earlier one have made one too, it is the older.
            return only_one(calls, patience, request, droplets.called(request.box))
        except (KeyError, Unclear) as error:
            unclear = error
        except ProviderError:
            found = droplets.called(request.box) if unclear is not None else []
            if not found:
                raise
            return only_one(calls, patience, request, found)
        found = _look_for(calls, droplets, patience, request, clock)
        if found:
            return only_one(calls, patience, request, found)
        if not isinstance(unclear, Failed):
            break
    raise Unclear(
        f"DigitalOcean did not say whether it made {request.box}, and "
        f"{patience.settle:.0f} s later it does not show",
        next="inv status, in a minute; inv sweep finds whatever comes of it",
    ) from unclear


def _look_for(
    calls: Calls,
    droplets: Droplets,
    patience: Timeouts,
    request: Request,
    clock: Callable[[], float],
) -> list[Answer]:
    """Return the box's droplets, once there are any, or none after their lag."""
    until = clock() + patience.settle
    while clock() < until:
        with suppress(ProviderError):
            found = droplets.called(request.box)
            if found:
                return found
        calls.sleep(patience.look)
    return []


def only_one(
    calls: Calls, patience: Timeouts, request: Request, found: list[Answer]
) -> Answer:
    """Return the first of a box's droplets, and remove its doubles."""
    check_all(found, request.box, request.tags)
    for double in found[1:]:
        destroy(calls, patience, int(double["id"]))
    return found[0]


def check_disk(request: Request, disk: int | None, least: int) -> None:
    """
    Raise if the size's disk is too small for the image, or for what was asked.

    Raises:
        NoCapacity: Another size may do.
    """
    if disk is None:
        raise NoCapacity(f"there is no size {request.offer.type} any more")
    if disk < least:
        raise NoCapacity(f"its disk of {disk} GB is too small: the image needs {least}")
    wanted = (request.disk or 0) >> 30
    if disk < wanted:
        raise NoCapacity(
            f"its disk has {disk} GB, not {wanted}; on DigitalOcean the disk comes "
            "with the size"
        )
