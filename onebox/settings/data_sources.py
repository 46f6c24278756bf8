"""Read the addresses in [push] data: what the box downloads, and where it puts it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from onebox.settings.checks import InvalidValue, in_project
from onebox.settings.quoting import show, suggest

SCHEMES = ("s3", "gs", "https")
_ARROW = " -> "
# An address with a slash too few.
_SLIP = re.compile(r"(?:s3|gs|https?):(?!//)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# S3 and Cloud Storage: 3 to 63 characters, with dots up to 222; old buckets of S3 may
# have capital letters and underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]")
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LOOPBACK = re.compile(r"(?:127\.[0-9.]+|localhost|\[::1\])(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class DataSource:
    """
    One address of [push] data, such as "s3://bucket/census/ -> data/".

    Attributes:
        scheme: "s3", "gs", "https", or "http" for a server on this machine.

        bucket: The name of the bucket, or the host of a web server with its port.

        key: The key of one object, or the beginning of the keys of many objects; it is
            "" or ends with "/" then. For a web server, the path and the query.

        target: The path in the project of the file, or of the folder for the files.
    """

    scheme: str
    bucket: str
    key: str
    target: str

    @property
    def is_folder(self) -> bool:
        """Return whether the address is that of many objects."""
        return not self.is_web and (not self.key or self.key.endswith("/"))

    @property
    def is_web(self) -> bool:
        """Return whether the address is that of a file on a web server."""
        return self.scheme in ("http", "https")

    @property
    def address(self) -> str:
        """Return the address as text."""
        slash = "" if self.is_web else "/"
        return f"{self.scheme}://{self.bucket}{slash}{self.key}"

    @property
    def shown(self) -> str:
        """Return the address without a query, which may hold a key."""
        return self.address.partition("?")[0] if self.is_web else self.address

    @classmethod
    def parse(cls, text: str) -> DataSource:
        """
        Return the source that a text of [push] data names.

        Raises:
            InvalidValue: The text is no address that the box can download from.
        """
        address, arrow, target = text.rpartition(_ARROW)
        if not arrow:
            address, target = text, ""
            if "->" in text:
                raise InvalidValue(f'{show(text)}: write " -> " with spaces')
        found = _SCHEME.fullmatch(address.strip())
        if found is None:
            raise InvalidValue(f"{show(text)} is no address")
        scheme, rest = found[1].lower(), found[2]
        bucket, slash, key = rest.partition("/")
        if scheme == "http" and not _LOOPBACK.fullmatch(bucket):
            raise InvalidValue(
                f"{show(address)}: plain http can be changed on its way; use https"
            )
        if scheme not in (*SCHEMES, "http"):
            raise InvalidValue(
                f"{show(address)} is no address that a box downloads from; these begin "
                f"with {', '.join(f'{name}://' for name in SCHEMES)}"
                + suggest(scheme, SCHEMES)
            )
        if scheme in ("http", "https"):
            source = cls._web(scheme, bucket, slash + key, address)
        else:
            if not _BUCKET.fullmatch(bucket):
                raise InvalidValue(f"{show(address)}: {show(bucket)} is no bucket")
            if "*" in key:
                raise InvalidValue(
                    f"{show(address)} is a pattern; name a prefix that ends with /"
                )
            source = cls(scheme, bucket, key, "")
        return source._with_target(target.strip(), text, explicit=bool(arrow))

    @classmethod
    def _web(cls, scheme: str, host: str, path: str, address: str) -> DataSource:
        if not _HOST.fullmatch(host):
            raise InvalidValue(f"{show(address)}: {show(host)} is no host")
        if not path.isascii() or not path.isprintable() or " " in path or "#" in path:
            raise InvalidValue(
                f"{show(address)}: write other characters than ASCII, spaces and # as "
                "%XX"
            )
        if path.partition("?")[0].endswith("/") or not path:
            raise InvalidValue(
                f"{show(address)} is a folder; a web server has files only"
            )
        return cls(scheme, host, path, "")

    def _with_target(self, target: str, text: str, *, explicit: bool) -> DataSource:
        name = self._own_name()
        if not explicit:
            target = name
        elif not target:
            raise InvalidValue(f"{show(text)} names no path after ->")
        elif target.endswith("/") and not self.is_folder:
            target += name
        if target.rstrip("/") in ("", ".", ".."):
            raise InvalidValue(
                f"{show(text)}: name a folder or file: {show(self.shown)} -> data/…"
            )
        in_project(target)
        parts = [part for part in target.split("/") if part not in ("", ".")]
        return DataSource(self.scheme, self.bucket, self.key, "/".join(parts))

    def _own_name(self) -> str:
        """Return the last part of the key, or the name of the bucket without a key."""
        if self.is_web:
            path = urlsplit(self.address).path
            return unquote(path.rpartition("/")[2])
        return self.key.rstrip("/").rpartition("/")[2] or self.bucket


def is_address(text: str) -> bool:
    """Return whether an entry of [push] data is an address, and no path."""
    return _SCHEME.match(text) is not None


def data(value: object) -> None:
    """Refuse an entry of [push] data that is neither a path nor an address."""
    for item in value if isinstance(value, tuple) else ():
        if is_address(item):
            DataSource.parse(item)
        elif _SLIP.match(item):
            scheme, rest = item.split(":", 1)
            meant = f"{scheme}://{rest.lstrip('/')}"
            raise InvalidValue(f"{show(item)} is no path; did you mean {show(meant)}?")
        else:
            in_project(item)
