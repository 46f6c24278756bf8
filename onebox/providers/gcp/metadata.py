"""
Write and read the labels and records of Google Cloud objects: owner, box, deadline.

A label holds up to 63 characters of `a-z 0-9 - _`, which is too short for many names.
So all key-value pairs are also stored in full, in a JSON record: an instance has it in
a metadata item, an image in its description. Only people of the project can change
labels. So if a pair of the record differs from its label, the label counts.
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
# The pairs with these keys are stored as labels too. If the label of such a pair is
# missing, the pair in the record is ignored.
_LABELLED = ("managed", "owner", "project", "name", "kind", "version", "box")


def encoded(text: str) -> str:
    """
    Return a text, encoded as a label's value. Different texts get different values.
    """
    return ALPHABET.encode(text)


def decoded(label: str) -> str:
    """
    Return the original text of a label.

    Return only the beginning of the text if the encoded form was cut short.
    """
    return ALPHABET.decode(label)


def labels(box: str, tags: Tags) -> dict[str, str]:
    """Return all labels to set on an object that belongs to this box."""
    return {
        **_identity(box, tags),
        f"{PREFIX}version": encoded(tags.version),
        # The time is in whole seconds, because a label cannot hold a decimal point.
        EXPIRES: str(int(tags.deadline)),
    }


def is_owned(found: Mapping[str, str], box: str, tags: Tags) -> bool:
    """Return whether the labels *found* name this box and its owner."""
    return kernel.is_owned(found, _identity(box, tags))


def pairs(labels: Mapping[str, str], record: Mapping[str, str]) -> dict[str, str]:
    """
    Return the key-value pairs of an object's record.

    If a label of the object differs from the record, the label's value is returned.
    """
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
    """
    Return the metadata of a box, read from the labels and the record of an object.

    Return None if the object does not belong to onebox.
    """
    return BoxMetadata.from_pairs(pairs(labels, record))


def read_tags(labels: Mapping[str, str], record: Mapping[str, str]) -> Tags | None:
    """
    Return the tags of an object, read from its labels and its record.

    Return None if the object does not belong to onebox.
    """
    return kernel.read_tags(pairs(labels, record))


def box_record(metadata: BoxMetadata) -> str:
    """Return the JSON record that holds the metadata of a box."""
    return json.dumps(metadata.to_pairs(), sort_keys=True)


def image_record(image: Image, system: str) -> str:
    """
    Return the JSON record that describes an image.

    *system* is the base name from which the image was built.
    """
    return json.dumps({**kernel.image_pairs(image), "system": system}, sort_keys=True)


def read_record(text: str) -> dict[str, str]:
    """Return the key-value pairs of a JSON record, {} if *text* is no JSON object."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def owner_filter(owner: str) -> str:
    """Return the filter for a list call that lists only the objects of one owner."""
    mine = f'labels.onebox-owner = "{encoded(owner)}"'
    return f'(labels.onebox-managed = "1") AND ({mine})'


def _identity(box: str, tags: Tags) -> dict[str, str]:
    pairs = kernel.identity(tags, box).items()
    return {f"{PREFIX}{key}": encoded(value) for key, value in pairs}
