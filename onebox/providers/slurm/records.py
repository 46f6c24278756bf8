"""
Read the records of boxes and images that the login node sends.

Jobs can write to these files, so nothing in them is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from onebox.agent.file_names import printable
from onebox.errors import ProviderError
from onebox.providers.values import Box, Image, Offer, Tags

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PATH = re.compile(r"/[^\0\n\r]{0,4000}")
# What a record of the wrong form raises when it is read.
_INVALID = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
# No box has more CPUs or bytes, and no image more bytes.
_MOST_CPUS, _MOST_BYTES = 1 << 20, 1 << 60
# At most so many folders without a valid record are named.
_MOST_UNREADABLE = 100


def box(answer: Mapping[str, Any], host: str, user_ssh: Sequence[str]) -> Box:
    """
    Return the box in an answer.

    Args:
        user_ssh: The words after `ssh` with which the login node is reached.

    Raises:
        ProviderError: The record is invalid; the message names its folder.
    """
    try:
        id, folder, record = answer["id"], answer["folder"], answer["record"]
        paths = [folder, answer["python"]]
        if not _ID.fullmatch(id) or not all(map(_PATH.fullmatch, paths)):
            raise ValueError(id)
        return Box(
            id=id,
            tags=_tags(record["tags"]),
            state="stopped" if record["stopped"] is True else "running",
            offer=_offer(record["offer"], host),
            image=printable(str(record["image"])),
            place=host,
            host=host,
            port=22,
            user="",
            host_key="",
            created=_moment(record["created"]),
            deadline=0.0,
            agent=f"{folder}/agent.pyz",
            work=f"{folder}/work",
            home=f"{folder}/home",
            python=answer["python"],
            notes=tuple(printable(str(note)) for note in record["notes"]),
            user_ssh=tuple(user_ssh),
        )
    except _INVALID as error:
        raise _damaged(answer, host, "record.json", error) from error


def image(answer: Mapping[str, Any], host: str) -> Image:
    """Return the image in an answer. Raises ProviderError if its record is invalid."""
    try:
        fields = answer["image"]
        found = Image(**{**fields, "tags": _tags(fields["tags"]), "places": ()})
        if not _ID.fullmatch(found.id):
            raise ValueError(found.id)
        return replace(
            found,
            created=_moment(found.created),
            stored=_count(found.stored, _MOST_BYTES),
            name=printable(str(found.name)[:200]),
            recipe=printable(str(found.recipe)[:200]),
            arch=printable(str(found.arch)[:40]),
            base=printable(str(found.base)[:200]),
        )
    except _INVALID as error:
        raise _damaged(answer, host, "image.json", error) from error


def unreadable(answer: Mapping[str, Any], host: str) -> dict[str, str]:
    """Return the folders without a valid record: a text for the name of each."""
    found = answer.get("damaged")
    folders = found if isinstance(found, list) else []
    return {
        str(folder).rpartition("/")[2]: f"{host}: {_shown(folder)} has no valid record"
        for folder in folders[:_MOST_UNREADABLE]
    }


def undeletable(answer: Mapping[str, Any], host: str) -> list[str]:
    """Return a text for each folder of a deleted object that could not be removed."""
    found = answer.get("left")
    folders = found if isinstance(found, list) else []
    return [
        f"{host}: {_shown(one.get('folder'))}: {printable(str(one.get('why'))[:200])}"
        for one in folders[:_MOST_UNREADABLE]
        if isinstance(one, dict)
    ]


def name_of(answer: Any) -> str:
    """Return the name of the folder of an answer, "" if it is not valid."""
    folder = answer.get("folder") if isinstance(answer, dict) else ""
    return str(folder).rpartition("/")[2]


def _damaged(answer: Any, host: str, name: str, error: Exception) -> ProviderError:
    folder = answer.get("folder") if isinstance(answer, dict) else None
    where = f"{_shown(folder)}/{name}" if folder else f"a {name} below [slurm] root"
    why = printable(repr(error)[:200])
    return ProviderError(
        f"{host}: {where} is damaged: {why}",
        next=f"ssh {host}, and repair the file or remove its folder",
    )


def _shown(folder: Any) -> str:
    return printable(str(folder)[:400])


def _offer(fields: Mapping[str, Any], host: str) -> Offer:
    """Return what a box asked for. Raises one of `_INVALID`."""
    return Offer(
        name=printable(str(fields["name"])[:100]),
        type=printable(str(fields["type"])[:100]),
        cpus=_count(fields["cpus"], _MOST_CPUS),
        memory=_count(fields["memory"], _MOST_BYTES),
        machine_price=0.0,
        machine_on_demand=0.0,
        place=host,
        arch=printable(str(fields["arch"])[:40]),
    )


def _tags(fields: Mapping[str, Any]) -> Tags:
    """Return the tags with these fields. Raises one of `_INVALID`."""
    tags = Tags.parse(fields)
    if tags.kind not in ("box", "builder", "image"):
        raise ValueError("kind")
    for text in (tags.owner, tags.project, tags.name, tags.version):
        if not _ID.fullmatch(text):
            raise ValueError("tags")
    return replace(tags, deadline=_moment(tags.deadline))


def _moment(value: Any) -> float:
    """Return a time in epoch seconds. Raises one of `_INVALID`."""
    moment = float(value)
    if not 0 <= moment < 1e11:
        raise ValueError("time")
    return moment


def _count(value: Any, most: int) -> int:
    """Return a count between 0 and *most*. Raises one of `_INVALID`."""
    count = int(value)
    if not 0 <= count <= most:
        raise ValueError("a number is out of range")
    return count
