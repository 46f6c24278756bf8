"""The calls that add tags to droplets and images, and remove unused tags."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

from onebox.errors import Gone, NotAllowed, ProviderError, Throttled, Unclear
from onebox.providers.digitalocean.client import Answer, Calls

Kind = Literal["droplet", "image"]


def ensure(calls: Calls, word: str) -> None:
    """Create a tag; the API may refuse one that exists, which is no error."""
    try:
        calls.post("tags", {"name": word}, again=True)
    except (NotAllowed, Throttled, Unclear):
        raise
    except ProviderError as error:
        with suppress(Gone):
            calls.get(f"tags/{word}")
            return
        raise error


def put_on(calls: Calls, word: str, kind: Kind, number: int | str) -> None:
    """Tag a droplet or an image; it may have the tag already."""
    ensure(calls, word)
    calls.post(f"tags/{word}/resources", _resource(kind, number), again=True)


def take_off(calls: Calls, word: str, kind: Kind, number: int | str) -> None:
    """Remove a tag from a droplet or an image; it may be removed already."""
    with suppress(Gone):
        calls.delete(f"tags/{word}/resources", _resource(kind, number))


def forget(calls: Calls, words: Iterable[str]) -> None:
    """Delete tags that no object has any more, if the token permits it."""
    for word in words:
        # A tag that stays is free.
        with suppress(ProviderError):
            if calls.get(f"tags/{word}")["tag"]["resources"]["count"] == 0:
                calls.delete(f"tags/{word}")


def is_there(calls: Calls, word: str) -> bool:
    """Return whether a tag exists."""
    with suppress(Gone):
        calls.get(f"tags/{word}")
        return True
    return False


def _resource(kind: Kind, number: int | str) -> Answer:
    return {"resources": [{"resource_id": str(number), "resource_type": kind}]}
