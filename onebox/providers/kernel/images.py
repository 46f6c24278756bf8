"""
How every cloud saves, adopts and deletes an image, so that each can be repeated.

An image carries its id and its owner from the call on that creates it. After a crash
the same command therefore finds the image that an earlier one began, and goes on with
it. Nothing is changed or deleted before the owner has been checked.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from onebox.errors import Gone, ProviderError, Unclear
from onebox.providers.values import Box, Image

R = TypeVar("R")


def newest_first(images: Iterable[Image | None]) -> list[Image]:
    """Return images by their age, the newest first; None is left out."""
    present = [image for image in images if image is not None]
    return sorted(present, key=lambda image: (image.created, image.id), reverse=True)


def check_stopped(box: Box, stopped: bool) -> None:
    """Raise ProviderError unless a box that will be saved has stopped."""
    if not stopped:
        raise ProviderError(f"box {box.id} must be stopped before it is saved")


class ImageStore(abc.ABC, Generic[R]):
    """
    The images of one cloud. *R* is the cloud's own description of an image.

    A cloud implements the abstract methods; its provider calls `save`, `adopt` and
    `delete`.
    """

    @abc.abstractmethod
    def of_owner(self, owner: str) -> list[Image]:
        """Return an owner's images that a box can start from, newest first."""

    @abc.abstractmethod
    def find(self, image_id: str) -> Sequence[R]:
        """Return the resources with this image id, in any state."""

    @abc.abstractmethod
    def check_owner(self, resource: R, image: Image) -> None:
        """Raise NotAllowed unless a resource is this image of this owner."""

    @abc.abstractmethod
    def read(self, resource: R) -> Image | None:
        """Return a resource as an image, None if it is not one of onebox's."""

    @abc.abstractmethod
    def is_ready(self, resource: R) -> bool:
        """Return whether a box can start from a resource."""

    @abc.abstractmethod
    def create(self, box: Box, image: Image) -> None:
        """Save the disk of a stopped box, unless that has begun already."""

    @abc.abstractmethod
    def wait(self, image: Image) -> R | None:
        """Return the resource once it is ready, None if it does not become so."""

    @abc.abstractmethod
    def remove(self, resource: R) -> None:
        """Delete a resource; a resource that is gone is no error."""

    @abc.abstractmethod
    def artifact(self, name: str) -> R:
        """Return the image that Packer built. Raises Gone or UsageError."""

    @abc.abstractmethod
    def mark(self, resource: R, image: Image) -> R:
        """Write the id and the owner of an image to a resource; return it as it is."""

    def own(self, image: Image) -> list[R]:
        """
        Return the resources of an image, in any state.

        Raises:
            NotAllowed: One belongs to another owner.
        """
        resources = list(self.find(image.id))
        for resource in resources:
            self.check_owner(resource, image)
        return resources

    def ready(self, image: Image) -> R | None:
        """Return a resource of an image that a box can start from, None without one."""
        return next(filter(self.is_ready, self.own(image)), None)

    def usable(self, image: Image, where: str) -> R:
        """Return a resource of an image that a box can start from. Raises Gone."""
        resource = self.ready(image)
        if resource is None:
            raise Gone(
                f"there is no image {image.id} ({image.name}) in {where}",
                next="inv image builds it, inv image --list shows those that exist",
            )
        return resource

    def save(self, box: Box, image: Image) -> Image:
        """
        Save the disk of a stopped box, and wait until a box can start from it.

        Raises:
            Unclear: It may still become an image.
        """
        resource = self.ready(image)
        if resource is None:
            self.create(box, image)
            resource = self.wait(image)
        saved = None if resource is None else self.read(resource)
        if saved is None:
            raise Unclear(
                f"image {image.id} was saved from {box.id}, but does not show yet",
                next="inv image waits for it; inv image --list shows it",
            )
        return saved

    def adopt(self, artifact: str, image: Image) -> Image:
        """
        Turn an image that Packer built into *image*.

        Raises:
            NotAllowed: It is another image of onebox's already.
        """
        resource = self.artifact(artifact)
        if self.read(resource) is not None:
            self.check_owner(resource, image)
        # Repeated for an adopted image too: a crash may have left only some tags.
        return self.read(self.mark(resource, image)) or image

    def delete(self, image: Image) -> None:
        """Delete an image; an image that is gone is no error."""
        for resource in self.own(image):
            self.remove(resource)
