"""
Write whose an object is into its labels, and read it there again.

A label holds up to 63 of `a-z 0-9 - _`. Anything else is written as `_` and two
hexadecimal digits a byte; what gets too long ends in a hash, and is kept in full
in the object's own record (a metadata item of an instance, an image's
description), which is believed only as far as it agrees with the labels.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, cast

from onebox.providers.base import Tags

RECORD = "onebox"
EXPIRES = "onebox-expires"
_LONGEST = 63
_FIELDS = ("owner", "project", "name", "kind", "version")
# What a delete must find as it was.
_IDENTITY = ("owner", "project", "name")


def encoded(text: str) -> str:
    """Return a text as a label holds it: different texts stay different."""
    plain = "".join(
        chr(byte) if chr(byte) in _PLAIN else f"_{byte:02x}" for byte in text.encode()
    )
    if len(plain) <= _LONGEST:
        return plain
    return plain[:40] + "_h" + hashlib.sha256(text.encode()).hexdigest()[:20]


def decoded(label: str) -> str:
    """Return what a label says; the beginning of it, if that was too long."""
    whole = re.sub(
        rb"_([0-9a-f]{2})",
        lambda found: bytes([int(found[1], 16)]),
        label.partition("_h")[0].encode(),
    )
    return whole.decode(errors="replace")


def labels(box: str, tags: Tags) -> dict[str, str]:
    """Return all labels of an object that belongs to this box."""
    return {
        "onebox-managed": "1",
        "onebox-box": encoded(box),
        EXPIRES: str(int(tags.expires)),
        **{f"onebox-{name}": encoded(getattr(tags, name)) for name in _FIELDS},
    }


def belongs(found: Mapping[str, str], box: str, tags: Tags) -> bool:
    """Tell whether labels are those of this box: its id, owner, project and name."""
    wanted = labels(box, tags)
    names = ("managed", "box", *_IDENTITY)
    return all(found.get(f"onebox-{n}") == wanted[f"onebox-{n}"] for n in names)


def same(one: Tags, other: Tags) -> bool:
    """Tell whether two tags speak of the same box of the same owner."""
    return all(getattr(one, name) == getattr(other, name) for name in _IDENTITY)


def tags(found: Mapping[str, str], record: Mapping[str, Any]) -> Tags | None:
    """Return whose an object is, None if it is not one of onebox's."""
    if found.get("onebox-managed") != "1" or "onebox-owner" not in found:
        return None
    told = record.get("tags")
    told = told if isinstance(told, dict) else {}

    def one(name: str) -> str:
        label, full = found.get(f"onebox-{name}", ""), told.get(name)
        agrees = isinstance(full, str) and encoded(full) == label
        return str(full) if agrees else decoded(label)

    expires = told.get("expires")
    if not isinstance(expires, (int, float)):
        label = found.get(EXPIRES, "")
        expires = float(label) if label.isdigit() else 0.0
    kind = cast('Literal["box", "builder", "image"]', one("kind"))
    return Tags(
        owner=one("owner"),
        project=one("project"),
        name=one("name"),
        expires=float(expires),
        version=one("version"),
        kind=kind if kind in ("box", "builder", "image") else "box",
    )


def record(owner: Tags, **more: Any) -> str:
    """Return the text that keeps what labels cannot."""
    return json.dumps({"tags": asdict(owner), **more}, sort_keys=True)


def read_record(text: str) -> dict[str, Any]:
    """Return what a record says; nothing if it is not one of ours."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def owned_by(owner: str, *more: str) -> str:
    """Return the filter that lists what belongs to one owner."""
    parts = ['labels.onebox-managed = "1"', f'labels.onebox-owner = "{encoded(owner)}"']
    return " AND ".join(f"({part})" for part in (*parts, *more))


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
