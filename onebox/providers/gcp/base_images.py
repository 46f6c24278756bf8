"""Find the image that a box's disk is created from: a public or a saved image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from onebox.errors import UsageError
from onebox.providers.gcp import images, metadata
from onebox.providers.gcp.client import Cloud
from onebox.providers.values import Request

DEFAULT = "ubuntu-24.04"
_UBUNTU = re.compile(r"ubuntu-([0-9]{2})\.?(04|10)")
_DEBIAN = re.compile(r"debian-([0-9]{2})")
_KNOWN = "ubuntu-24.04, ubuntu-22.04, debian-12 or debian-13"


@dataclass(frozen=True)
class ImageFamily:
    """
    A public image family of Google.

    If *cloud_init* is true, its images contain cloud-init, which reads user data.
    Otherwise they run a startup script.
    """

    project: str
    name: str
    cloud_init: bool

    @property
    def address(self) -> str:
        """Return the API path that stands for the newest image of the family."""
        return f"projects/{self.project}/global/images/family/{self.name}"


@dataclass(frozen=True)
class Source:
    """
    An image that a box's disk is created from.

    *address* is the path of the image. *system* is the base name from which the image
    was built, "" if it is unknown. *cloud_init* tells whether the image contains
    cloud-init. *size* is the least size of the disk in GiB.
    """

    address: str
    system: str
    cloud_init: bool
    size: int = 0


def family(name: str, arch: str = "") -> ImageFamily | None:
    """Return the image family for a base name, None if *name* is not a base name."""
    name = name or DEFAULT
    arm = arch in ("aarch64", "arm64")
    ubuntu, debian = _UBUNTU.fullmatch(name), _DEBIAN.fullmatch(name)
    if ubuntu:
        year, month = ubuntu.groups()
        lts = "-lts" if month == "04" and int(year) % 2 == 0 else ""
        # The names of amd64 families have a suffix only since 24.04.
        suffix = "-arm64" if arm else "-amd64" if int(year) >= 24 else ""
        return ImageFamily(
            "ubuntu-os-cloud", f"ubuntu-{year}{month}{lts}{suffix}", True
        )
    if debian:
        suffix = "-arm64" if arm else ""
        return ImageFamily("debian-cloud", f"debian-{debian[1]}{suffix}", False)
    return None


def exactly(cloud: Cloud, name: str, arch: str) -> str:
    """
    Return the image that a base name stands for now, as "project/name".

    *name* may also be the name or the address of an image.

    Raises:
        UsageError: *name* is neither a base name nor an image.
    """
    found = family(name, arch)
    if found is None:
        image = _image(cloud, name)
        return f"{images.project_of(cloud, name)}/{image.name}"
    image = cloud.ask_named(
        "images",
        "get_from_family",
        f"looking for {found.name}",
        project=found.project,
        family=found.name,
    )
    return f"{found.project}/{image.name}"


def source(cloud: Cloud, request: Request) -> Source:
    """Return the image for a box's disk. Raises UsageError if it does not exist."""
    if request.image is not None:
        return _of(cloud, request.image.id, images.get(cloud, request.image.id))
    found = family(request.base, request.offer.arch)
    if found is None:
        return _of(cloud, request.base, _image(cloud, request.base))
    return Source(found.address, request.base or DEFAULT, found.cloud_init)


def _image(cloud: Cloud, name: str) -> Any:
    try:
        return images.get(cloud, name)
    except UsageError as error:
        raise UsageError(
            f"Google Cloud has no base and no image {name!r}",
            next=f"[image] base: {_KNOWN}; or [image] use, an image's address",
        ) from error


def _of(cloud: Cloud, name: str, image: Any) -> Source:
    """
    Return *image*, a resource of the API, as a `Source`.

    Only images of Debian count as images without cloud-init.
    """
    system = str(metadata.read_record(image.description).get("system", ""))
    known = " ".join([system or f"{image.family} {image.name}", *image.licenses])
    return Source(
        images.address(cloud, name),
        system,
        "debian" not in known,
        int(image.disk_size_gb),
    )


def packer_source(base: str) -> dict[str, Any]:
    """
    Return the variables of a Packer template for an image that `exactly` returned.

    >>> packer_source("debian-cloud/debian-12-v1")
    {'source_image': 'debian-12-v1', 'source_image_project_id': ['debian-cloud']}
    """
    project, slash, name = base.partition("/")
    if not slash:
        return {"source_image": base}
    return {"source_image": name, "source_image_project_id": [project]}
