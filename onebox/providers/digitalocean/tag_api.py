"""Create tags, add them to droplets and images, and remove them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

from onebox.errors import Gone, NotAllowed, ProviderError, Throttled, Unclear
from onebox.providers.digitalocean.client import Answer, Cloud

Kind = Literal["droplet", "image"]


def ensure(cloud: Cloud, word: str) -> None:
    """Create a tag; it is no error if the tag exists already."""
    try:
        cloud.post("tags", {"name": word})
    except (NotAllowed, Throttled, Unclear):
        raise
    except ProviderError as error:
        with suppress(Gone):
            cloud.get(f"tags/{word}")
            return
        raise error


def add(cloud: Cloud, word: str, kind: Kind, number: int | str) -> None:
    """Tag a droplet or an image; it is no error if it has the tag already."""
    ensure(cloud, word)
    cloud.post(f"tags/{word}/resources", _resource(kind, number))


def remove(cloud: Cloud, word: str, kind: Kind, number: int | str) -> None:
    """Remove a tag from a droplet or an image; a tag that is gone is no error."""
    with suppress(Gone):
        cloud.delete(f"tags/{word}/resources", _resource(kind, number))


def delete_unused(cloud: Cloud, words: Iterable[str]) -> None:
    """Delete each of these tags that no object has any more; ignore failures."""
    for word in words:
        # A failure is ignored, because a tag that stays costs nothing.
        with suppress(ProviderError):
            if cloud.get(f"tags/{word}")["tag"]["resources"]["count"] == 0:
                cloud.delete(f"tags/{word}")


def exists(cloud: Cloud, word: str) -> bool:
    """Return whether a tag exists."""
    with suppress(Gone):
        cloud.get(f"tags/{word}")
        return True
    return False


def _resource(kind: Kind, number: int | str) -> Answer:
    return {"resources": [{"resource_id": str(number), "resource_type": kind}]}
