"""
Snapshots as images.

A snapshot is named for its owner, its box and its image, so that one which a
crash has left half made can be told; its one tag makes it an image of ours.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from onebox.errors import Gone, Unclear, UsageError
from onebox.providers.base import Image
from onebox.providers.digitalocean import metadata, tag_api
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.errors import Pending
from onebox.providers.digitalocean.instances import check_same, moment
from onebox.providers.digitalocean.power import wait_for
from onebox.providers.digitalocean.settings import Timeouts

GIGABYTE = 1 << 30
# What a month of a gigabyte costs, in USD, and how many hours there are in one.
SNAPSHOT_PRICE = 0.06
MONTH_HOURS = 730.0


def of_owner(calls: Calls, owner: str) -> list[Image]:
    """Return this owner's images, the newest first."""
    found = [as_image(one) for one in _private(calls)]
    mine = [image for image in found if image and image.tags.owner == owner]
    return sorted(mine, key=lambda image: (image.created, image.id), reverse=True)


def snapshot_of(calls: Calls, image: str) -> Answer | None:
    """Return the snapshot that is the image of this id, None if there is none."""
    for one in _private(calls):
        read = as_image(one)
        if read is not None and read.id == image:
            return one
    return None


def as_image(snapshot: Answer) -> Image | None:
    """Return a snapshot as the image that it is, None if it is none of ours."""
    image = metadata.read_image(snapshot.get("tags") or [])
    if image is None:
        return None
    return replace(
        image,
        created=moment(snapshot.get("created_at")),
        stored=round(float(snapshot.get("size_gigabytes") or 0) * GIGABYTE),
        places=tuple(str(at) for at in snapshot.get("regions") or []),
    )


def save(
    calls: Calls, patience: Timeouts, number: int, box: str, image: Image
) -> Image:
    """
    Save the disk of a droplet that is off.

    Raises:
        Unclear: It may be in the making; the box's removal removes it too.
    """
    present = snapshot_of(calls, image.id)
    if present is None:
        metadata.of_image(image)
        name = _name(image.tags.owner, box, image.id)
        if not _named(calls, name):
            _snapshot(calls, patience, number, name)
        made = _named(calls, name)
        for double in made[1:]:
            _remove(calls, double)
        present = _make_ours(calls, patience, made[0], image)
    read = as_image(present)
    assert read is not None
    check_same(f"image {image.id}", read.tags, image.tags)
    return read


def adopt(calls: Calls, patience: Timeouts, artifact: str, image: Image) -> Image:
    """
    Make an image of ours of a snapshot that Packer has made.

    Args:
        artifact: As Packer names it: regions, a colon, the snapshot's number.

    Raises:
        UsageError: There is no such snapshot in this account.
    """
    present = snapshot_of(calls, image.id)
    if present is None:
        number = artifact.rpartition(":")[2]
        found = [one for one in _private(calls) if str(one["id"]) == number]
        if not found:
            raise UsageError(
                f"there is no snapshot {artifact!r} in this account of DigitalOcean",
                next="the template's builder makes it with the same token, does it?",
            )
        present = _make_ours(calls, patience, found[0], image)
    read = as_image(present)
    assert read is not None
    check_same(f"image {image.id}", read.tags, image.tags)
    return read


def bring(calls: Calls, patience: Timeouts, snapshot: Answer, region: str) -> None:
    """Copy an image to a region where it is not yet, and wait until it is there."""
    number = snapshot["id"]

    def there() -> bool:
        return region in calls.get(f"images/{number}")["image"]["regions"]

    if region in snapshot["regions"] or there():
        return
    path = ""
    with suppress(Pending, Unclear):
        # Busy, or not known to have begun: then the regions alone will tell.
        action = calls.post(
            f"images/{number}/actions", {"type": "transfer", "region": region}
        )["action"]
        path = f"images/{number}/actions/{action['id']}"
    wait_for(calls, patience, path, there, patience.image)


def delete(calls: Calls, patience: Timeouts, image: Image) -> None:
    """Remove one image and see it gone. Raises `NotAllowed` if it is another's."""
    present = snapshot_of(calls, image.id)
    if present is None:
        return
    read = as_image(present)
    assert read is not None
    check_same(f"image {image.id}", read.tags, image.tags)
    _remove(calls, present)
    wait_for(
        calls,
        patience,
        "",
        lambda: snapshot_of(calls, image.id) is None,
        patience.gone,
    )
    tag_api.forget(calls, [metadata.of_image(read)])


def half_made(calls: Calls, box: str) -> list[Answer]:
    """Return the snapshots of a box that never became images."""
    ending = f".{metadata.escape(box)}."
    return [
        one
        for one in _private(calls)
        if str(one.get("name", "")).startswith("onebox.")
        and ending in str(one["name"])
        and metadata.read_image(one.get("tags") or []) is None
    ]


def remove_half_made(calls: Calls, box: str) -> None:
    """Remove what a crash has left of a box's snapshots."""
    for one in half_made(calls, box):
        _remove(calls, one)


def price(snapshot: Answer) -> float:
    """Return what a snapshot costs an hour."""
    size = float(snapshot.get("size_gigabytes") or 0)
    return size * SNAPSHOT_PRICE / MONTH_HOURS


def _private(calls: Calls) -> list[Answer]:
    return calls.all("images", "images", private="true")


def _name(owner: str, box: str, image: str) -> str:
    return ".".join(
        ["onebox", *(metadata.escape(part) for part in (owner, box, image))]
    )


def _named(calls: Calls, name: str) -> list[Answer]:
    found = [one for one in _private(calls) if one.get("name") == name]
    return sorted(found, key=lambda one: int(one["id"]))


def _snapshot(calls: Calls, patience: Timeouts, number: int, name: str) -> None:
    at = f"droplets/{number}/actions"

    def listed() -> bool:
        found = _named(calls, name)
        return bool(found) and found[0].get("status", "available") == "available"

    for _ in range(patience.tries):
        try:
            action = calls.post(at, {"type": "snapshot", "name": name})["action"]
        except Pending:
            calls.sleep(patience.look)
            continue
        except (Unclear, KeyError):
            # Never a second one: if it has begun, it shows among the actions.
            calls.sleep(patience.look)
            begun = [
                one
                for one in calls.all(at, "actions")
                if one.get("type") == "snapshot" and one.get("status") != "errored"
            ]
            if not begun:
                raise
            action = max(begun, key=lambda one: int(one["id"]))
        wait_for(calls, patience, f"{at}/{action['id']}", listed, patience.image)
        return
    raise Unclear(f"droplet {number} is busy and could not be saved", next="again")


def _make_ours(
    calls: Calls, patience: Timeouts, snapshot: Answer, image: Image
) -> Answer:
    word = metadata.of_image(image)
    tag_api.put_on(calls, word, "image", snapshot["id"])
    found: list[Answer] = []

    def shown() -> bool:
        present = snapshot_of(calls, image.id)
        found[:] = [present] if present else []
        return bool(found)

    wait_for(calls, patience, "", shown, max(patience.settle, patience.look))
    return found[0]


def _remove(calls: Calls, snapshot: Answer) -> None:
    with suppress(Gone):
        calls.delete(f"images/{snapshot['id']}")
