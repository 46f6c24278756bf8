"""The protocol by which every cloud saves, adopts and deletes an image."""

from __future__ import annotations

import dataclasses
from typing import Literal, cast

import pytest

from onebox.errors import Gone, NotAllowed, Unclear
from onebox.providers.kernel.images import ImageStore, newest_first
from onebox.providers.values import Box, Image, SaveProgress, Tags

TAGS = Tags("owner", "project", "main", 0.0, "0", "image")
IMAGE = Image("im-1", "project", "0123", 1.0, 0, "x86_64", TAGS)
BOX = cast(Box, dataclasses.make_dataclass("AnyBox", [("id", str)])("ob-1"))


@dataclasses.dataclass
class Resource:
    """An image in the cloud; *image* is what its tags hold."""

    image: Image | None
    ready: bool = True


class Store(ImageStore[Resource]):
    """A cloud in memory."""

    def __init__(self, *resources: Resource) -> None:
        self.resources = list(resources)
        self.created = 0
        self.shows = True

    def search(self, key: Literal["owner", "image"], value: str) -> list[Resource]:
        """Return the resources with this owner or id."""
        found = [(r, r.image) for r in self.resources]
        if key == "owner":
            return [r for r, image in found if image and image.tags.owner == value]
        return [r for r, image in found if image and image.id == value]

    def read(self, resource: Resource) -> Image | None:
        """Return the image in the tags."""
        return resource.image

    def is_ready(self, resource: Resource) -> bool:
        """Return whether it is ready."""
        return resource.ready

    def create(self, box: Box, image: Image, progress: SaveProgress) -> None:
        """Create a resource, unless there is one of this name."""
        self.created += 1
        if not self.search("image", image.id):
            self.resources.append(Resource(image, ready=False))

    def wait(self, image: Image, progress: SaveProgress) -> Resource | None:
        """Let the resource become ready."""
        if not self.shows:
            return None
        [resource] = self.own(image)
        resource.ready = True
        return resource

    def remove(self, resource: Resource) -> None:
        """Delete a resource."""
        self.resources.remove(resource)

    def artifact(self, name: str) -> Resource:
        """Return the first resource."""
        return self.resources[0]

    def mark(self, resource: Resource, image: Image) -> Resource:
        """Tag a resource."""
        resource.image = image
        return resource


def of_another(image: Image = IMAGE) -> Image:
    """Return the image with another owner."""
    return dataclasses.replace(
        image, tags=dataclasses.replace(image.tags, owner="another")
    )


def test_a_saved_image_is_not_saved_again() -> None:
    """A second save returns the image that is there."""
    store = Store()
    assert store.save(BOX, IMAGE) == IMAGE
    assert store.save(BOX, IMAGE) == IMAGE
    assert store.created == 1


def test_a_save_goes_on_after_a_crash() -> None:
    """An image that is not ready yet is waited for, and there is still one."""
    store = Store(Resource(IMAGE, ready=False))
    assert store.save(BOX, IMAGE) == IMAGE
    assert len(store.resources) == 1


def test_a_save_that_does_not_show_is_unclear() -> None:
    """An image that was begun may still appear."""
    store = Store()
    store.shows = False
    with pytest.raises(Unclear):
        store.save(BOX, IMAGE)


@pytest.mark.parametrize("call", ["save", "adopt", "delete"])
def test_the_image_of_another_owner_is_not_touched(call: str) -> None:
    """The owner is checked before anything is created, tagged or deleted."""
    store = Store(Resource(of_another()))
    with pytest.raises(NotAllowed):
        if call == "save":
            store.save(BOX, IMAGE)
        elif call == "adopt":
            store.adopt("artifact", IMAGE)
        else:
            store.delete(IMAGE)
    assert store.resources == [Resource(of_another())]
    assert store.created == 0


def test_an_adopted_image_carries_the_tags() -> None:
    """An image that Packer built becomes one of onebox's, also when asked twice."""
    store = Store(Resource(None))
    assert store.adopt("artifact", IMAGE) == IMAGE
    assert store.adopt("artifact", IMAGE) == IMAGE
    assert store.resources[0].image == IMAGE


def test_an_image_that_is_gone_can_be_deleted() -> None:
    """Deleting twice is fine."""
    store = Store(Resource(IMAGE))
    store.delete(IMAGE)
    store.delete(IMAGE)
    assert store.resources == []


def test_images_are_listed_newest_first() -> None:
    """The order is by the time of creation."""
    older = dataclasses.replace(IMAGE, id="im-0", created=0.5)
    assert newest_first([older, IMAGE]) == [IMAGE, older]


def test_a_box_cannot_start_from_an_image_that_is_not_ready() -> None:
    """Only a resource that is ready is usable; otherwise the image counts as gone."""
    ready = Resource(IMAGE)
    assert Store(Resource(IMAGE, ready=False), ready).usable(IMAGE, "here") is ready
    with pytest.raises(Gone, match=r"no image im-1 .* in here"):
        Store(Resource(IMAGE, ready=False)).usable(IMAGE, "here")
