"""
Whose a machine or a disk is, and what box it is: written in its tags.

They are in the call that makes it, so that nothing of ours is ever without them,
and they hold all that cannot be asked of EC2 about the thing itself: a box is
found again, complete, from nowhere but here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from onebox.errors import NotAllowed
from onebox.providers import costs
from onebox.providers.base import Image, Offer, Request, Tags

PREFIX = "onebox:"
MANAGED = f"{PREFIX}managed"
OWNER = f"{PREFIX}owner"
BOX = f"{PREFIX}box"
IMAGE = f"{PREFIX}image"
DEADLINE = f"{PREFIX}deadline"
EXPIRES = f"{PREFIX}expires"
HOST_KEY = f"{PREFIX}hostkey"
EXPOSED = f"{PREFIX}exposed"
NO_ALARM = f"{PREFIX}no-alarm"
# On a machine that is there to be given a kept disk, until it has it.
SWAPPING = f"{PREFIX}swapping"
# On a machine that is there for a kept disk alone, for as long as it lives.
RESCUE = f"{PREFIX}rescue"
# On a kept disk: when a machine for it was asked for.
RESCUED = f"{PREFIX}rescued"

# What a tag may hold everywhere; the rest is written as =XX.
_UNSAFE = re.compile(rb"[^A-Za-z0-9 +._:/@-]")
_ESCAPED = re.compile(r"=([0-9A-F]{2})")

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class BoxMetadata:
    """What the tags of a machine or a disk say of its box."""

    box: str
    tags: Tags
    size: Offer
    image: str
    host_key: str
    bootstrap_key: bool
    deadline: float
    user_key: str = ""
    setup_grace: float = 1800.0
    idle_grace: float = 1800.0
    no_alarm: bool = False
    swapping: bool = False
    rescue: bool = False


def of_request(request: Request) -> BoxMetadata:
    """Return the marks of the box that a request asks for."""
    return BoxMetadata(
        box=request.box,
        tags=request.tags,
        size=request.offer,
        image=request.image.id if request.image else "",
        host_key=request.host_key.public,
        bootstrap_key=True,
        deadline=request.arming.deadline,
        user_key=" ".join(request.user_key.split()[:2]),
        setup_grace=request.arming.setup_grace,
        idle_grace=request.arming.idle_grace,
    )


def write(marks: BoxMetadata) -> list[dict[str, str]]:
    """Return marks as EC2 takes tags."""
    size = marks.size
    texts = {
        "Name": f"{marks.tags.project}/{marks.tags.name} {marks.box}",
        BOX: marks.box,
        **_of_tags(marks.tags),
        DEADLINE: repr(marks.deadline),
        IMAGE: marks.image,
        HOST_KEY: marks.host_key,
        f"{PREFIX}userkey": marks.user_key,
        f"{PREFIX}setup-grace": repr(marks.setup_grace),
        f"{PREFIX}idle-grace": repr(marks.idle_grace),
        EXPOSED: "1" if marks.bootstrap_key else "",
        NO_ALARM: "1" if marks.no_alarm else "",
        SWAPPING: "1" if marks.swapping else "",
        RESCUE: "1" if marks.rescue else "",
        f"{PREFIX}size": size.name,
        f"{PREFIX}type": size.type,
        f"{PREFIX}cpus": str(size.cpus),
        f"{PREFIX}memory": str(size.memory),
        f"{PREFIX}cores": "" if size.cores is None else str(size.cores),
        f"{PREFIX}arch": size.arch,
        f"{PREFIX}spot": "1" if size.spot else "",
        f"{PREFIX}price": "" if size.price is None else repr(size.price),
        f"{PREFIX}on-demand": "" if size.on_demand is None else repr(size.on_demand),
        f"{PREFIX}extras": costs.to_text(size.extras),
    }
    return as_list(texts)


def of_image(image: Image) -> list[dict[str, str]]:
    """Return what tells whose an image is, as EC2 takes tags."""
    return as_list(
        {
            "Name": image.id,
            **_of_tags(image.tags),
            IMAGE: image.id,
            f"{PREFIX}image-name": image.name,
            f"{PREFIX}recipe": image.recipe,
            f"{PREFIX}base": image.base,
        }
    )


def of_group(owner: str) -> list[dict[str, str]]:
    """Return what tells whose a security group is, as EC2 takes tags."""
    return as_list({MANAGED: "1", OWNER: owner})


def as_list(texts: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as EC2 takes them, without those that say nothing."""
    return [{"Key": k, "Value": escape(v)} for k, v in texts.items() if v]


def texts(thing: Answer) -> dict[str, str]:
    """Return the tags of a thing that EC2 has described."""
    pairs = thing.get("Tags") or thing.get("TagSet") or ()
    return {pair["Key"]: unescape(pair.get("Value", "")) for pair in pairs}


def read(thing: Answer) -> BoxMetadata | None:
    """Return what the tags of a machine or a disk say; None if it is none of ours."""
    said = texts(thing)
    tags = tags_of(said)
    box = said.get(BOX, "")
    if tags is None or not box:
        return None
    return BoxMetadata(
        box=box,
        tags=tags,
        size=Offer(
            name=said.get(f"{PREFIX}size", ""),
            type=said.get(f"{PREFIX}type", ""),
            cpus=_whole(said.get(f"{PREFIX}cpus")) or 1,
            memory=_whole(said.get(f"{PREFIX}memory")) or 1,
            price=number(said.get(f"{PREFIX}price")),
            on_demand=number(said.get(f"{PREFIX}on-demand")),
            spot=f"{PREFIX}spot" in said,
            cores=_whole(said.get(f"{PREFIX}cores")),
            arch=said.get(f"{PREFIX}arch", ""),
            extras=costs.from_text(said.get(f"{PREFIX}extras", "")),
        ),
        image=said.get(IMAGE, ""),
        host_key=said.get(HOST_KEY, ""),
        bootstrap_key=bool(said.get(EXPOSED)),
        deadline=number(said.get(DEADLINE)) or tags.expires,
        user_key=said.get(f"{PREFIX}userkey", ""),
        setup_grace=number(said.get(f"{PREFIX}setup-grace")) or 1800.0,
        idle_grace=number(said.get(f"{PREFIX}idle-grace")) or 1800.0,
        no_alarm=bool(said.get(NO_ALARM)),
        swapping=bool(said.get(SWAPPING)),
        rescue=bool(said.get(RESCUE)),
    )


def rescued(volume: Answer) -> float:
    """Return when (epoch seconds) a machine for a kept disk was asked for, or 0."""
    return number(texts(volume).get(RESCUED)) or 0.0


def tags_of(said: Mapping[str, str]) -> Tags | None:
    """Return whose a thing is; None if it is none of ours."""
    if said.get(MANAGED) != "1" or not said.get(OWNER):
        return None
    kind = said.get(f"{PREFIX}kind", "box")
    return Tags(
        owner=said[OWNER],
        project=said.get(f"{PREFIX}project", ""),
        name=said.get(f"{PREFIX}name", ""),
        expires=number(said.get(EXPIRES)) or 0.0,
        version=said.get(f"{PREFIX}version", ""),
        kind=cast(
            Literal["box", "builder", "image"],
            kind if kind in ("box", "builder", "image") else "box",
        ),
    )


def check(what: str, present: Tags | None, wanted: Tags) -> None:
    """Raise NotAllowed unless a thing is whose it is taken for."""
    if present is None or (present.owner, present.project, present.name) != (
        wanted.owner,
        wanted.project,
        wanted.name,
    ):
        raise NotAllowed(
            f"{what} is not {wanted.project}/{wanted.name} of this owner: "
            "nothing was touched",
            next="inv status",
        )


def with_deadline(marks: BoxMetadata, deadline: float) -> BoxMetadata:
    """Return the marks of a box that has another deadline now."""
    return replace(marks, deadline=deadline, tags=replace(marks.tags, expires=deadline))


def owned_by(owner: str) -> list[dict[str, object]]:
    """Return the filters for things of this owner."""
    return filters({f"tag:{OWNER}": [owner], f"tag:{MANAGED}": ["1"]})


def of_box(box: str) -> list[dict[str, object]]:
    """Return the filters for things of this box."""
    return filters({f"tag:{BOX}": [box]})


def filters(wanted: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    """Return filters as EC2 takes them."""
    return [{"Name": name, "Values": list(values)} for name, values in wanted.items()]


def escape(text: str) -> str:
    """
    Write a text with the characters that every tag may hold.

    >>> escape("cpus=64,memory=256 GB")
    'cpus=3D64=2Cmemory=3D256 GB'
    """
    return _UNSAFE.sub(
        lambda found: b"=%02X" % ord(found.group()), text.encode()
    ).decode("ascii")


def unescape(text: str) -> str:
    """
    Read what `escape` has written.

    >>> unescape("cpus=3D64=2Cmemory=3D256 GB"), unescape(escape("Köln = 1"))
    ('cpus=64,memory=256 GB', 'Köln = 1')
    """
    raw = _ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), text)
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")


def number(text: str | None) -> float | None:
    """Return the number that a text is, None if it is none."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _of_tags(tags: Tags) -> dict[str, str]:
    return {
        MANAGED: "1",
        OWNER: tags.owner,
        f"{PREFIX}project": tags.project,
        f"{PREFIX}name": tags.name,
        f"{PREFIX}kind": tags.kind,
        f"{PREFIX}version": tags.version,
        EXPIRES: repr(tags.expires),
    }


def _whole(text: str | None) -> int | None:
    found = number(text)
    return None if found is None else int(found)


def groups(things: Iterable[Answer]) -> dict[str, list[Answer]]:
    """Return things by the box that they belong to; those of no box are left out."""
    found: dict[str, list[Answer]] = {}
    for thing in things:
        box = texts(thing).get(BOX)
        if box:
            found.setdefault(box, []).append(thing)
    return found
