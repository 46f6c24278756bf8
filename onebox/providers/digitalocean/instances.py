"""Find droplets by their tags, and read them as boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from onebox.errors import Gone
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.deadline import BILLED_OFF
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.metadata import check_owner, identity
from onebox.providers.values import Box, BoxState, Offer, Tags

MEGABYTE = 1 << 20

_STATES: dict[str, BoxState] = {
    "new": "starting",
    "active": "running",
    "off": "stopped",
    "archive": "stopped",
}


class Droplets:
    """
    The droplets of the account that are boxes.

    The API's lists lag behind: they may lack a new droplet, or still have a deleted
    one. So a droplet that this process has created or seen is also requested by its
    number, because that answer never lags.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._seen: dict[str, set[int]] = defaultdict(set)
        self._gone: set[int] = set()

    def of_box(self, box: str) -> list[Answer]:
        """Return all droplets of this box, oldest first; usually there is one."""
        found = self._with(metadata.tag("box", box), self._seen[box])
        self._seen[box].update(int(droplet["id"]) for droplet in found)
        return found

    def of_owner(self, owner: str) -> list[Answer]:
        """Return every droplet of this owner, in all regions."""
        seen = {number for numbers in self._seen.values() for number in numbers}
        return self._with(metadata.tag("owner", owner), seen)

    def _with(self, tag: str, seen: Iterable[int]) -> list[Answer]:
        """
        Return the droplets with a tag, sorted by their number.

        The droplets in *seen* are requested by number if the list lacks them.
        """
        found = {int(one["id"]): one for one in self._tagged(tag) if _has(one, tag)}
        for number in self._gone & set(found):
            del found[number]
        for number in set(seen) - set(found) - self._gone:
            one = self.by_number(number)
            if one is not None and _has(one, tag):
                found[number] = one
        return [found[number] for number in sorted(found)]

    def _tagged(self, tag: str) -> list[Answer]:
        try:
            return self._cloud.all("droplets", "droplets", tag_name=tag)
        except Gone:
            # The API answers 404 for a tag that no object has.
            return []

    def by_number(self, number: int) -> Answer | None:
        """Return the droplet of this number, None if it is gone."""
        try:
            found: Answer = self._cloud.get(f"droplets/{number}")["droplet"]
        except Gone:
            self._gone.add(number)
            return None
        return found

    def owned(self, box: Box) -> Answer:
        """
        Return the droplet of a box.

        Raises:
            Gone: The droplet does not exist any more.

            NotAllowed: A droplet with this box id carries the tags of another box.
        """
        found = self.of_box(box.id)
        if not found:
            raise Gone(f"box {box.id} does not exist any more", next="inv status")
        check_all(found, box.id, box.tags)
        return found[0]

    def has_seen(self, box: str) -> bool:
        """Return whether this process has seen a droplet of the box."""
        return bool(self._seen[box])

    def remember(self, box: str, droplet: Answer) -> None:
        """Remember the droplet that a create call returned."""
        self._seen[box].add(int(droplet["id"]))


def read_box(
    droplet: Answer,
    settings: DigitalOceanSettings,
    notes: tuple[str, ...],
    now: float,
) -> Box | None:
    """Return a droplet as a box, None if it does not belong to onebox."""
    stored = metadata.read(droplet.get("tags") or [])
    if stored is None:
        return None
    state = _STATES.get(str(droplet.get("status")), "starting")
    host = _address(droplet, "private" if settings.private else "public")
    if state == "running" and not host:
        state = "starting"
    ended = now >= stored.tags.expires
    price = stored.offer.price
    if state == "stopped":
        notes = (BILLED_OFF.stopped_note(price), *notes)
    offer = read_offer(
        droplet.get("size") or {}, droplet, str(droplet["region"]["slug"])
    )
    return stored.to_box(
        state=state,
        offer=metadata.with_stored_price(stored, offer),
        created=epoch_seconds(droplet.get("created_at")),
        host=host,
        why=("deadline" if ended else "poweroff") if state == "stopped" else "",
        notes=notes,
        jump=settings.jump,
    )


def read_offer(size: Answer, droplet: Answer | None, place: str) -> Offer:
    """
    Return a size of the API as an offer in the region *place*, at its current price.

    If *droplet* is given, its size, CPUs and memory replace those in *size*.
    """
    of = {**size, **(droplet or {})}
    hourly = size.get("price_hourly")
    price = float(hourly) if isinstance(hourly, (int, float)) and hourly > 0 else None
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


def check_all(droplets: Iterable[Answer], box: str, tags: Tags) -> None:
    """
    Raise NotAllowed unless the tags of each droplet are those of this box and owner.
    """
    for droplet in droplets:
        stored = metadata.read(droplet.get("tags") or [])
        found = None if stored is None else identity(stored.tags, stored.box)
        check_owner(f"droplet {droplet['id']}", found, identity(tags, box))


def _has(droplet: Answer, tag: str) -> bool:
    return tag in {str(word).lower() for word in droplet.get("tags") or []}


def _address(droplet: Answer, kind: str) -> str:
    for one in (droplet.get("networks") or {}).get("v4") or []:
        if one.get("type") == kind:
            return str(one.get("ip_address") or "")
    return ""
