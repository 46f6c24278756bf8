"""Find the DigitalOcean images that base names such as "ubuntu-24.04" stand for."""

from __future__ import annotations

from onebox.errors import Gone, ProviderError, UsageError
from onebox.providers.digitalocean.client import Cloud

# This maps each base name that onebox.toml may use to DigitalOcean's name of the image.
_BASES = {
    "ubuntu-24.04": "ubuntu-24-04-x64",
    "ubuntu-22.04": "ubuntu-22-04-x64",
    "debian-12": "debian-12-x64",
    "debian-13": "debian-13-x64",
}
DEFAULT = "ubuntu-24.04"


def slug(name: str) -> str:
    """
    Return DigitalOcean's name for the image that a base name stands for.

    Args:
        name: The base name, or what `Provider.base` has returned for it, or "" for the
            default.

    Raises:
        UsageError: The base name is unknown.
    """
    # `Provider.base` returns DigitalOcean's name, a space and the image's number. The
    # number is ignored here.
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
    """Return the slug and the number of a base image: "ubuntu-24-04-x64 12345"."""
    found = slug(name)
    try:
        image = cloud.get(f"images/{found}")["image"]
    except Gone as error:
        raise ProviderError(
            f"DigitalOcean has no image {found} any more", next="another [image] base"
        ) from error
    return f"{found} {image['id']}"
