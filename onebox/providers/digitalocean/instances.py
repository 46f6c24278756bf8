"""Find droplets by their tags, and read them as servers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from onebox.errors import Gone
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.machine_types import read_offer
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.metadata import identity
from onebox.providers.kernel.servers.api import Server
from onebox.providers.values import BoxState

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

    def has_seen(self, box: str) -> bool:
        """Return whether this process has seen a droplet of the box."""
        return bool(self._seen[box])

    def remember(self, box: str, droplet: Answer) -> None:
        """Remember the droplet that a create call returned."""
        self._seen[box].add(int(droplet["id"]))


def read_server(droplet: Answer, *, private: bool) -> Server:
    """
    Return the server that *droplet*, an answer of the API, describes.

    Args:
        private: Whether ssh uses the private address.
    """
    stored, pairs = metadata.read(droplet.get("tags") or []), {}
    place = str((droplet.get("region") or {}).get("slug"))
    offer = read_offer(droplet.get("size") or {}, droplet, place)
    if stored is not None:
        pairs = identity(stored.tags, stored.box)
        stored = replace(stored, offer=metadata.with_stored_price(stored, offer))
    return Server(
        kind="droplet",
        id=str(droplet["id"]),
        pairs=pairs,
        hourly=offer.machine_price,
        created=epoch_seconds(droplet.get("created_at")),
        raw=droplet,
        stored=stored,
        state=_STATES.get(str(droplet.get("status")), "starting"),
        host=_address(droplet, "private" if private else "public"),
    )


def _has(droplet: Answer, tag: str) -> bool:
    return tag in {str(word).lower() for word in droplet.get("tags") or []}


def _address(droplet: Answer, kind: str) -> str:
    for one in (droplet.get("networks") or {}).get("v4") or []:
        if one.get("type") == kind:
            return str(one.get("ip_address") or "")
    return ""
