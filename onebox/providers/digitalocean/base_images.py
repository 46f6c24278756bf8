"""The DigitalOcean images that base names such as "ubuntu-24.04" stand for."""

from __future__ import annotations

from onebox.errors import Gone, ProviderError, UsageError
from onebox.providers.digitalocean.client import Cloud

# DigitalOcean's names for the environments of onebox.toml.
_BASES = {
    "ubuntu-24.04": "ubuntu-24-04-x64",
    "ubuntu-22.04": "ubuntu-22-04-x64",
    "debian-12": "debian-12-x64",
    "debian-13": "debian-13-x64",
}
DEFAULT = "ubuntu-24.04"


def slug(name: str) -> str:
    """
    Return DigitalOcean's name for an environment.

    Args:
        name: The environment's name, or what `Provider.base` has returned for it.

    Raises:
        UsageError: There is no such environment.
    """
    # `Provider.base` adds the number of the image.
    name = name.split(" ")[0] or DEFAULT
    if name in _BASES.values():
        return name
    if name not in _BASES:
        raise UsageError(
            f"DigitalOcean has no environment {name!r} that boxes can start from",
            next=f"[image] base = one of: {', '.join(_BASES)}",
        )
    return _BASES[name]


def exactly(cloud: Cloud, name: str) -> str:
    """Return DigitalOcean's name for a base image, and the image's number."""
    found = slug(name)
    try:
        image = cloud.get(f"images/{found}")["image"]
    except Gone as error:
        raise ProviderError(
            f"DigitalOcean has no image {found} any more", next="another [image] base"
        ) from error
    return f"{found} {image['id']}"
