"""
The labels and the record of Google Cloud objects: ownership and box metadata.

A label holds up to 63 of `a-z 0-9 - _`, too few for many names. So an instance
(in a metadata item) and an image (in its description) also keep all pairs in full,
as a JSON record. Labels can only be changed by people of the project, so a pair of
the record counts only if it agrees with its label.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping

from onebox.providers.kernel import metadata as kernel
from onebox.providers.kernel.alphabet import Alphabet
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import Image, Tags

RECORD = "onebox"
PREFIX = "onebox-"
EXPIRES = f"{PREFIX}expires"
ALPHABET = Alphabet(string.ascii_lowercase + string.digits + "-", "_", 63, True)
# The pairs that are labels too; a record alone proves none of them.
_LABELLED = ("managed", "owner", "project", "name", "kind", "version", "box")


def encoded(text: str) -> str:
    """Return a text as the value of a label; different texts stay different."""
    return ALPHABET.encode(text)


def decoded(label: str) -> str:
    """Return the text in a label, or its beginning if the text was too long."""
    return ALPHABET.decode(label)


def labels(box: str, tags: Tags) -> dict[str, str]:
    """Return all labels of an object that belongs to this box."""
    return {
        **_identity(box, tags),
        f"{PREFIX}version": encoded(tags.version),
        # Whole seconds, because a label cannot hold a full stop.
        EXPIRES: str(int(tags.expires)),
    }


def is_owned(found: Mapping[str, str], box: str, tags: Tags) -> bool:
    """Return whether labels are those of this box of this owner."""
    return kernel.is_owned(found, _identity(box, tags))


def pairs(labels: Mapping[str, str], record: Mapping[str, str]) -> dict[str, str]:
    """Return an object's pairs: those of its record, corrected by its labels."""
    found = dict(record)
    for key in _LABELLED:
        label = labels.get(f"{PREFIX}{key}")
        if label is None:
            found.pop(key, None)
        elif key not in found or encoded(found[key]) != label:
            found[key] = decoded(label)
    found.setdefault("expires", labels.get(EXPIRES, ""))
    return found


def read(labels: Mapping[str, str], record: Mapping[str, str]) -> BoxMetadata | None:
    """Return the metadata of a box, None if the object is not onebox's."""
    return BoxMetadata.from_pairs(pairs(labels, record))


def read_tags(labels: Mapping[str, str], record: Mapping[str, str]) -> Tags | None:
    """Return whose an object is, None if it is not onebox's."""
    return kernel.read_tags(pairs(labels, record))


def box_record(metadata: BoxMetadata) -> str:
    """Return the record of a box's instance."""
    return json.dumps(metadata.to_pairs(), sort_keys=True)


def image_record(image: Image, system: str) -> str:
    """Return the record of an image; *system* names the image it began with."""
    return json.dumps({**kernel.image_pairs(image), "system": system}, sort_keys=True)


def read_record(text: str) -> dict[str, str]:
    """Return the pairs of a record, none if it is not one of onebox's."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def owner_filter(owner: str) -> str:
    """Return the filter that lists the objects of one owner."""
    mine = f'labels.onebox-owner = "{encoded(owner)}"'
    return f'(labels.onebox-managed = "1") AND ({mine})'


def _identity(box: str, tags: Tags) -> dict[str, str]:
    pairs = kernel.identity(tags, box).items()
    return {f"{PREFIX}{key}": encoded(value) for key, value in pairs}
