"""Name the environments that Google's own images give, and what they understand."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import UsageError
from .cloud import Cloud

DEFAULT = "ubuntu-24.04"
_UBUNTU = re.compile(r"ubuntu-([0-9]{2})\.?(04|10)")
_DEBIAN = re.compile(r"debian-([0-9]{2})")


@dataclass(frozen=True)
class Base:
    """
    An image family of Google's.

    *cloud_init* says whether its images read user data; without, they run a
    startup script.
    """

    project: str
    family: str
    cloud_init: bool

    @property
    def source(self) -> str:
        """Return the address that stands for the family's newest image."""
        return f"projects/{self.project}/global/images/family/{self.family}"


def base(name: str, arch: str = "") -> Base:
    """
    Return the family of an environment's name, such as "ubuntu-24.04".

    Raises:
        UsageError: There is no such environment here.
    """
    name = name or DEFAULT
    arm = arch in ("aarch64", "arm64")
    ubuntu, debian = _UBUNTU.fullmatch(name), _DEBIAN.fullmatch(name)
    if ubuntu:
        year, month = ubuntu.groups()
        lts = "-lts" if month == "04" and int(year) % 2 == 0 else ""
        # Only since 24.04 does the family of amd64 say so.
        suffix = "-arm64" if arm else "-amd64" if int(year) >= 24 else ""
        return Base("ubuntu-os-cloud", f"ubuntu-{year}{month}{lts}{suffix}", True)
    if debian:
        suffix = "-arm64" if arm else ""
        return Base("debian-cloud", f"debian-{debian[1]}{suffix}", False)
    raise UsageError(
        f"Google Cloud has no environment {name!r}",
        next="[image] base: ubuntu-24.04, ubuntu-22.04, debian-12 or debian-13",
    )


def exactly(cloud: Cloud, name: str, arch: str) -> str:
    """Return the name of the image that the environment stands for today."""
    wanted = base(name, arch)
    found = cloud.ask_named(
        "images",
        "get_from_family",
        f"looking for {wanted.family}",
        project=wanted.project,
        family=wanted.family,
    )
    return f"{wanted.project}/{found.name}"
