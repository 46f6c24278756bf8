"""What the providers of all clouds have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onebox.providers.base import Provider
from onebox.providers.kernel.images import ImageStore
from onebox.providers.values import Box, Image

CONSOLE_LINES = 40


class CloudProvider(Provider):
    """
    A provider with the egress prices, images and clock of a cloud.

    The constructor of a subclass sets the last two attributes.

    Attributes:
        egress_rates: The highest price of a GB to the internet in USD, by the first
            word of a region's name; "" is any region. Others are unknown.

        clock: Returns the time (epoch seconds) by the cloud's clock; this machine's
            before the first call.

        image_store: The saved images.
    """

    egress_rates: Mapping[str, float] = {}
    clock: Callable[[], float]
    image_store: ImageStore[Any]

    def egress_rate(self, place: str) -> float | None:
        """Return the highest price of a GB from a place to the internet, in USD."""
        word = "" if "" in self.egress_rates else place.partition("-")[0]
        return self.egress_rates.get(word)

    def now(self) -> float:
        """Return the time by the cloud's clock."""
        return self.clock()

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""
        return self.image_store.of_owner(owner)

    def save(self, box: Box, image: Image) -> Image:
        """Save a stopped box's disk as an image in the box's region."""
        return self.image_store.save(box, image)

    def delete_image(self, image: Image) -> None:
        """Delete this image in all its regions; an image that is gone is no error."""
        self.image_store.delete(image)

    def adopt_image(self, id: str, image: Image) -> Image:
        """Turn an image that Packer built into *image*."""
        return self.image_store.adopt(id, image)


def last_lines(console: str) -> str:
    """Return the last lines of a console."""
    return "\n".join(console.splitlines()[-CONSOLE_LINES:])
