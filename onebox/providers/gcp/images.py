"""Store saved images in Google Cloud, as images of the project with onebox's labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from onebox.errors import (
    Gone,
    NotAllowed,
    OneboxError,
    Unclear,
    UsageError,
)
from onebox.providers.gcp import instances, metadata
from onebox.providers.gcp.client import Cloud
from onebox.providers.gcp.settings import region_of
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.images import ImageStore, check_stopped
from onebox.providers.values import Box, Image, SaveProgress

_ARCHES = {"X86_64": "x86_64", "ARM64": "aarch64"}
# Saving an image may take this long, because a large disk takes long to copy.
_SAVE_SECONDS = 3600.0
_ADDRESS = re.compile(r"(?:.*/)?projects/([^/]+)/global/images/(family/)?([^/]+)")
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")


def get(cloud: Cloud, image: str) -> Any:
    """
    Return the API's resource for an image.

    Args:
        image: The name of an image in the project, or the address of an image or of an
            image family in any project.

    Raises:
        UsageError: The image does not exist.
    """
    shared = _ADDRESS.fullmatch(image)
    name = shared[3] if shared else image
    family = bool(shared and shared[2])
    if not _NAME.fullmatch(name):
        raise UsageError(f"{image!r} cannot be an image of Google Cloud")
    try:
        return cloud.ask(
            "images",
            "get_from_family" if family else "get",
            f"looking for image {image}",
            project=project_of(cloud, image),
            **{"family" if family else "image": name},
        )
    except Gone as error:
        raise UsageError(
            f"there is no image {image} on Google Cloud: {error.message}",
            next="inv image --list",
        ) from error


def address(cloud: Cloud, image: str) -> str:
    """
    Return the address of an image, in the form that the call for a new disk expects.
    """
    shared = _ADDRESS.fullmatch(image)
    if shared:
        return image[image.index("projects/") :]
    return f"projects/{cloud.project}/global/images/{image}"


def project_of(cloud: Cloud, image: str) -> str:
    """Return the project that an image belongs to."""
    shared = _ADDRESS.fullmatch(image)
    return shared[1] if shared else cloud.project


@dataclass(frozen=True)
class ProjectImages(ImageStore[Any]):
    """The saved images of the project; the id of an image is its name there."""

    cloud: Cloud

    def search(self, key: Literal["owner", "image"], value: str) -> Sequence[Any]:
        """Return the images with the label of this owner, or the image of this name."""
        if key == "owner":
            owned = metadata.owner_filter(value)
            return list(self.cloud.list("images", "looking for images", filter=owned))
        doing = f"looking for image {value}"
        try:
            return [self.cloud.ask("images", "get", doing, image=value)]
        except Gone:
            return []

    def check_owner(self, resource: Any, image: Image) -> None:
        """Raise NotAllowed unless the labels of a resource are those of this image."""
        if not metadata.is_owned(resource.labels, image.id, image.tags):
            raise NotAllowed(
                f"image {image.id} carries other labels than expected: it was not "
                "touched"
            )

    def read(self, resource: Any) -> Image | None:
        """Return a resource as an `Image`, None if it does not belong to onebox."""
        record = metadata.read_record(resource.description)
        tags = metadata.read_tags(resource.labels, record)
        if tags is None:
            return None
        recipe = resource.labels.get("onebox-recipe", "")
        return Image(
            id=resource.name,
            name=record.get("image-name", resource.name),
            recipe=record.get("recipe", metadata.decoded(recipe)),
            created=epoch_seconds(resource.creation_timestamp),
            stored=int(resource.archive_size_bytes),
            arch=_ARCHES.get(resource.architecture, ""),
            tags=tags,
            base=record.get("base", ""),
            disk=int(resource.disk_size_gb) << 30,
        )

    def is_ready(self, resource: Any) -> bool:
        """Return whether a disk can be created from an image."""
        return resource.status in ("READY", "")

    def create(self, box: Box, image: Image, progress: SaveProgress) -> None:
        """Save the disk of a stopped box, in the region of the box, and wait."""
        instance = instances.owned(self.cloud, box)
        check_stopped(box, instances.state(instance) == "stopped")
        disk = next(disk.source for disk in instance.disks if disk.boot)
        doing = f"saving {box.id} as image {image.id}"
        system = instances.read_record(instance).get("system", "")
        try:
            operation = self.cloud.change(
                "images",
                "insert",
                doing,
                token=f"{image.id} {instance.id}",
                image_resource={
                    "name": image.id,
                    "family": _family(image),
                    "description": metadata.image_record(image, system),
                    "source_disk": disk[disk.index("projects/") :],
                    "labels": self._labels(image),
                    # Without this field Google stores the image in several countries,
                    # which costs more.
                    "storage_locations": [region_of(box.place)],
                },
            )
            self.cloud.wait(
                operation,
                doing,
                _SAVE_SECONDS,
                lambda latest: progress(latest.progress / 100, 0),
            )
        except (Exists, Unclear):
            # The image may exist: an earlier attempt created it, or another owner did.
            # `wait` checks which.
            return
        except OneboxError:
            # Google keeps an image whose creation failed, and bills it. So it is
            # deleted.
            self.delete(image)
            raise

    def wait(self, image: Image, progress: SaveProgress) -> Any:
        """
        Return the image's resource, or None if the image is not ready.

        This method does not wait, because `create` has waited already.
        """
        return self.ready(image)

    def remove(self, resource: Any) -> None:
        """Delete an image; an image that is gone is no error."""
        name = resource.name
        with suppress(Gone):
            self.cloud.do("images", "delete", f"deleting image {name}", image=name)

    def artifact(self, name: str) -> Any:
        """
        Return the image that Packer built. Raises UsageError if it does not exist.
        """
        return get(self.cloud, name)

    def mark(self, resource: Any, image: Image) -> Any:
        """
        Write the description and labels of *image* to a resource; return the resource.

        Nothing is written if the resource already has the labels of onebox.
        """
        if self.read(resource) is not None:
            return resource
        doing, name = f"adopting image {resource.name}", resource.name
        description = {
            "family": _family(image),
            "description": metadata.image_record(image, ""),
        }
        self.cloud.do("images", "patch", doing, image=name, image_resource=description)
        # The labels are set last. If a crash leaves the image without labels, the next
        # adoption starts again from the beginning.
        self.cloud.do(
            "images",
            "set_labels",
            doing,
            # The method accepts no token. A repetition changes nothing, because Google
            # rejects a fingerprint that is out of date.
            token=None,
            resource=name,
            global_set_labels_request_resource={
                "labels": {**resource.labels, **self._labels(image)},
                "label_fingerprint": resource.label_fingerprint,
            },
        )
        return get(self.cloud, name)

    def adopt(self, artifact: str, image: Image) -> Image:
        """
        Mark the image that Packer built, named *artifact*, as *image*.

        The id of the returned image is the name of Packer's image.
        """
        name = self.artifact(artifact).name
        return super().adopt(artifact, replace(image, id=name))

    def _labels(self, image: Image) -> dict[str, str]:
        """Return the labels of an image: the user's, and those of onebox."""
        return {
            **self.cloud.settings.tags,
            **metadata.labels(image.id, image.tags),
            "onebox-recipe": metadata.encoded(image.recipe),
        }


def _family(image: Image) -> str:
    """
    Return the name of Google's image family to which an image belongs.

    Images of the same owner, project and name belong to the same family.
    """
    text = f"onebox-{image.tags.owner}-{image.tags.project}-{image.name}".lower()
    return re.sub(r"[^a-z0-9-]+", "-", text)[:63].strip("-")
