"""The providers of all clouds inherit from the class `CloudProvider`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onebox.providers.base import Provider
from onebox.providers.kernel.images import ImageStore
from onebox.providers.values import Box, Image, SaveProgress, ignore_progress

CONSOLE_LINES = 40


class CloudProvider(Provider):
    """
    A provider with the egress prices, images and clock of a cloud.

    The constructor of a subclass sets *clock*. It also sets *image_store*, unless the
    subclass overrides the methods for images.

    Attributes:
        egress_rates: The highest prices (USD) of a GB sent to the internet. A key is
            the first word of a region's name, such as "us". The key "" stands for every
            region. The price of a region that matches no key is unknown.

        clock: Returns the time (epoch seconds) by the cloud's clock. Before the first
            answer of the cloud it is the time of this machine.

        image_store: The saved images of the cloud.
    """

    egress_rates: Mapping[str, float] = {}
    clock: Callable[[], float]
    image_store: ImageStore[Any]

    def egress_rate(self, place: str) -> float | None:
        """Return the highest price (USD) of a GB sent from *place* to the internet."""
        word = "" if "" in self.egress_rates else place.partition("-")[0]
        return self.egress_rates.get(word)

    def now(self) -> float:
        """Return the time by the cloud's clock."""
        return self.clock()

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""
        return self.image_store.of_owner(owner)

    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """Save a stopped box's disk as an image in the box's region."""
        return self.image_store.save(box, image, progress)

    def delete_image(self, image: Image) -> None:
        """Delete an image in all its regions; an image that is gone is no error."""
        self.image_store.delete(image)

    def adopt_image(self, id: str, image: Image) -> Image:
        """
        Give the image that Packer names *id* the id, name, recipe and tags of *image*.
        """
        return self.image_store.adopt(id, image)


def last_lines(console: str) -> str:
    """Return the last CONSOLE_LINES lines of a console's text."""
    return "\n".join(console.splitlines()[-CONSOLE_LINES:])
