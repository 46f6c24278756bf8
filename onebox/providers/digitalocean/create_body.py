"""Write the body of the create call, and check the disk of a machine type."""

from __future__ import annotations

from onebox.errors import NoCapacity
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.client import Answer
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.values import Request


def body(
    request: Request,
    settings: DigitalOceanSettings,
    image: str | int,
    key: str,
    user_data: str,
) -> Answer:
    """
    Return the body of the create call, with the boot program in its user data.

    Args:
        key: The fingerprint of an ssh key in the account.
    """
    fields: Answer = {
        "name": request.box,
        "region": request.offer.place or settings.all_regions[0],
        "size": request.offer.type,
        "image": image,
        "tags": [*metadata.of_box(request), *metadata.of_user(settings.tags)],
        "user_data": user_data,
        # Without a key, DigitalOcean would mail a root password to the user.
        "ssh_keys": [key],
        "backups": False,
        "ipv6": False,
        "monitoring": False,
        # With True, DigitalOcean would install the agent of its web console.
        "with_droplet_agent": False,
    }
    if settings.private:
        fields["public_networking"] = False
    if settings.vpc:
        fields["vpc_uuid"] = settings.vpc
    return fields


def check_disk(request: Request, disk: int | None, least: int) -> None:
    """
    Check that the disk of the offered machine type is large enough for the box.

    Args:
        disk: The disk of the machine type in GB, None if the type does not exist any
            more.

        least: The smallest disk in GB that the image fits on.

    Raises:
        NoCapacity: The disk is too small, or the machine type does not exist any more.
            Another type may fit.
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
