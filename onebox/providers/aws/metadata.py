"""
Tags of EC2 objects record the owner, and facts about a box that EC2 lacks.

The create call writes the tags, so an instance or volume of onebox is never untagged.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence

from onebox.providers.aws.client import Answer
from onebox.providers.kernel import metadata as kernel
from onebox.providers.kernel.alphabet import Alphabet
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import Image, Tags

PREFIX = "onebox:"
MANAGED = f"{PREFIX}managed"
OWNER = f"{PREFIX}owner"
BOX = f"{PREFIX}box"
IMAGE = f"{PREFIX}image"
DEADLINE = f"{PREFIX}deadline"
EXPIRES = f"{PREFIX}expires"
HOST_KEY = f"{PREFIX}hostkey"
BOOTSTRAP_KEY = f"{PREFIX}bootstrap-key"
NO_ALARM = f"{PREFIX}no-alarm"
# This tag marks a small instance that waits for the kept disk of a box. It is cleared
# when the instance has that disk.
SWAPPING = f"{PREFIX}swapping"
# This tag is on a kept disk. Its value is the time at which onebox requested an
# instance for the disk.
RESCUED = f"{PREFIX}rescued"

# The characters that the tags of every AWS service accept; `=` escapes the others.
ALPHABET = Alphabet(string.ascii_letters + string.digits + " +._:/@-", "=", 256)


def to_tags(metadata: BoxMetadata) -> list[dict[str, str]]:
    """Return the tags of a box's objects, in the format of EC2's API."""
    tags = metadata.tags
    return _tags(metadata.to_pairs(), f"{tags.project}/{tags.name} {metadata.box}")


def image_tags(image: Image) -> list[dict[str, str]]:
    """Return the tags of an image and its snapshots, in the format of EC2's API."""
    return _tags(kernel.image_pairs(image), image.id)


def group_tags(owner: str) -> list[dict[str, str]]:
    """Return the tags of an owner's security group, in the format of EC2's API."""
    return tag_list({MANAGED: "1", OWNER: owner})


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the format of EC2's API; tags with an empty value are left out."""
    return [{"Key": k, "Value": escape(v)} for k, v in tags.items() if v]


def tags_by_name(resource: Answer) -> dict[str, str]:
    """Return the tags of an object that EC2 described: their full names and values."""
    pairs = resource.get("Tags") or resource.get("TagSet") or ()
    return {pair["Key"]: ALPHABET.decode(pair.get("Value", "")) for pair in pairs}


def read(resource: Answer) -> BoxMetadata | None:
    """Return the metadata of an instance or volume, None if it is not onebox's."""
    return BoxMetadata.from_pairs(_pairs(resource))


def rescued(volume: Answer) -> float:
    """
    Return when (epoch seconds) onebox requested an instance for a kept disk.

    Return 0 if it has not requested one.
    """
    return kernel.number(tags_by_name(volume).get(RESCUED)) or 0.0


def read_tags(resource: Answer) -> Tags | None:
    """Return the ownership tags of an object, None if it is not onebox's."""
    return kernel.read_tags(_pairs(resource))


def owner_of(resource: Answer) -> str:
    """Return the owner in an object's tags, "" if it is not onebox's."""
    found = tags_by_name(resource)
    return found.get(OWNER, "") if found.get(MANAGED) == "1" else ""


def check_owner(what: str, resource: Answer, expected: Tags) -> None:
    """
    Raise NotAllowed unless an object's tags show the owner that *expected* names.

    *what* names the object in the error message.
    """
    kernel.check_owner(what, _pairs(resource), kernel.identity(expected))


def owner_filters(owner: str) -> list[dict[str, object]]:
    """Return filters that select the objects of one owner."""
    return filters({f"tag:{OWNER}": [owner], f"tag:{MANAGED}": ["1"]})


def box_filters(box: str) -> list[dict[str, object]]:
    """Return filters that select the objects of one box."""
    return filters({f"tag:{BOX}": [box]})


def filters(values: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    """Return filters in the format of EC2's API; *values* has the allowed values."""
    return [{"Name": name, "Values": list(allowed)} for name, allowed in values.items()]


def escape(text: str) -> str:
    """
    Return a text encoded as the value of a tag.

    >>> escape("cpus=64,memory=256 GB")
    'cpus=3d64=2cmemory=3d256 GB'
    """
    return ALPHABET.encode(text)


def groups(resources: Iterable[Answer]) -> dict[str, list[Answer]]:
    """
    Return lists of objects, one list for each box, by the id of the box.

    Objects without a box are left out.
    """
    by_box: dict[str, list[Answer]] = {}
    for resource in resources:
        box = tags_by_name(resource).get(BOX)
        if box:
            by_box.setdefault(box, []).append(resource)
    return by_box


def _tags(pairs: Mapping[str, str], name: str) -> list[dict[str, str]]:
    named = {f"{PREFIX}{key}": value for key, value in pairs.items()}
    return tag_list({"Name": name, **named})


def _pairs(resource: Answer) -> dict[str, str]:
    tags = tags_by_name(resource)
    ours = [name for name in tags if name.startswith(PREFIX)]
    return {name[len(PREFIX) :]: tags[name] for name in ours}
