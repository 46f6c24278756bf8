"""
The tags of droplets and snapshots: ownership, and what DigitalOcean does not record.

A tag is one word of `a-z 0-9 - _ :`. Its case is that of the first person who used
it, so values are written in small letters and read in any case.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import replace

from onebox.errors import ProviderError
from onebox.providers.kernel import metadata as kernel
from onebox.providers.kernel.alphabet import Alphabet
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import Image, Offer, Request, Tags

PREFIX = "onebox-"
MANAGED = f"{PREFIX}managed"
IMAGE = f"{PREFIX}image:"
LONGEST = 255
# The longest key of a pair takes 21 of a tag's 255 characters.
ALPHABET = Alphabet(string.ascii_lowercase + string.digits + "-", "_", 233)

# The droplet itself has the other values, and each tag takes a call to delete.
_STORED = (
    *("owner", "project", "name", "kind", "box", "expires", "version"),
    *("size", "bootstrap-key", "hostkey", "price", "on-demand", "image"),
)


def tag(key: str, value: str) -> str:
    """Return the tag that stores a pair."""
    return f"{PREFIX}{key}:{escape(value)}"


def escape(value: str) -> str:
    """
    Return a text in the characters of a tag.

    >>> escape("0.1"), escape("Ob-1")
    ('0_2e1', '_4fb-1')
    """
    return ALPHABET.encode(value)


def unescape(text: str) -> str:
    """Return the text that `escape` encoded."""
    return ALPHABET.decode(text)


def of_box(request: Request) -> list[str]:
    """Return the tags of the droplet that a request creates."""
    box = BoxMetadata.of_request(request).with_deadline(request.boot_config.deadline)
    # With its comment, the key could be too long for a tag.
    host_key = kernel.without_comment(box.host_key)
    stored = replace(box, host_key=host_key).to_pairs()
    return [MANAGED, *(tag(key, stored[key]) for key in _STORED if key in stored)]


def read(words: Iterable[str]) -> BoxMetadata | None:
    """Return the metadata in a droplet's tags, None if it is not onebox's."""
    pairs: dict[str, str] = {}
    for word in words:
        key, _, value = word.lower().partition(":")
        if not key.startswith(PREFIX):
            continue
        key, value = key[len(PREFIX) :], unescape(value)
        if key == "expires" and key in pairs:
            # A start was interrupted after it had set the new deadline.
            value = max(value, pairs[key], key=lambda text: kernel.number(text) or 0.0)
        elif key in pairs:
            continue
        pairs[key] = value
    if MANAGED[len(PREFIX) :] in pairs:
        pairs["managed"] = "1"
    if "expires" not in pairs:
        return None
    return BoxMetadata.from_pairs(pairs)


def of_image(image: Image) -> str:
    """
    Return the one tag that makes a snapshot an image of onebox.

    It is a single tag, so the image is never half marked.
    """
    tags = image.tags
    parts = (
        tags.owner,
        tags.project,
        tags.name,
        image.id,
        image.recipe,
        image.name,
        tags.version,
        repr(tags.expires),
        image.base,
    )
    text = IMAGE + ":".join(escape(part) for part in parts)
    if len(text) > LONGEST:
        raise ProviderError(
            f"the names of image {image.name} are too long for a tag of DigitalOcean",
            next="a shorter project or image name",
        )
    return text


def read_image(words: Iterable[str]) -> Image | None:
    """Return the image that a snapshot's tags describe, None if it is not onebox's."""
    for word in words:
        parts = word.lower().split(":")
        if parts[0] + ":" == IMAGE and len(parts) == 10:
            owner, project, name, id, recipe, label, version, expires, base = (
                unescape(part) for part in parts[1:]
            )
            moment = kernel.number(expires) or 0.0
            tags = Tags(owner, project, name, moment, version, kind="image")
            return Image(id, label, recipe, 0.0, 0, "x86_64", tags, base=base)
    return None


def with_stored_price(stored: BoxMetadata, offer: Offer) -> Offer:
    """Return a droplet's offer with the name and the prices of its creation."""
    return replace(
        offer,
        name=stored.offer.name or offer.type,
        price=stored.offer.price,
        on_demand=stored.offer.on_demand,
    )
