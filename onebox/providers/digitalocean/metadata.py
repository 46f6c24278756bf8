"""
Write all that belongs to a box or an image into DigitalOcean's plain tags.

A tag there is one word of letters, digits, `-`, `_` and `:`, whose case is that
of whoever used it first. So values are written in small letters, and whatever
else there is as `_` and two hex digits a byte.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from onebox.errors import ProviderError
from onebox.providers.base import Image, Offer, Request, Tags

MANAGED = "onebox-managed"
IMAGE = "onebox-image:"
LONGEST = 255

_ESCAPED = re.compile(r"_([0-9a-f]{2})")
_KINDS = ("box", "builder", "image")
# "ssh-ed25519" and its length, the length of the key: what comes before its bytes.
_KEY_HEAD = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"


@dataclass(frozen=True)
class BoxMetadata:
    """
    What the tags of a droplet say.

    *bootstrap_key* is the host key that went through user data, *pinned* the one that
    has taken its place since.
    """

    box: str
    tags: Tags
    size: str
    price: float | None
    on_demand: float | None
    image: str
    bootstrap_key: str
    pinned: str


def tag(key: str, value: str) -> str:
    """Return the tag that says that *key* is *value*."""
    text = f"onebox-{key}:{escape(value)}"
    if len(text) > LONGEST:
        raise ProviderError(f"{key} {value!r} is too long for a tag of DigitalOcean")
    return text


def escape(value: str) -> str:
    """
    Write any text in the characters that a tag may have.

    >>> escape("0.1"), escape("Ob-1")
    ('0_2e1', '_4fb-1')
    """
    plain = re.compile(r"[a-z0-9-]")
    return "".join(
        c if plain.fullmatch(c) else "".join(f"_{b:02x}" for b in c.encode("utf-8"))
        for c in value
    )


def unescape(text: str) -> str:
    """Read what `escape` has written."""
    raw = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")


def of_box(request: Request) -> list[str]:
    """Return the tags that a droplet is made with."""
    tags, size = request.tags, request.offer
    said = {
        "owner": tags.owner,
        "project": tags.project,
        "name": tags.name,
        "kind": tags.kind,
        "box": request.box,
        "expires": repr(request.arming.deadline),
        "version": tags.version,
        "size": size.name,
        "exposed": key_bytes(request.host_key.public),
        "price": "" if size.price is None else repr(size.price),
        "on-demand": "" if size.on_demand is None else repr(size.on_demand),
        "image": request.image.id if request.image else "",
    }
    return [MANAGED, *(tag(key, value) for key, value in said.items() if value)]


def read(words: Iterable[str]) -> BoxMetadata | None:
    """Return what a droplet's tags say, None if it is none of ours."""
    said: dict[str, list[str]] = {}
    for word in words:
        key, colon, value = word.lower().partition(":")
        if colon and key.startswith("onebox-"):
            said.setdefault(key[len("onebox-") :], []).append(unescape(value))
    one = {key: values[0] for key, values in said.items()}
    kind, expires = one.get("kind", ""), said.get("expires", [])
    whole = ("owner", "project", "name", "box")
    if kind not in _KINDS or not expires or any(not one.get(key) for key in whole):
        return None
    tags = Tags(
        owner=one["owner"],
        project=one["project"],
        name=one["name"],
        # Two of them: a start was interrupted that had renewed it.
        expires=max(_number(text) or 0.0 for text in expires),
        version=one.get("version", ""),
        kind=kind,  # type: ignore[arg-type] # looked up in _KINDS
    )
    return BoxMetadata(
        box=one["box"],
        tags=tags,
        size=one.get("size", ""),
        price=_number(one.get("price", "")),
        on_demand=_number(one.get("on-demand", "")),
        image=one.get("image", ""),
        bootstrap_key=key_text(one.get("exposed", "")),
        pinned=key_text(one.get("hostkey", "")),
    )


def of_image(image: Image) -> str:
    """
    Return the one tag that makes a snapshot an image of ours.

    It is one, so that there is no moment at which half of it is there.
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
    """Return the image that a snapshot's tags tell of, None if it is none of ours."""
    for word in words:
        parts = word.lower().split(":")
        if parts[0] + ":" == IMAGE and len(parts) == 10:
            owner, project, name, id, recipe, label, version, expires, base = (
                unescape(part) for part in parts[1:]
            )
            tags = Tags(
                owner, project, name, _number(expires) or 0.0, version, kind="image"
            )
            return Image(id, label, recipe, 0.0, 0, "x86_64", tags, base=base)
    return None


def key_bytes(public: str) -> str:
    """Return an OpenSSH ed25519 public key as the hex digits of its 32 bytes."""
    words = public.split()
    try:
        blob = base64.b64decode(words[1]) if len(words) > 1 else b""
    except ValueError:
        blob = b""
    if not blob.startswith(_KEY_HEAD) or len(blob) != len(_KEY_HEAD) + 32:
        raise ProviderError(f"{public[:40]!r} is no ed25519 public key")
    return blob[len(_KEY_HEAD) :].hex()


def key_text(digits: str) -> str:
    """Return the OpenSSH public key of these hex digits, "" if they are none."""
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        return ""
    blob = _KEY_HEAD + bytes.fromhex(digits)
    return f"ssh-ed25519 {base64.b64encode(blob).decode('ascii')}"


def same_size(marks: BoxMetadata, size: Offer) -> Offer:
    """Return the size as the tags have it: its name and what it cost when made."""
    return replace(
        size, name=marks.size or size.type, price=marks.price, on_demand=marks.on_demand
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
