"""Create exactly one droplet, even if the response to the create call is lost."""

from __future__ import annotations

from contextlib import suppress

from onebox.errors import NoCapacity, ProviderError, Unclear
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.deadline import deadline_at_boot
from onebox.providers.digitalocean.deletion import destroy
from onebox.providers.digitalocean.errors import Failed
from onebox.providers.digitalocean.instances import Droplets, check_all
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.kernel.user_data import user_data
from onebox.providers.values import Request

LARGEST_USER_DATA = 64 << 10


def body(
    request: Request, settings: DigitalOceanSettings, image: str | int, key: str
) -> Answer:
    """
    Return the body of the create call, with the boot program in its user data.

    Args:
        key: The fingerprint of an ssh key in the account.
    """
    script = user_data(request, notice="", until=deadline_at_boot(request))
    if len(script) > LARGEST_USER_DATA:
        raise ProviderError(f"user data of {len(script)} bytes is too large")
    fields: Answer = {
        "name": request.box,
        "region": request.offer.place or settings.all_regions[0],
        "size": request.offer.type,
        "image": image,
        "tags": metadata.of_box(request),
        "user_data": script.decode("ascii"),
        # Without a key, DigitalOcean would mail a root password to the user.
        "ssh_keys": [key],
        "backups": False,
        "ipv6": False,
        "monitoring": False,
        # This would install the agent of DigitalOcean's web console.
        "with_droplet_agent": False,
    }
    if settings.private:
        fields["public_networking"] = False
    if settings.vpc:
        fields["vpc_uuid"] = settings.vpc
    return fields


def post(cloud: Cloud, droplets: Droplets, request: Request, body: Answer) -> Answer:
    """
    Create the droplet of this request, at most once, and return it.

    DigitalOcean has no idempotency tokens. If a call gets no response, the lists are
    searched for the tag of the box, for as long as they may lag behind. If no droplet
    shows, the call is repeated only if the API itself reported a failure. If the
    response was lost, it is not repeated, because the call may still take effect later.

    Raises:
        Unclear: The lists do not show the droplet, but it may appear later.
    """
    unclear: Exception | None = None
    for _ in range(cloud.timeouts.create_attempts):
        try:
            droplet: Answer = cloud.post("droplets", body)["droplet"]
            droplets.remember(request.box, droplet)
            if unclear is None:
                return droplet
            # The earlier call may have created a droplet too. The older droplet stays,
            # and the other one is deleted.
            return only_one(cloud, request, droplets.of_box(request.box))
        except (KeyError, Unclear) as error:
            unclear = error
        except ProviderError:
            found = droplets.of_box(request.box) if unclear is not None else []
            if not found:
                raise
            return only_one(cloud, request, found)
        shown = _look_for(cloud, droplets, request)
        if shown:
            return only_one(cloud, request, shown)
        if not isinstance(unclear, Failed):
            break
    raise Unclear(
        f"DigitalOcean did not report whether it created {request.box}, which does "
        f"not show after {cloud.timeouts.consistency_lag:.0f} s",
        next="inv status, in a minute; inv sweep finds it if it appears later",
    ) from unclear


def _look_for(
    cloud: Cloud, droplets: Droplets, request: Request
) -> list[Answer] | None:
    """
    Return the droplets of a box as soon as the lists show one.

    Return None if the lists show none for as long as they may lag behind.
    """

    def look() -> list[Answer] | None:
        with suppress(ProviderError):
            return droplets.of_box(request.box)
        return None

    return cloud.poller.until(look, cloud.timeouts.consistency_lag)


def only_one(cloud: Cloud, request: Request, found: list[Answer]) -> Answer:
    """Return the oldest droplet of a box, and delete its duplicates."""
    check_all(found, request.box, request.tags)
    for duplicate in found[1:]:
        destroy(cloud, int(duplicate["id"]))
    return found[0]


def check_disk(request: Request, disk: int | None, least: int) -> None:
    """
    Check that the disk of the offered size is large enough for the box.

    Args:
        disk: The disk of the size in GB, None if the size does not exist any more.

        least: The smallest disk in GB that the image fits on.

    Raises:
        NoCapacity: The disk is too small, or the size does not exist any more. Another
            size may fit.
    """
    if disk is None:
        raise NoCapacity(f"the size {request.offer.type} does not exist any more")
    if disk < least:
        raise NoCapacity(f"its disk of {disk} GB is too small: the image needs {least}")
    requested = (request.disk or 0) >> 30
    if disk < requested:
        raise NoCapacity(
            f"its disk has {disk} GB, not {requested}; on DigitalOcean the size "
            "determines the disk"
        )
