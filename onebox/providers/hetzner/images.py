"""On Hetzner a saved image is a snapshot, and all locations hold it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from hcloud.images import BoundImage
from hcloud.servers import BoundServer

from onebox.errors import Gone, ProviderError, Unclear, UsageError
from onebox.providers.hetzner.api import HetznerAPI
from onebox.providers.hetzner.client import Cloud
from onebox.providers.hetzner.machine_types import ARCHES, GB
from onebox.providers.hetzner.metadata import from_labels, selector
from onebox.providers.kernel.images import ImageStore, check_stopped
from onebox.providers.kernel.metadata import image_pairs, read_tags
from onebox.providers.kernel.servers import deletion, instances
from onebox.providers.kernel.servers.api import Resource
from onebox.providers.values import Box, Image, SaveProgress


@dataclass(frozen=True)
class Snapshots(ImageStore[BoundImage]):
    """
    The snapshots of the project, as images.

    The call that creates a snapshot also sets its labels.
    """

    cloud: Cloud
    api: HetznerAPI

    def search(self, key: Literal["owner", "image"], value: str) -> list[BoundImage]:
        """Return the snapshots whose labels say that *key* is *value*, in any state."""
        wanted = selector(**{key: value})
        return self.cloud.images.get_all(type=["snapshot"], label_selector=wanted)

    def read(self, resource: BoundImage) -> Image | None:
        """Return a snapshot as an image, None if it does not belong to onebox."""
        pairs = from_labels(resource.labels)
        tags = read_tags(pairs)
        if tags is None:
            return None
        return Image(
            id=pairs.get("image", ""),
            name=pairs.get("image-name", ""),
            recipe=pairs.get("recipe", ""),
            created=resource.created.timestamp() if resource.created else 0.0,
            stored=round((resource.image_size or 0) * GB),
            arch=ARCHES[str(resource.architecture)],
            tags=tags,
            base=pairs.get("base", ""),
            disk=round((resource.disk_size or 0) * GB),
        )

    def is_ready(self, resource: BoundImage) -> bool:
        """Return whether a server can be created from a snapshot."""
        return resource.status == "available"

    def create(self, box: Box, image: Image, progress: SaveProgress) -> None:
        """
        Begin to save the disk of a stopped box, unless an earlier call has begun it.
        """
        if self.search("image", image.id):
            return
        server = instances.owned(self.api, box)
        check_stopped(box, server.state == "stopped")
        labels = self.api.labels(image_pairs(image))
        # If the response is lost, only the list of snapshots shows whether saving has
        # begun.
        with suppress(Unclear):
            self.api.when_free(
                lambda: server.raw.create_image(image.name, "snapshot", labels),
                self.api.timeouts.action,
            )

    def wait(self, image: Image, progress: SaveProgress) -> BoundImage | None:
        """
        Return the snapshot of an image once it is complete.

        Return None if the lists do not show it, or if it is not complete in time.
        Raises ProviderError if Hetzner has removed it, because its creation failed.
        """
        limits, poller = self.api.timeouts, self.api.poller
        if not poller.until(lambda: self.own(image), limits.consistency_lag):
            return None

        def complete() -> list[BoundImage] | None:
            found = self.own(image)
            ready = [one for one in found if self.is_ready(one)]
            # Hetzner removes a snapshot whose creation failed.
            if not found:
                raise ProviderError(f"saving {image.id} failed", next="inv image")
            if not ready:
                # The snapshot itself has no figure. If the call for the action fails,
                # only the progress is unknown.
                with suppress(ProviderError):
                    _report(found[0], progress)
            return ready or None

        ready = poller.until(complete, limits.image)
        return ready[0] if ready else None

    def remove(self, resource: BoundImage) -> None:
        """Delete a snapshot; a snapshot that is gone is no error."""
        snapshot = Resource("snapshot", str(resource.id), {}, raw=resource)
        deletion.destroy(self.api, snapshot)

    def artifact(self, name: str) -> BoundImage:
        """Return the snapshot that Packer created; *name* is its number."""
        with suppress(Gone, ValueError):
            return self.cloud.images.get_by_id(int(name))
        raise UsageError(f"this project of Hetzner has no snapshot {name!r}")

    def mark(self, resource: BoundImage, image: Image) -> BoundImage:
        """
        Add the labels of *image* to a snapshot; return the snapshot with its labels.
        """
        labels = {**(resource.labels or {}), **self.api.labels(image_pairs(image))}
        return resource.update(labels=labels)


def _report(snapshot: BoundImage, progress: SaveProgress) -> None:
    """Report the progress of the action that creates a snapshot, if it is known."""
    server = snapshot.created_from
    if not isinstance(server, BoundServer):
        return
    for action in server.get_actions(status=["running"]):
        if action.command == "create_image" and isinstance(action.progress, int):
            progress(action.progress / 100, 0)
