"""
Store saved images on DigitalOcean, as snapshots with a tag of onebox.

A snapshot becomes an image when it gets the tag. The name of a snapshot holds its
owner, its box and its image, so that a snapshot without a tag, which a crash has left,
can be found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from onebox.errors import Gone, ProviderError, Unclear, UsageError
from onebox.providers.digitalocean import metadata, prices, tag_api
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.errors import Pending
from onebox.providers.kernel.images import ImageStore, check_stopped
from onebox.providers.kernel.servers import instances
from onebox.providers.kernel.servers.api import Resource, ServerAPI
from onebox.providers.values import Box, Image, SaveProgress, ignore_progress

GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Snapshots(ImageStore[Answer]):
    """
    The snapshots of the account, as images.

    The call that creates a snapshot accepts no tags. So *user_tags*, the tags of the
    user, are added before the tag that makes the snapshot an image.
    """

    cloud: Cloud
    api: ServerAPI
    user_tags: Sequence[str] = ()

    def search(self, key: Literal["owner", "image"], value: str) -> Sequence[Answer]:
        """
        Return the snapshots that are tagged as images.

        Their tags name the owner *value*, or the image id *value*, as *key* says.
        """
        found = [(one, self.read(one)) for one in _private(self.cloud)]
        if key == "owner":
            return [one for one, image in found if image and image.tags.owner == value]
        return [one for one, image in found if image and image.id == value]

    def read(self, resource: Answer) -> Image | None:
        """Return a snapshot as an image, None if it does not belong to onebox."""
        image = metadata.read_image(resource.get("tags") or [])
        if image is None:
            return None
        return replace(
            image,
            created=epoch_seconds(resource.get("created_at")),
            stored=round(float(resource.get("size_gigabytes") or 0) * GIGABYTE),
            places=tuple(str(region) for region in resource.get("regions") or []),
        )

    def is_ready(self, resource: Answer) -> bool:
        """Return True, because a snapshot gets its tag only when it is complete."""
        return True

    def create(self, box: Box, image: Image, progress: SaveProgress) -> None:
        """
        Save the disk of a droplet that is off, and tag the snapshot.

        Raises:
            Unclear: The snapshot may still be created. If the box is deleted, such a
                snapshot is deleted too.
        """
        droplet = instances.owned(self.api, box)
        check_stopped(box, droplet.state == "stopped")
        # This call comes before the snapshot, because it raises an error if the tag
        # would be too long.
        metadata.of_image(image)
        parts = (image.tags.owner, box.id, image.id)
        name = ".".join(["onebox", *map(metadata.escape, parts)])
        if not self._named(name):
            self._snapshot(droplet.id, name)
        snapshots = self._named(name)
        for duplicate in snapshots[1:]:
            self.remove(duplicate)
        self.mark(snapshots[0], image)

    def wait(self, image: Image, progress: SaveProgress) -> Answer | None:
        """
        Return the snapshot of an image, None if the lists do not show its tag in time.
        """
        limits = self.cloud.timeouts
        return self.cloud.poller.until(
            lambda: next(iter(self.own(image)), None),
            max(limits.consistency_lag, limits.poll_interval),
        )

    def remove(self, resource: Answer) -> None:
        """Delete a snapshot; a snapshot that is gone is no error."""
        with suppress(Gone):
            self.cloud.delete(f"images/{resource['id']}")

    def delete(self, image: Image) -> None:
        """Delete an image, wait until it is gone, and delete its tag."""
        tags = [metadata.of_image(i) for i in map(self.read, self.own(image)) if i]
        super().delete(image)
        if not tags:
            return
        gone = self.cloud.timeouts.deletion
        wait_for(self.cloud, "", lambda: not self.search("image", image.id), gone)
        tag_api.delete_unused(self.cloud, tags)

    def artifact(self, name: str) -> Answer:
        """
        Return the snapshot that Packer created.

        Args:
            name: What Packer reports: regions, a colon, and the snapshot's number.

        Raises:
            UsageError: The account has no such snapshot.
        """
        number = name.rpartition(":")[2]
        found = [one for one in _private(self.cloud) if str(one["id"]) == number]
        if not found:
            raise UsageError(
                f"this account of DigitalOcean has no snapshot {name!r}",
                next="check that the template's builder uses the same token",
            )
        return found[0]

    def mark(self, resource: Answer, image: Image) -> Answer:
        """Tag a snapshot as *image*; return it once the lists show the tag."""
        for tag in (*self.user_tags, metadata.of_image(image)):
            tag_api.add(self.cloud, tag, "image", resource["id"])
        shown = self.wait(image, ignore_progress)
        if shown is None:
            raise Unclear(
                f"the tag of image {image.id} does not show yet",
                next="inv image, in a minute",
            )
        return shown

    def bring(self, snapshot: Answer, region: str) -> None:
        """Copy a snapshot to a region that lacks it, and wait until it is there."""
        cloud, number = self.cloud, snapshot["id"]

        def exists() -> bool:
            return region in cloud.get(f"images/{number}")["image"]["regions"]

        if region in snapshot["regions"] or exists():
            return
        path = ""
        with suppress(Pending, Unclear):
            # If the image is busy or the response is lost, there is no action to wait
            # for. Then only the image's list of regions shows when the copy is
            # complete.
            action = cloud.post(
                f"images/{number}/actions", {"type": "transfer", "region": region}
            )["action"]
            path = f"images/{number}/actions/{action['id']}"
        wait_for(cloud, path, exists, cloud.timeouts.image)

    def _named(self, name: str) -> list[Answer]:
        found = [one for one in _private(self.cloud) if one.get("name") == name]
        return sorted(found, key=lambda one: int(one["id"]))

    def _snapshot(self, number: str, name: str) -> None:
        """
        Snapshot a droplet once it is not busy; wait until the lists show the snapshot.
        """
        cloud, path = self.cloud, f"droplets/{number}/actions"
        earlier = {one["id"] for one in self._snapshot_actions(path)}

        def is_listed() -> bool:
            found = self._named(name)
            return bool(found) and found[0].get("status", "available") == "available"

        def begin() -> Answer:
            body = {"type": "snapshot", "name": name}
            try:
                action: Answer = cloud.post(path, body)["action"]
            except (Unclear, KeyError) as error:
                # The call is not repeated, because that could create a second snapshot.
                # If the first call took effect, the droplet's actions list it.
                return self._begun(path, earlier, error)
            return action

        seconds = cloud.timeouts.attempts * cloud.timeouts.poll_interval
        action = self.api.when_free(begin, seconds)
        wait_for(cloud, f"{path}/{action['id']}", is_listed, cloud.timeouts.image)

    def _begun(self, path: str, earlier: Collection[int], error: Exception) -> Answer:
        """
        Return the snapshot action that a call without a response has begun.

        Args:
            earlier: The ids of the actions that were listed before the call.

            error: The error of the call; raised if the list shows no new action.
        """

        def look() -> Answer | None:
            actions = self._snapshot_actions(path)
            begun = [one for one in actions if one["id"] not in earlier]
            return max(begun, key=lambda one: int(one["id"]), default=None)

        action = self.cloud.poller.until(look, self.cloud.timeouts.poll_interval)
        if action is None:
            raise error
        return action

    def _snapshot_actions(self, path: str) -> list[Answer]:
        """Return the snapshot actions of a droplet that have not failed."""
        return [
            one
            for one in self.cloud.all(path, "actions")
            if one.get("type") == "snapshot" and one.get("status") != "errored"
        ]


def wait_for(cloud: Cloud, path: str, done: Callable[[], bool], seconds: float) -> None:
    """
    Wait until an action is completed and *done* returns true.

    Args:
        path: The API path of the action, "" if it is unknown and only *done* counts.

    Raises:
        ProviderError: The action failed.

        Unclear: The action takes longer than *seconds*.
    """
    status = "" if path else "completed"

    def is_done() -> bool:
        nonlocal status
        if status != "completed":
            try:
                status = str(cloud.get(path)["action"]["status"])
            except Gone:
                status = "completed"
        if status == "errored":
            raise ProviderError(f"DigitalOcean gave up on {path}", next="again, later")
        return status == "completed" and done()

    cloud.poller.require(is_done, seconds, path or "an action")


def half_made(cloud: Cloud) -> list[Resource]:
    """Return onebox's snapshots that lack an image tag, because of a crash."""
    found = []
    for one in _private(cloud):
        parts = str(one.get("name", "")).split(".")
        if parts[0] != "onebox" or len(parts) != 4:
            continue
        if metadata.read_image(one.get("tags") or []) is None:
            owner, box = map(metadata.unescape, parts[1:3])
            pairs = {"owner": owner, "box": box}
            price = prices.snapshot(one)
            found.append(Resource("snapshot", str(one["id"]), pairs, price))
    return found


def _private(cloud: Cloud) -> list[Answer]:
    return cloud.all("images", "images", private="true")
