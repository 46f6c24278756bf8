"""
The contract of a provider: create, find and delete boxes and images.

A provider stores nothing outside its cloud, prints nothing, and does not use
stages, ssh or Invoke. A call that creates something is idempotent by the id in its
arguments. A call that deletes something succeeds if that is gone already. Errors are
`ProviderError`, `UsageError` or `ConfigError`.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Collection, Sequence

from onebox.errors import NotAllowed, UsageError
from onebox.providers.values import (
    Box,
    Check,
    FreeObject,
    Image,
    Leftover,
    Offer,
    Request,
    Requirements,
)


class Provider(abc.ABC):
    """
    One cloud, or this machine.

    Attributes:
        consistency_lag: For how many seconds after a create `get` and `find` may miss
            the box, because the cloud's lists lag.

        poll_interval: The least number of seconds between two calls about one box.

        own_system: Whether a box has an operating system of its own, which is cleaned
            before it is saved. Otherwise only the home directory is its own.

        adopts: The Packer builders whose images `adopt_image` accepts.

        image_rate: The highest price of a GB of a saved image a month in USD, None if
            it is unknown.

        stopped_is_free: Whether a box that has powered itself off is billed only for
            its disk.

        unreachable_regions: The regions that the last `find` could not read, and why.

        unpriced: Why the last `offers` has unknown prices, "" if it has none.
    """

    name: str
    consistency_lag: float = 0.0
    poll_interval: float = 0.0
    own_system: bool = True
    adopts: tuple[str, ...] = ()
    image_rate: float | None = None
    stopped_is_free: bool = True
    unreachable_regions: tuple[str, ...] = ()
    unpriced: str = ""

    @abc.abstractmethod
    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """
        Return the offers for a size, best first; at least one.

        An offer is a type in one place, so a type may occur several times.

        Raises:
            UsageError: No type fits; the message names the nearest.
        """

    def also_refused(self, offer: Offer, limit: str, other: Offer) -> bool:
        """
        Return whether the limit that refused one offer refuses another one too.

        Args:
            limit: The name of the account's limit, as in `QuotaExceeded`.
        """
        return False

    def egress_rate(self, place: str) -> float | None:
        """Return the highest price of a GB from a place to the internet, in USD."""
        return None

    @abc.abstractmethod
    def base(self, name: str = "", arch: str = "") -> str:
        """
        Return the exact base image of a box without an image.

        It is part of the hash of every recipe: a new base makes a new image.

        Args:
            name: The base's name, such as "ubuntu-24.04".

            arch: The architecture, as in `Offer.arch`.

        Raises:
            UsageError: There is no such base.
        """

    @abc.abstractmethod
    def create(self, request: Request) -> Box:
        """
        Create the box, or return the one that this request has already created.

        The box may still be starting, and have no address: `get` shows both later.

        Raises:
            ProviderError: It was not created; nothing of it is left.

            Unclear: It may have been created: `get` shows it within `consistency_lag`.
        """

    @abc.abstractmethod
    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """
        Return every box and builder of this owner, stopped ones included.

        Args:
            also: Places to search, beside those of the settings.

            everywhere: Search every region that the account can use.
        """

    @abc.abstractmethod
    def get(self, box: str, place: str = "") -> Box | None:
        """
        Return the current state of a box, None if it does not exist.

        Args:
            place: Where it was created, if that is known.
        """

    @abc.abstractmethod
    def start(self, box: Box, deadline: float) -> Box:
        """Start a stopped box, with a new deadline (epoch seconds)."""

    @abc.abstractmethod
    def stop(self, box: Box) -> None:
        """Stop the box and wait until it has stopped; its disk stays."""

    @abc.abstractmethod
    def delete(self, box: Box) -> None:
        """
        Delete this box and all that was created with it.

        Raises:
            NotAllowed: The object of this id has other tags; it was not touched.
        """

    @abc.abstractmethod
    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Return every billed object that still belongs to this box id."""

    def free_objects(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeObject]:
        """
        Return the free objects of this owner, other than boxes.

        Args:
            gone: Boxes that are certainly deleted or were never created. The objects
                of a box that is only missing may still be needed.

            everywhere: Search every region that the account can use.
        """
        return ()

    def remove_free(self, owner: str, resource: FreeObject) -> None:
        """
        Delete one of the owner's free objects; an object that is gone is no error.

        Raises:
            ProviderError: A box of the owner needs it.

            NotAllowed: It belongs to another owner; it was not touched.
        """
        raise NotAllowed(f"{self.name} has no {resource.kind} that onebox can delete")

    @abc.abstractmethod
    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""

    @abc.abstractmethod
    def save(self, box: Box, image: Image) -> Image:
        """Save a stopped box's disk as *image* (its id, recipe and tags)."""

    @abc.abstractmethod
    def delete_image(self, image: Image) -> None:
        """Delete this image; an image that is gone is no error."""

    def adopt_image(self, id: str, image: Image) -> Image:
        """
        Tag an existing image as the owner's; idempotent.

        Args:
            id: The artifact as Packer names it.

            image: The id, name, recipe and tags that it gets.

        Raises:
            UsageError: This provider cannot adopt images.
        """
        raise UsageError(f"provider {self.name} cannot adopt the image {id}")

    @abc.abstractmethod
    def console(self, box: Box) -> str:
        """Return the last lines of the box's console."""

    @abc.abstractmethod
    def checks(self) -> Sequence[Check]:
        """Return the doctor's checks of all that a create call needs."""

    def set_host_key(self, box: Box, host_key: str) -> Box:
        """
        Store a box's new host key in the cloud, and return the box.

        Only a provider whose boxes have a `bootstrap_key` implements it.
        """
        raise UsageError(f"{self.name} does not replace the host keys of its boxes")

    def post_boot_script(self, box: Box) -> bytes:
        """
        Return a Python program for root, to run once after the box is up.

        It is sent over the verified connection, so it may hold a secret. b"" means
        that there is nothing to run.
        """
        return b""

    def allow_my_ip(self, box: Box) -> bool:
        """
        Open ssh to this machine's current address instead of the former one.

        Returns whether anything changed.
        """
        return False

    def now(self) -> float:
        """Return the time (epoch seconds) by the clock that the boxes use."""
        return time.time()

    def credentials_expire(self) -> float | None:
        """Return when (epoch seconds) the credentials expire, None if never."""
        return None

    def policy(self) -> str:
        """Return the least permissions that a user needs, in the cloud's format."""
        raise UsageError(f"provider {self.name} has no policy to print")
