"""Buckets, the versions of their objects, and the pages of their lists."""

from __future__ import annotations

import base64
import bisect
import functools
import hashlib
import itertools
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from tests.fakes.object_stores import checksums

Data = Union[bytes, Path]
_LAST = "\U0010ffff"
_BLOCK = 8 << 20
_generations = itertools.count(time.time_ns() // 1000)


@dataclass(frozen=True)
class Version:
    """
    One version of an object; the same one can stand under many keys.

    Attributes:
        data: Its bytes, or a file with them.

        etag: The ETag without quotes.

        modified: Seconds since the epoch.

        parts: The sizes of the parts as uploaded, none if it came in one request.

        headers: What each response repeats: the type, metadata, encryption.

        algorithm: S3's name of the checksum that the store has, "" for none.

        composite_checksum: The checksum of the parts' checksums, as S3 writes it; ""
            if the checksum is that of the whole object.

        composite: Whether Google has composed it, so that it has no MD5.

        deleted: Whether this is a delete marker.
    """

    data: Data
    etag: str
    modified: float
    parts: tuple[int, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    algorithm: str = ""
    composite_checksum: str = ""
    composite: bool = False
    deleted: bool = False
    storage_class: str = "STANDARD"
    generation: int = field(default_factory=lambda: next(_generations))
    version_id: str = "null"

    @functools.cached_property
    def size(self) -> int:
        """The number of bytes."""
        if isinstance(self.data, Path):
            return self.data.stat().st_size
        return len(self.data)

    def read(self) -> bytes:
        """Return all bytes."""
        return self.data.read_bytes() if isinstance(self.data, Path) else self.data

    @functools.cached_property
    def checksum(self) -> str:
        """The checksum in base64, which is computed when it is first read."""
        if self.composite_checksum or not self.algorithm:
            return self.composite_checksum
        if self.algorithm == "CRC32":
            # A file may be larger than the memory.
            register = 0
            for block in blocks(self.data):
                register = zlib.crc32(block, register)
            return base64.b64encode(register.to_bytes(4, "big")).decode()
        return checksums.encoded(self.algorithm, self.read())

    @property
    def checksum_type(self) -> str:
        """S3's name of what the checksum is of."""
        return "COMPOSITE" if self.composite_checksum else "FULL_OBJECT"

    @functools.cached_property
    def md5(self) -> bytes:
        """The MD5 of all bytes."""
        return md5(self.data)

    @functools.cached_property
    def crc32c(self) -> bytes:
        """The CRC-32C of all bytes."""
        return checksums.crc32c(self.read())


def blocks(data: Data, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Yield bytes, or a range of them, of which a file has more than fit in memory."""
    if isinstance(data, bytes):
        yield data[start:] if length is None else data[start : start + length]
        return
    with data.open("rb") as file:
        file.seek(start)
        left = data.stat().st_size - start if length is None else length
        while left > 0:
            block = file.read(min(left, _BLOCK))
            left -= len(block)
            yield block


def md5(data: Data, start: int = 0, length: int | None = None) -> bytes:
    """Return the MD5 of bytes, or of a range of them."""
    found = hashlib.md5()
    for block in blocks(data, start, length):
        found.update(block)
    return found.digest()


@dataclass(frozen=True)
class Page:
    """A page of a list; *last* is the key or prefix that it ends with, "" if all."""

    items: list[tuple[str, Version]]
    prefixes: list[str]
    last: str


@dataclass
class Bucket:
    """
    A bucket.

    Attributes:
        region: Where it is; requests for another region are refused.

        versioned: Whether it keeps what is replaced or deleted.

        public: Whether everyone may read its objects.

        listable: Whether a missing key is 404, as it is for who may list, or 403.
    """

    name: str
    region: str
    versioned: bool = False
    public: bool = False
    listable: bool = True
    _versions: dict[str, tuple[Version, ...]] = field(default_factory=dict)
    _sorted: list[str] = field(default_factory=list)

    def live(self, key: str) -> Version | None:
        """Return the current version, also a delete marker; None without one."""
        versions = self._versions.get(key)
        return versions[-1] if versions else None

    def version(self, key: str, **wanted: object) -> Version | None:
        """Return the version with this generation or version_id, None without it."""
        ((name, value),) = wanted.items()
        for one in self._versions.get(key, ()):
            if getattr(one, name) == value:
                return one
        return None

    def versions(self, key: str) -> tuple[Version, ...]:
        """Return all versions of a key, the oldest first."""
        return self._versions.get(key, ())

    def put(self, key: str, version: Version) -> None:
        """Make a version the current one."""
        before = self._versions.get(key, ()) if self.versioned else ()
        if key not in self._versions:
            self._sorted = []
        self._versions[key] = (*before, version)

    def put_many(self, keys: Iterable[str], version: Version) -> None:
        """Put the same version under many new keys."""
        shared = (version,)
        self._versions.update((key, shared) for key in keys)
        self._sorted = []

    def remove(self, key: str, version: Version | None = None) -> None:
        """Remove one version of a key, or all."""
        left = tuple(
            one
            for one in self._versions.get(key, ())
            if version is not None and one is not version
        )
        self._sorted = []
        if left:
            self._versions[key] = left
        else:
            self._versions.pop(key, None)

    def page(
        self, prefix: str, after: str, delimiter: str, limit: int, start: str = ""
    ) -> Page:
        """
        Return a page of the current objects, in the order of their UTF-8 bytes.

        Args:
            after: The key or common prefix after which the page begins, "" for none.

            start: The first key that the list may have, "" for any.
        """
        # The order of code points is that of UTF-8.
        keys = self._keys()
        place = bisect.bisect_left(keys, max(prefix, start))
        if after:
            ends = after.endswith(delimiter) if delimiter else False
            past = after + _LAST if ends else after
            place = max(place, bisect.bisect_right(keys, past))
        items: list[tuple[str, Version]] = []
        prefixes: list[str] = []
        last = ""
        while place < len(keys) and keys[place].startswith(prefix):
            key = keys[place]
            version = self._versions[key][-1]
            if version.deleted:
                place += 1
                continue
            if len(items) + len(prefixes) >= limit:
                return Page(items, prefixes, last)
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                last = key[: cut + len(delimiter)]
                prefixes.append(last)
                place = bisect.bisect_right(keys, last + _LAST, place)
            else:
                last = key
                items.append((key, version))
                place += 1
        return Page(items, prefixes, "")

    def _keys(self) -> list[str]:
        if len(self._sorted) != len(self._versions):
            self._sorted = sorted(self._versions)
        return self._sorted


@dataclass
class Upload:
    """A multipart or resumable upload that is not complete."""

    id: str
    bucket: str
    key: str
    headers: Mapping[str, str]
    algorithm: str = ""
    checksum_type: str = "COMPOSITE"
    storage_class: str = "STANDARD"
    started: float = field(default_factory=time.time)
    parts: dict[int, Version] = field(default_factory=dict)
    received: bytearray = field(default_factory=bytearray)
    total: int | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    json_api: bool = False
    done: Version | None = None
