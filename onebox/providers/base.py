"""
The class `Provider` defines how boxes and images are created, found and deleted.

A provider stores nothing outside its cloud, prints nothing, and does not use
stages, ssh or Invoke. A call that creates an object can be repeated: the id in its
arguments makes sure that only one object is created. A call that deletes an object
succeeds if the object is gone already. A call raises `ProviderError`, `UsageError` or
`ConfigError`.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
    SaveProgress,
    ignore_progress,
)


class Provider(abc.ABC):
    """
    One cloud, or this machine.

    Attributes:
        consistency_lag: For how many seconds after a create call `get` and `find` may
            not show the new box, because the cloud updates its lists late.

        poll_interval: The least number of seconds between two calls about one box.

        own_system: Whether a box has an operating system of its own, which is cleaned
            before it is saved. Otherwise the box has only a home directory of its own.

        adopts: The types of the Packer builders whose images `adopt_image` accepts.

        image_rate: The highest price, in USD, for one GB of a saved image for one
            month; None if it is unknown.

        stopped_is_free: Whether a box that has powered itself off is billed only for
            its disk.

        powers_off: Whether a box powers itself off at its deadline. Otherwise it is a
            folder on a cluster, which costs nothing, and the deadline limits each job.

        downloads_data: Whether a box can download data for its job. The box of a Ray
            cluster is a folder of this machine, and its jobs run elsewhere.

        identity: What programs on a new box may act as in the cloud, "" for nothing. A
            builder never has an identity. `ProviderTable` has the setting.

        shares_ports: Whether a box has the network ports of this machine, so that its
            programs are reached without forwarding.

        unreachable_regions: The regions that the last call of `find` could not read,
            each with the reason.

        unreadable: What the last call of `find` or `images` could not read, by its id,
            each with a text that names its place. The owner may be unknown.

        undeletable: What the last call of `find` or `images` could not remove of this
            owner's deleted boxes and images: a text for each, with place and reason.

        unpriced: The reason why the last call of `offers` returned unknown prices, ""
            if it returned no unknown price.
    """

    name: str
    consistency_lag: float = 0.0
    poll_interval: float = 0.0
    own_system: bool = True
    adopts: tuple[str, ...] = ()
    image_rate: float | None = None
    stopped_is_free: bool = True
    powers_off: bool = True
    downloads_data: bool = True
    identity: str = ""
    shares_ports: bool = False
    unreachable_regions: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = MappingProxyType({})
    undeletable: Sequence[str] = ()
    unpriced: str = ""

    def log_in(self) -> None:  # noqa: B027 - most providers need no login
        """
        Ask the user in the terminal for what a login needs, such as a password.

        It is called once, before the first other call of a command. If no terminal is
        there, the next call fails instead.
        """

    @abc.abstractmethod
    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """
        Return at least one offer that meets the requirements, the best offer first.

        An offer is one machine type in one place, so the same type may occur several
        times.

        Raises:
            UsageError: No machine type fits; the message names the nearest ones.
        """

    def also_refused(self, offer: Offer, limit: str, other: Offer) -> bool:
        """
        Return whether the account's limit that refused *offer* also refuses *other*.

        Args:
            limit: The name of the limit, as `QuotaExceeded` reports it.
        """
        return False

    def job_limit(self, seconds: float) -> tuple[str, str]:
        """
        Return what limits the time of a job, and the setting that can change it.

        Args:
            seconds: See `longest_job`.
        """
        return f"[limits] max_hours = {seconds / 3600:g}", "[limits] max_hours"

    def check_task(  # noqa: B027 - most providers need no check
        self, cpus: int, memory: int, *, of_map: bool
    ) -> None:
        """
        Raise UsageError if no machine is large enough for a job, or a unit of `map`.

        A box runs both itself, so it is large enough, or one unit runs at a time. On a
        cluster, the size of a box is what all units together have at once.

        Args:
            cpus, memory: What it needs; memory is in bytes.

            of_map: Whether it is a unit.
        """

    def other_place(self, box: Box) -> str:
        """
        Return where a box is, if that is not where the settings want it, else "".

        Only a provider whose boxes cannot be used from there implements this method.
        """
        return ""

    def longest_job(self, seconds: float) -> float:
        """
        Return how many seconds a job may take at most, if `powers_off` is false.

        Args:
            seconds: The limit that the user has set.
        """
        return seconds

    def egress_rate(self, place: str) -> float | None:
        """
        Return the highest price (USD) of sending one GB from *place* to the internet.

        Return None if the price is unknown.
        """
        return None

    @abc.abstractmethod
    def base(self, name: str = "", arch: str = "") -> str:
        """
        Return the exact base image from which a box without a saved image starts.

        The result is part of the hash of every recipe, so that a new base image leads
        to a new saved image.

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

        The returned box may still be starting and have no address yet. `get` returns
        its state and its address later.

        Raises:
            ProviderError: The box was not created, and no part of it is left.

            Unclear: The box may have been created. If so, `get` shows it within
                `consistency_lag` seconds.
        """

    @abc.abstractmethod
    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """
        Return every box and builder of this owner, stopped ones included.

        Args:
            also: Places to search in addition to those in the settings.

            everywhere: Search every region that the account can use.
        """

    @abc.abstractmethod
    def get(self, box: str, place: str = "") -> Box | None:
        """
        Return the present state of the box *box*, None if it does not exist.

        Args:
            place: The place where the box was created, "" if that is unknown.
        """

    @abc.abstractmethod
    def start(self, box: Box, deadline: float) -> Box:
        """Start a stopped box, with a new deadline (epoch seconds)."""

    @abc.abstractmethod
    def stop(self, box: Box) -> None:
        """Stop the box and wait until it has stopped; its disk is kept."""

    @abc.abstractmethod
    def delete(self, box: Box) -> None:
        """
        Delete this box and every object that was created with it.

        Raises:
            NotAllowed: The object with this id has the tags of another owner or box;
                it was not changed.
        """

    @abc.abstractmethod
    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Return every billed object of the box *box* that still exists."""

    def free_objects(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeObject]:
        """
        Return the objects of this owner that cost nothing and are not boxes.

        Args:
            gone: The ids of boxes that are certainly deleted or were never created.
                A box that is not listed may still exist and need its objects.

            everywhere: Search every region that the account can use.
        """
        return ()

    def remove_free(self, owner: str, resource: FreeObject) -> None:
        """
        Delete one of the owner's free objects; an object that is gone is no error.

        Raises:
            ProviderError: A box of the owner needs the object.

            NotAllowed: The object belongs to another owner; it was not changed.
        """
        raise NotAllowed(f"{self.name} has no {resource.kind} that onebox can delete")

    @abc.abstractmethod
    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""

    @abc.abstractmethod
    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """
        Save a stopped box's disk under the id, recipe and tags of *image*.

        Args:
            progress: Is called with each fraction that the cloud reports. A cloud that
                reports none does not call it, and a fraction may be smaller than the
                one before.
        """

    @abc.abstractmethod
    def delete_image(self, image: Image) -> None:
        """Delete this image; an image that is gone is no error."""

    def adopt_image(self, id: str, image: Image) -> Image:
        """
        Give an existing image the owner's tags; the call can be repeated.

        Args:
            id: The name that Packer gives to the image that it has built.

            image: The id, name, recipe and tags that the existing image gets.

        Raises:
            UsageError: This provider cannot adopt images.
        """
        raise UsageError(f"provider {self.name} cannot adopt the image {id}")

    def packer_source(self, base: str) -> dict[str, Any]:
        """
        Return the variables with which a Packer template starts from a base image.

        Args:
            base: The exact base image, as `base` returns it.
        """
        return {"source_image": base}

    @abc.abstractmethod
    def console(self, box: Box) -> str:
        """Return the last lines of the box's console."""

    @abc.abstractmethod
    def checks(self) -> Sequence[Check]:
        """Check what a create call needs, and return the lines for `inv doctor`."""

    def set_host_key(self, box: Box, host_key: str) -> Box:
        """
        Store a box's new host key in the cloud, and return the box.

        Only a provider whose boxes have a `bootstrap_key` implements this method.
        """
        raise UsageError(f"{self.name} does not replace the host keys of its boxes")

    def post_boot_script(self, box: Box) -> bytes:
        """
        Return a Python program for root, to run once after the box is up.

        The program is sent over the verified connection, so it may hold a secret. The
        result b"" means that there is nothing to run.
        """
        return b""

    def allow_my_ip(self, box: Box) -> bool:
        """
        Open the ssh port of the box to the networks that may reach it now.

        These are this machine's present address, or `ssh_cidr` if it is set. A former
        address loses the access. Return whether a rule of the firewall was changed.
        """
        return False

    def now(self) -> float:
        """Return the time (epoch seconds) by the clock that the boxes use."""
        return time.time()

    def credentials_expire(self) -> float | None:
        """
        Return the time (epoch seconds) at which the credentials expire.

        Return None if they do not expire, or if the time is unknown.
        """
        return None

    def policy(self) -> str:
        """Return the least permissions that a user needs, in the cloud's format."""
        raise UsageError(f"provider {self.name} has no policy to print")
