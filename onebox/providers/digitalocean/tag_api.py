"""Put tags on things and take them off again; leave none behind that means nothing."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

from onebox.errors import Gone, NotAllowed, ProviderError, Throttled, Unclear
from onebox.providers.digitalocean.client import Answer, Calls

Kind = Literal["droplet", "image"]


def ensure(calls: Calls, word: str) -> None:
    """Have a tag there; one that is there already may be refused, and is fine."""
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
    """Tag a droplet or an image; it may bear the tag already."""
    ensure(calls, word)
    calls.post(f"tags/{word}/resources", _resource(kind, number), again=True)


def take_off(calls: Calls, word: str, kind: Kind, number: int | str) -> None:
    """Untag a droplet or an image; it may have lost the tag already."""
    with suppress(Gone):
        calls.delete(f"tags/{word}/resources", _resource(kind, number))


def forget(calls: Calls, words: Iterable[str]) -> None:
    """Remove tags that nothing bears any more, as far as the token may."""
    for word in words:
        # One that stays costs nothing.
        with suppress(ProviderError):
            if calls.get(f"tags/{word}")["tag"]["resources"]["count"] == 0:
                calls.delete(f"tags/{word}")


def is_there(calls: Calls, word: str) -> bool:
    """Tell whether there is such a tag."""
    with suppress(Gone):
        calls.get(f"tags/{word}")
        return True
    return False


def _resource(kind: Kind, number: int | str) -> Answer:
    return {"resources": [{"resource_id": str(number), "resource_type": kind}]}
