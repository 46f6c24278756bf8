"""Find droplets by their tags, and read one as a box."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable

from onebox.errors import Gone, NotAllowed
from onebox.providers.base import Box, BoxState, Offer, Tags
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.settings import Settings
from onebox.providers.kernel.user_data import AGENT, USER, WORK

MEGABYTE = 1 << 20

_STATES: dict[str, BoxState] = {
    "new": "starting",
    "active": "running",
    "off": "stopped",
    "archive": "stopped",
}


class Droplets:
    """
    The account's droplets, as far as they are boxes.

    Lists lag behind what was just made or removed. What this process has made or
    seen it asks for by number as well: that answer is never old.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._seen: dict[str, set[int]] = defaultdict(set)
        self._gone: set[int] = set()

    def called(self, box: str) -> list[Answer]:
        """Return every droplet of this box id, the oldest first: one, or doubles."""
        wanted = metadata.tag("box", box)
        listed = self._tagged(wanted)
        found = {int(one["id"]): one for one in listed if _carries(one, wanted)}
        for number in self._gone & set(found):
            del found[number]
        for number in self._seen[box] - set(found) - self._gone:
            one = self.numbered(number)
            if one is not None and _carries(one, wanted):
                found[number] = one
        self._seen[box].update(found)
        return [found[number] for number in sorted(found)]

    def owned(self, owner: str) -> list[Answer]:
        """Return every droplet of this owner's, in all regions."""
        wanted = metadata.tag("owner", owner)
        listed = self._tagged(wanted)
        found = {int(one["id"]): one for one in listed if _carries(one, wanted)}
        for number in self._gone & set(found):
            del found[number]
        seen = {number for numbers in self._seen.values() for number in numbers}
        for number in seen - set(found) - self._gone:
            one = self.numbered(number)
            if one is not None and _carries(one, wanted):
                found[number] = one
        return [found[number] for number in sorted(found)]

    def _tagged(self, word: str) -> list[Answer]:
        try:
            return self._calls.all("droplets", "droplets", tag_name=word)
        except Gone:
            # There is no such tag, so nothing bears it.
            return []

    def numbered(self, number: int) -> Answer | None:
        """Return the droplet of this number as it is now, None if it is gone."""
        try:
            found: Answer = self._calls.get(f"droplets/{number}")["droplet"]
        except Gone:
            self._gone.add(number)
            return None
        return found

    def known(self, box: str) -> bool:
        """Tell whether this process has seen a droplet of the box: then it knows."""
        return bool(self._seen[box])

    def made(self, box: str, droplet: Answer) -> None:
        """Remember the droplet that a create call has answered with."""
        self._seen[box].add(int(droplet["id"]))


def as_box(
    droplet: Answer,
    wishes: Settings,
    notes: tuple[str, ...],
    now: float,
) -> Box | None:
    """Return a droplet as the box that it is, None if it is none of ours."""
    marks = metadata.read(droplet.get("tags") or [])
    if marks is None:
        return None
    state = _STATES.get(str(droplet.get("status")), "starting")
    host = _address(droplet, "private" if wishes.private else "public")
    if state == "running" and not host:
        state = "starting"
    place = str(droplet["region"]["slug"])
    over = now >= marks.tags.expires
    price = marks.price
    if state == "stopped":
        cost = "in full" if price is None else f"in full, ${price:.2f}/h"
        notes = (f"a droplet that is powered off is billed {cost}", *notes)
    return Box(
        id=marks.box,
        tags=marks.tags,
        state=state,
        offer=metadata.same_size(
            marks, shape(droplet.get("size") or {}, droplet, place)
        ),
        image=marks.image,
        place=place,
        host=host,
        port=22,
        user=USER,
        host_key=marks.pinned or marks.bootstrap_key,
        created=moment(droplet.get("created_at")),
        deadline=marks.tags.expires,
        agent=AGENT,
        work=WORK,
        why=("deadline" if over else "poweroff") if state == "stopped" else "",
        notes=notes,
        jump=wishes.jump,
        bootstrap_key=not marks.pinned,
    )


def shape(size: Answer, droplet: Answer | None, place: str) -> Offer:
    """Return one of the API's sizes as it is there, at today's price."""
    of = {**size, **(droplet or {})}
    told = size.get("price_hourly")
    price = float(told) if isinstance(told, (int, float)) and told > 0 else None
    slug = str(of.get("size_slug") or size.get("slug"))
    return Offer(
        name=slug,
        type=slug,
        cpus=int(of.get("vcpus") or 0),
        memory=int(of.get("memory") or 0) * MEGABYTE,
        price=price,
        on_demand=price,
        place=place,
        arch="x86_64",
    )


def check_same(what: str, present: Tags, wanted: Tags) -> None:
    """Raise NotAllowed unless both are of one owner, project and name."""
    for said, there, asked in (
        ("owner", present.owner, wanted.owner),
        ("project", present.project, wanted.project),
        ("name", present.name, wanted.name),
    ):
        if there != asked:
            raise NotAllowed(
                f"{what} belongs to another {said} ({there}, not {asked}); it was not "
                "touched"
            )


def check_all(droplets: Iterable[Answer], box: str, wanted: Tags) -> None:
    """Raise NotAllowed unless every one of these droplets is that box."""
    for droplet in droplets:
        marks = metadata.read(droplet.get("tags") or [])
        if marks is None or marks.box != box:
            raise NotAllowed(
                f"droplet {droplet['id']} does not carry all the tags of box {box}; "
                "it was not touched"
            )
        check_same(f"box {box}", marks.tags, wanted)


def moment(text: object) -> float:
    """Return a time of the API's in seconds since the epoch, 0 if it is none."""
    try:
        plain = str(text).replace("Z", "+00:00")
        return datetime.datetime.fromisoformat(plain).timestamp()
    except ValueError:
        return 0.0


def _carries(droplet: Answer, wanted: str) -> bool:
    return wanted in {str(word).lower() for word in droplet.get("tags") or []}


def _address(droplet: Answer, kind: str) -> str:
    for one in (droplet.get("networks") or {}).get("v4") or []:
        if one.get("type") == kind:
            return str(one.get("ip_address") or "")
    return ""
