"""
Write and read the tags of droplets and snapshots: ownership and box metadata.

A tag is one word of `a-z 0-9 - _ :`. If the same tag was first created with capital
letters, DigitalOcean shows it with them. So onebox writes tags in small letters, and
ignores the case when it reads them.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
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
# A tag has up to 255 characters. The prefix, the longest key and the colon need 21 of
# them, and a value gets at most 233.
ALPHABET = Alphabet(string.ascii_lowercase + string.digits + "-", "_", 233)

# Only these pairs become tags. The other values are read from the droplet itself, and
# each additional tag would take one more call to delete.
_STORED = (
    *("owner", "project", "name", "kind", "box", "expires", "version"),
    *("size", "bootstrap-key", "hostkey", "price", "on-demand", "image"),
)


def tag(key: str, value: str) -> str:
    """Return the tag that stores *value* under *key*."""
    return f"{PREFIX}{key}:{escape(value)}"


def escape(value: str) -> str:
    """
    Return a text encoded with the characters that a tag may have.

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
    # The comment of the host key is left out, because with it the key could be too long
    # for a tag.
    host_key = kernel.without_comment(box.host_key)
    stored = replace(box, host_key=host_key).to_pairs()
    return [MANAGED, *(tag(key, stored[key]) for key in _STORED if key in stored)]


def of_user(tags: Mapping[str, str]) -> list[str]:
    """
    Return the tags of the user as DigitalOcean has them.

    >>> of_user({"team": "blue", "nightly": ""})
    ['team:blue', 'nightly']
    """
    return [f"{key}:{value}" if value else key for key, value in tags.items()]


def pairs_of(words: Iterable[str]) -> dict[str, str]:
    """Return the pairs that an object's tags, *words*, store."""
    pairs: dict[str, str] = {}
    for word in words:
        key, _, value = word.lower().partition(":")
        if not key.startswith(PREFIX):
            continue
        key, value = key[len(PREFIX) :], unescape(value)
        if key == "expires" and key in pairs:
            # A droplet has two tags for the deadline if a start was interrupted after
            # it had added the new one. The later deadline counts.
            value = max(value, pairs[key], key=lambda text: kernel.number(text) or 0.0)
        elif key in pairs:
            continue
        pairs[key] = value
    if MANAGED[len(PREFIX) :] in pairs:
        pairs["managed"] = "1"
    return pairs


def read(words: Iterable[str]) -> BoxMetadata | None:
    """Return the metadata in a droplet's tags, None if it does not belong to onebox."""
    pairs = pairs_of(words)
    return BoxMetadata.from_pairs(pairs) if "expires" in pairs else None


def of_image(image: Image) -> str:
    """
    Return the one tag that makes a snapshot an image of onebox.

    All values are in a single tag, so a crash cannot leave an image with only some of
    them.
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
        repr(tags.deadline),
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
    """Return the image that a snapshot's tags describe, None if they describe none."""
    for word in words:
        parts = word.lower().split(":")
        if parts[0] + ":" == IMAGE and len(parts) == 10:
            owner, project, name, id, recipe, label, version, deadline, base = (
                unescape(part) for part in parts[1:]
            )
            until = kernel.number(deadline) or 0.0
            tags = Tags(owner, project, name, until, version, kind="image")
            return Image(id, label, recipe, 0.0, 0, "x86_64", tags, base=base)
    return None


def with_stored_price(stored: BoxMetadata, offer: Offer) -> Offer:
    """
    Return *offer* with the name and the prices in *stored*.

    *offer* comes from a present answer of the API. *stored* was written when the
    droplet was created.
    """
    return replace(
        offer,
        name=stored.offer.name or offer.type,
        machine_price=stored.offer.machine_price,
        machine_on_demand=stored.offer.machine_on_demand,
    )
