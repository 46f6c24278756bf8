"""Find the size and the version of a file on a web server."""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import uuid
from collections.abc import Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from onebox.agent.file_names import printable
from onebox.errors import InputError, NotAllowed, OneboxError
from onebox.providers.kernel.errors import Unanswered
from onebox.providers.kernel.http import is_safe
from onebox.providers.kernel.retry import Retry
from onebox.providers.object_stores import Link, ObjectStore, StoredObject
from onebox.settings.data_sources import DataSource
from onebox.settings.fields import ProviderTable
from onebox.settings.quoting import show

_TIMEOUT = 30.0
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10
_TOTAL = re.compile(r"bytes 0-0/([0-9]{1,18})")


class WebFiles(ObjectStore):
    """
    Files on web servers that anyone may read.

    The size, the entity tag and the support of ranges come from a request for the first
    byte. Redirects are followed here, so that the box connects to no other host.
    """

    def __init__(
        self, settings: ProviderTable | None = None, *, own_box: bool = False
    ) -> None:
        super().__init__(settings, own_box=own_box)
        self._retry = Retry()

    def find(self, source: DataSource) -> Iterator[list[StoredObject]]:
        """See `ObjectStore.find`."""
        yield [self._probe(source)[0]]

    def link(self, source: DataSource, found: StoredObject) -> Link | None:
        """See `ObjectStore.link`."""
        # The target of a redirect may be valid for a short time only.
        now, link = self._probe(source)
        is_same = now.version == found.version or not (link.etag or link.modified)
        return link if is_same and now.size == found.size else None

    def _probe(self, source: DataSource) -> tuple[StoredObject, Link]:
        found: tuple[StoredObject, Link] = self._retry.call(lambda: self._once(source))
        return found

    def _once(self, source: DataSource) -> tuple[StoredObject, Link]:
        url = source.address
        for _ in range(_MOST_REDIRECTS):
            status, headers = _asked(source, url)
            if status not in _REDIRECTS:
                return _described(source, url, status, headers)
            url = _redirected(source, url, headers.get("Location", ""))
        raise InputError(
            f"{source.shown} redirects again and again", next="correct [push] data"
        )


def _first_byte(url: str) -> tuple[int, Message]:
    """Ask for the first byte; return the status and the headers of the response."""
    parts = urlsplit(url)
    kind = (
        http.client.HTTPSConnection
        if parts.scheme == "https"
        else http.client.HTTPConnection
    )
    connection = kind(parts.netloc, timeout=_TIMEOUT)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    words = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    try:
        connection.request("GET", target, headers=words)
        with connection.getresponse() as response:
            return response.status, response.headers
    finally:
        connection.close()


def _asked(source: DataSource, url: str) -> tuple[int, Message]:
    try:
        return _first_byte(url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # A library's message about an address contains it, with its query.
        reason = "its address is not valid"
        if isinstance(error, ssl.SSLError):
            reason = f"its TLS fails ({error.reason or type(error).__name__})"
        elif not isinstance(error, (http.client.InvalidURL, ValueError)):
            reason = printable(str(error) or type(error).__name__)[:200]
        raise Unanswered(
            f"{source.shown} cannot be reached: {reason}",
            next="correct [push] data, or try again when there is a network",
        ) from error


def _redirected(source: DataSource, url: str, location: str) -> str:
    """
    Return the address that a redirect leads to, which must not be less safe.

    Raises:
        InputError: It leaves https, and leads to no server on this machine either.
    """
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        is_safer = there.scheme == "https" and bool(there.hostname)
        is_local = here.scheme == there.scheme == "http" and is_safe(target)
    except ValueError:
        target, is_safer, is_local = location, False, False
    if not (is_safer or is_local):
        raise InputError(
            f"{source.shown} redirects to {show(target.partition('?')[0][:200])}, "
            "which is not https",
            next="correct [push] data",
        )
    return target


def _described(
    source: DataSource, url: str, status: int, headers: Message
) -> tuple[StoredObject, Link]:
    found = headers.get("Content-Range") or ""
    total = _TOTAL.fullmatch(found)
    length = total[1] if total else headers.get("Content-Length") or ""
    if status == 416 and found == "bytes */0":
        # An empty file has no first byte.
        length = "0"
    elif status not in (200, 206):
        raise _refused(source, status)
    if not re.fullmatch("[0-9]{1,18}", length) or (status == 206 and not total):
        raise InputError(
            f"{source.shown}: the server does not say how big it is",
            next="download it in the job, or put it into a bucket",
        )
    if (headers.get("Content-Encoding") or "identity") != "identity":
        raise InputError(
            f"{source.shown}: the server sends it compressed, unasked",
            next="download it in the job, or put it into a bucket",
        )
    etag = headers.get("ETag") or ""
    modified = headers.get("Last-Modified") or ""
    condition = {}
    if etag.startswith('"'):
        condition = {"If-Match": etag}
    elif modified:
        condition = {"If-Unmodified-Since": modified}
    text = f"{etag}\n{modified}\n{length}"
    if not (etag or modified):
        # Nothing tells two versions apart, so each is a new one, and is read in one
        # piece.
        text += uuid.uuid4().hex
    version = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
    stored = StoredObject("", int(length), version, _time(modified))
    ranges = status == 206 and bool(etag or modified)
    return stored, Link(url, condition, ranges, etag=etag, modified=modified)


def _time(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _refused(source: DataSource, status: int) -> OneboxError:
    """Return the error for a response without a file."""
    if status in (404, 410):
        return InputError(
            f"{source.shown} does not exist (HTTP {status})",
            next="correct [push] data",
        )
    if status in (401, 403):
        return NotAllowed(
            f"{source.shown}: the server wants to know who asks (HTTP {status})",
            next="download it in the job, with a secret of [run] secrets",
        )
    if status == 429 or status >= 500:
        return Unanswered(f"{source.shown}: HTTP {status}", next="later")
    return InputError(f"{source.shown}: the server answers with HTTP {status}")
