"""
Every cloud saves, adopts and deletes images with these steps, which can be repeated.

The call that creates an image also writes its id and its owner. If a command crashes,
the same command therefore finds the image that the crashed one began, and continues
with it. No image is changed or deleted before its owner has been checked.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Generic, Literal, TypeVar

from onebox.errors import Gone, NotAllowed, ProviderError, Unclear
from onebox.providers.kernel.metadata import check_owner, identity
from onebox.providers.values import Box, Image, SaveProgress, ignore_progress

R = TypeVar("R")


def newest_first(images: Iterable[Image | None]) -> list[Image]:
    """Return the images that are not None, newest first."""
    present = [image for image in images if image is not None]
    return sorted(present, key=lambda image: (image.created, image.id), reverse=True)


def check_stopped(box: Box, stopped: bool) -> None:
    """Raise ProviderError if *stopped* is False: a running box cannot be saved."""
    if not stopped:
        raise ProviderError(f"box {box.id} must be stopped before it is saved")


class ImageStore(abc.ABC, Generic[R]):
    """
    The images of one cloud.

    A *resource*, of type *R*, is the cloud's own description of an image. Each cloud
    implements the abstract methods; its provider calls `save`, `adopt` and `delete`.
    """

    @abc.abstractmethod
    def search(self, key: Literal["owner", "image"], value: str) -> Sequence[R]:
        """
        Return the resources of the owner *value*, or those of the image id *value*.

        *key* says which of the two is meant. The resources can be in any state.
        """

    @abc.abstractmethod
    def read(self, resource: R) -> Image | None:
        """Return a resource as an image, None if it is not an image of onebox."""

    @abc.abstractmethod
    def is_ready(self, resource: R) -> bool:
        """Return whether a box can start from a resource now."""

    @abc.abstractmethod
    def create(self, box: Box, image: Image, progress: SaveProgress) -> None:
        """
        Begin to save the disk of a stopped box, unless an earlier call has begun it.

        *progress* is for a cloud in which this method waits until the disk is saved.
        """

    @abc.abstractmethod
    def wait(self, image: Image, progress: SaveProgress) -> R | None:
        """
        Wait for an image; return its ready resource, None if it does not become ready.
        """

    @abc.abstractmethod
    def remove(self, resource: R) -> None:
        """Delete a resource; a resource that is gone is no error."""

    @abc.abstractmethod
    def artifact(self, name: str) -> R:
        """
        Return the image that Packer built and names *name*.

        Raises Gone or UsageError if there is no such image.
        """

    @abc.abstractmethod
    def mark(self, resource: R, image: Image) -> R:
        """
        Tag a resource with the id and owner of *image*; return it with its new tags.
        """

    def of_owner(self, owner: str) -> list[Image]:
        """Return an owner's images that a box can start from, newest first."""
        ready = filter(self.is_ready, self.search("owner", owner))
        images = [image for image in map(self.read, ready) if image is not None]
        return newest_first(image for image in images if image.tags.owner == owner)

    def check_owner(self, resource: R, image: Image) -> None:
        """Raise NotAllowed unless a resource has the id and the owner of *image*."""
        present = self.read(resource)
        if present is None or present.id != image.id:
            raise NotAllowed(f"it is not image {image.id}: it was not touched")
        check_owner(f"image {image.id}", identity(present.tags), identity(image.tags))

    def own(self, image: Image) -> list[R]:
        """
        Return all resources that carry the id of *image*, in any state.

        Raises:
            NotAllowed: One of the resources belongs to another owner.
        """
        resources = list(self.search("image", image.id))
        for resource in resources:
            self.check_owner(resource, image)
        return resources

    def ready(self, image: Image) -> R | None:
        """
        Return a resource of *image* that a box can start from, None if there is none.
        """
        return next(filter(self.is_ready, self.own(image)), None)

    def usable(self, image: Image, where: str) -> R:
        """Return a resource of *image* that a box can start from, or raise Gone."""
        resource = self.ready(image)
        if resource is None:
            raise Gone(
                f"there is no image {image.id} ({image.name}) in {where}",
                next="inv image builds it, inv image --list shows those that exist",
            )
        return resource

    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """
        Save the disk of a stopped box, and wait until a box can start from it.

        Raises:
            Unclear: The image is not ready yet, but may still become ready.
        """
        resource = self.ready(image)
        if resource is None:
            self.create(box, image, progress)
            resource = self.wait(image, progress)
        saved = None if resource is None else self.read(resource)
        if saved is None:
            raise Unclear(
                f"image {image.id} was saved from {box.id}, but does not show yet",
                next="inv image waits for it; inv image --list shows it",
            )
        return saved

    def adopt(self, artifact: str, image: Image) -> Image:
        """
        Give the image that Packer built the id, name, recipe and tags of *image*.

        *artifact* is Packer's name for the image.

        Raises:
            NotAllowed: Packer's image is already another image of onebox.
        """
        resource = self.artifact(artifact)
        if self.read(resource) is not None:
            self.check_owner(resource, image)
        # An image that is adopted already is marked again, because an earlier command
        # may have crashed before it had set all tags.
        return self.read(self.mark(resource, image)) or image

    def delete(self, image: Image) -> None:
        """Delete an image; an image that is gone is no error."""
        for resource in self.own(image):
            self.remove(resource)
