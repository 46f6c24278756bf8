"""
Define an object store, and import the code of one when an address names it.

A store lists objects and makes links with which a box reads them. So the box needs no
credentials, and the bytes do not pass through this machine.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from onebox.errors import SetupError
from onebox.providers import PROVIDERS, with_bytecode
from onebox.settings.data_sources import DataSource

if TYPE_CHECKING:
    from onebox.settings.fields import ProviderTable

# How long a link is valid, in seconds. A box asks for a new one when it is too old.
LINK_SECONDS = 3600


class StoredObject(NamedTuple):
    """
    An object of a store.

    Attributes:
        key: The object's name in the store; "" for a file of a web server.

        version: What changes whenever the object is written.

        modified: When it was written (epoch seconds).

        md5: The MD5 sum of the contents in hex, "" if the store has none. With "-N" at
            its end it is that of an upload in N parts: the sum of the sums of the
            parts.
    """

    key: str
    size: int
    version: str
    modified: float
    md5: str = ""


@dataclass(frozen=True)
class Link:
    """
    How a box reads one object.

    Attributes:
        url: The address, which proves the permission.

        headers: The headers to send. They make the server refuse another version.

        ranges: Whether the server can send a part of the object.

        md5: The MD5 sum of the contents, or of the sums of their pieces; "" if it is
            unknown.

        piece: The size of these pieces in bytes, 0 if *md5* is that of the contents.

        etag, modified: The headers ETag and Last-Modified of this version, "" if they
            are not known. A response with another one is of another version.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True
    md5: str = ""
    piece: int = 0
    etag: str = ""
    modified: str = ""


class ObjectStore(ABC):
    """
    The objects that one kind of address leads to.

    Args:
        settings: The table of the provider that the store belongs to, if it does.

        own_box: Whether the box is one of that provider, so that its identity counts.
    """

    def __init__(
        self, settings: ProviderTable | None = None, *, own_box: bool = False
    ) -> None:
        self._settings = settings
        self._own_box = own_box

    @abstractmethod
    def find(self, source: DataSource) -> Iterator[list[StoredObject]]:
        """
        Yield the objects of a source, a page at a time; in a folder in order of keys.

        Raises:
            InputError: The bucket or the object does not exist.

            NotAllowed: These credentials may not list or read it.

            OneboxError: The store does not answer.
        """

    @abstractmethod
    def link(self, source: DataSource, found: StoredObject) -> Link | None:
        """
        Return a new link to an object; several threads may call this.

        Return None if the object is known not to be the listed one any more.

        Raises:
            NotAllowed: These credentials cannot make a link.
        """


# The module and the class of each kind of store.
_CLASSES = {
    "s3": ("aws", "aws.object_store:S3"),
    "gs": ("gcp", "gcp.object_store:GoogleStorage"),
    "https": ("", "kernel.web_files:WebFiles"),
    "http": ("", "kernel.web_files:WebFiles"),
}


class ObjectStores:
    """
    The stores of one command line, each created when it is used first.

    Args:
        tables: The providers' tables of onebox.toml.

        provider: The name of the provider whose boxes read the objects.
    """

    def __init__(self, tables: Mapping[str, ProviderTable], provider: str = "") -> None:
        self._tables = tables
        self._provider = provider
        self._open: dict[str, ObjectStore] = {}

    def of(self, source: DataSource) -> ObjectStore:
        """
        Return the store that a source is in.

        Raises:
            SetupError: The library that it needs is not installed.
        """
        store = self._open.get(source.scheme)
        if store is None:
            provider, place = _CLASSES[source.scheme]
            module, _, name = place.partition(":")
            try:
                with with_bytecode():
                    found = importlib.import_module(f".{module}", "onebox.providers")
            except ImportError as error:
                row = PROVIDERS[provider]
                raise SetupError(
                    f"{source.shown} needs {error.name}", next=row.missing_sdk
                ) from error
            create: Callable[..., ObjectStore] = getattr(found, name)
            store = create(
                self._tables.get(provider), own_box=provider == self._provider
            )
            self._open[source.scheme] = store
        return store
