"""
Each cloud object of onebox carries key-value pairs: its owner, and facts of a box.

The create call of a box writes these pairs, so no object of onebox ever exists without
an owner, and a box can be read back completely from the cloud alone. Each cloud stores
the pairs in its own form (tags, labels, a metadata item), and writes them in its own
`Alphabet`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from onebox.errors import NotAllowed
from onebox.providers import costs
from onebox.providers.kernel.user_data import AGENT, USER, WORK
from onebox.providers.values import Box, BoxState, Image, Offer, Proxy, Request, Tags

KINDS = ("box", "builder", "image")
# onebox ignores an object that lacks one of these pairs, because nothing proves who
# owns it.
_IDENTITY = ("owner", "project", "name", "kind")


@dataclass(frozen=True)
class BoxMetadata:
    """
    The facts about a box that its cloud objects record.

    Times are in seconds, and *deadline* counts from the epoch. If *bootstrap_key* is
    true, the private half of *host_key* was sent in user data, so the first connection
    replaces the key. *system* names the base image that the disk began with.

    *reach* is the value of the setting with which the box was created; see `reach`.
    *no_alarm* (AWS) means that the cloud does not enforce the deadline. *swapping*
    (AWS) means that the machine waits for a kept disk. *rescue* means that the machine
    is smaller than requested and serves only to read a disk.
    """

    box: str
    tags: Tags
    offer: Offer
    image: str
    host_key: str
    bootstrap_key: bool
    deadline: float
    user_key: str = ""
    setup_grace: float = 1800.0
    idle_grace: float = 1800.0
    system: str = ""
    notes: tuple[str, ...] = ()
    reach: str = ""
    no_alarm: bool = False
    swapping: bool = False
    rescue: bool = False

    @classmethod
    def of_request(cls, request: Request) -> BoxMetadata:
        """Return the metadata of the box that a request creates."""
        return cls(
            box=request.box,
            tags=request.tags,
            offer=request.offer,
            image=request.image.id if request.image else "",
            host_key=request.host_key.public,
            bootstrap_key=True,
            deadline=request.boot_config.deadline,
            user_key=without_comment(request.user_key),
            setup_grace=request.boot_config.setup_grace,
            idle_grace=request.boot_config.idle_grace,
        )

    def with_deadline(self, deadline: float) -> BoxMetadata:
        """Return this metadata with another deadline."""
        tags = replace(self.tags, deadline=deadline)
        return replace(self, deadline=deadline, tags=tags)

    def to_box(
        self,
        *,
        state: BoxState,
        offer: Offer,
        created: float,
        host: str = "",
        host_key: str = "",
        why: str = "",
        notes: tuple[str, ...] = (),
        jump: str = "",
        proxy: Proxy | None = None,
        disk_only: bool = False,
        identity: str = "",
    ) -> Box:
        """
        Return the box, from this metadata and the present facts that the cloud reports.
        """
        return Box(
            id=self.box,
            tags=self.tags,
            state=state,
            offer=offer,
            image=self.image,
            place=offer.place,
            host=host,
            port=22,
            user=USER,
            host_key=host_key or self.host_key,
            created=created,
            deadline=self.deadline,
            agent=AGENT,
            work=WORK,
            why=why,
            notes=(*self.notes, *notes),
            jump=jump,
            proxy=proxy,
            bootstrap_key=self.bootstrap_key,
            disk_only=disk_only,
            rescue=self.rescue,
            identity=identity,
        )

    def to_pairs(self) -> dict[str, str]:
        """
        Return the pairs that store this metadata; empty or unknown values get no pair.
        """
        offer = self.offer
        pairs = {
            **tag_pairs(self.tags, self.box),
            "deadline": _real(self.deadline),
            "image": self.image,
            "bootstrap-key" if self.bootstrap_key else "hostkey": self.host_key,
            "userkey": self.user_key,
            "setup-grace": _real(self.setup_grace),
            "idle-grace": _real(self.idle_grace),
            "system": self.system,
            "notes": "\n".join(self.notes),
            "reach": self.reach,
            "no-alarm": _flag(self.no_alarm),
            "swapping": _flag(self.swapping),
            "rescue": _flag(self.rescue),
            "size": offer.name,
            "type": offer.type,
            "cpus": str(offer.cpus),
            "memory": str(offer.memory),
            "cores": "" if offer.cores is None else str(offer.cores),
            "arch": offer.arch,
            "spot": _flag(offer.spot),
            "price": _real(offer.machine_price),
            "on-demand": _real(offer.machine_on_demand),
            "extras": costs.to_text(offer.extras),
        }
        return {key: value for key, value in pairs.items() if value}

    @classmethod
    def from_pairs(cls, pairs: Mapping[str, str]) -> BoxMetadata | None:
        """
        Return the metadata that *pairs* store, None if they do not describe a box.
        """
        tags, box = read_tags(pairs), pairs.get("box", "")
        if tags is None or not box:
            return None
        host_key = pairs.get("hostkey", "")
        bootstrap_key = pairs.get("bootstrap-key", "")
        return cls(
            box=box,
            tags=tags,
            offer=_offer(pairs),
            image=pairs.get("image", ""),
            host_key=host_key or bootstrap_key,
            bootstrap_key=bool(bootstrap_key and not host_key),
            deadline=number(pairs.get("deadline")) or tags.deadline,
            user_key=pairs.get("userkey", ""),
            setup_grace=number(pairs.get("setup-grace")) or 1800.0,
            idle_grace=number(pairs.get("idle-grace")) or 1800.0,
            system=pairs.get("system", ""),
            notes=tuple(pairs.get("notes", "").splitlines()),
            reach=pairs.get("reach", ""),
            no_alarm=bool(pairs.get("no-alarm")),
            swapping=bool(pairs.get("swapping")),
            rescue=bool(pairs.get("rescue")),
        )


def identity(tags: Tags, box: str = "") -> dict[str, str]:
    """
    Return the key-value pairs that show which owner an object belongs to.

    If *box* is given, they also show which box the object belongs to.
    """
    pairs = {"managed": "1", **{key: getattr(tags, key) for key in _IDENTITY}}
    return {**pairs, "box": box} if box else pairs


def tag_pairs(tags: Tags, box: str = "") -> dict[str, str]:
    """
    Return the pairs that store *tags*: its `identity`, the version and the deadline.
    """
    # The key of this deadline is "expires", because a box has a pair "deadline" too.
    times = {"version": tags.version, "expires": _real(tags.deadline)}
    return {**identity(tags, box), **times}


def read_tags(pairs: Mapping[str, str]) -> Tags | None:
    """Return the tags that *pairs* store, None if the pairs do not name an owner."""
    missing = [key for key in _IDENTITY if key not in pairs]
    if pairs.get("managed") != "1" or missing or pairs["kind"] not in KINDS:
        return None
    return Tags(
        owner=pairs["owner"],
        project=pairs["project"],
        name=pairs["name"],
        deadline=number(pairs.get("expires")) or 0.0,
        version=pairs.get("version", ""),
        kind=cast("Literal['box', 'builder', 'image']", pairs["kind"]),
    )


def image_pairs(image: Image) -> dict[str, str]:
    """Return the pairs that describe a saved image."""
    return {
        **tag_pairs(image.tags),
        "image": image.id,
        "image-name": image.name,
        "recipe": image.recipe,
        "base": image.base,
    }


def is_owned(found: Mapping[str, str] | None, expected: Mapping[str, str]) -> bool:
    """
    Return whether *found*, the pairs of an object, include all the *expected* pairs.
    """
    return found is not None and all(
        found.get(key) == value for key, value in expected.items()
    )


def check_owner(
    what: str, found: Mapping[str, str] | None, expected: Mapping[str, str]
) -> None:
    """
    Raise NotAllowed unless *found*, the pairs of an object, include *expected*.

    *expected* is the `identity` that the object must have. A call that changes or
    deletes an object makes this check first.
    """
    if is_owned(found, expected):
        return
    present = found or {}
    different = [key for key, value in expected.items() if present.get(key) != value]
    raise NotAllowed(
        f"{what} belongs to another {' and '.join(different)} than expected "
        f"({', '.join(present.get(key) or 'none' for key in different)}, not "
        f"{', '.join(expected[key] for key in different)}): it was not touched",
        next="inv status",
    )


def check_same_owner(what: str, found: str, owner: str) -> None:
    """Raise NotAllowed unless *found*, the owner that an object names, is *owner*."""
    if found != owner:
        raise NotAllowed(f"{what} belongs to another owner: it was not touched")


def without_comment(key: str) -> str:
    """Return an OpenSSH public key without its comment: only its type and its bytes."""
    return " ".join(key.split()[:2])


def number(text: str | None) -> float | None:
    """Return the number that a text holds, None if it is not a finite number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _offer(pairs: Mapping[str, str]) -> Offer:
    cores = number(pairs.get("cores"))
    return Offer(
        name=pairs.get("size", ""),
        type=pairs.get("type", ""),
        cpus=int(number(pairs.get("cpus")) or 1),
        memory=int(number(pairs.get("memory")) or 1),
        machine_price=number(pairs.get("price")),
        machine_on_demand=number(pairs.get("on-demand")),
        spot=bool(pairs.get("spot")),
        cores=None if cores is None else int(cores),
        arch=pairs.get("arch", ""),
        extras=costs.from_text(pairs.get("extras", "")),
    )


def _real(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _flag(value: bool) -> str:
    return "1" if value else ""
