"""Read a range of an object over HTTP into a file, and repeat what fails."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import re
import socket
import ssl
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from .identity import BOX_IDENTITY, authorization

# A request fails if the server sends nothing for this many seconds.
SILENCE = 30.0
# The same if it sends fewer bytes a second than this, over that time.
LEAST_RATE = 1000
# A request that brings nothing is made this often: the pauses are 70 s in total.
ATTEMPTS = 9
# The same for a host that cannot be reached, which rarely helps: 12 s in total.
CONNECTS = 6
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 20.0
BUFFER = 1 << 20
# At most this many bytes of an error response are read.
LONGEST_ERROR = 1 << 14
# A thread keeps connections to this many hosts.
MOST_HOSTS = 4
MODIFIED = "Last-Modified"
DENIALS = (401, 403, 407, 451)
CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,60})</Code>")
# The codes with which S3 and Cloud Storage refuse a link that is too old. S3 answers
# AccessDenied, with this message, if the link's own time is over.
EXPIRED = (b"ExpiredToken", b"TokenRefreshRequired", b"<Message>Request has expired")
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")
# An attempt that brings at least this many bytes is not counted as failed.
PROGRESS_BYTES = 1 << 16


class Part(NamedTuple):
    """
    The part of an object that one task reads, from *start* to *end* (exclusive).

    *size* is that of the whole object. *whole* is set if no range is asked for.
    *md5_every* is the size of the pieces whose MD5 sums are computed; 0 computes none.
    A piece begins at *start*. *etag* and *modified* are the headers ETag and
    Last-Modified of the listed version, "" if they are not known.
    """

    url: str
    headers: Dict[str, str]
    start: int
    end: int
    size: int
    whole: bool
    md5_every: int
    etag: str
    modified: str


class Failed(Exception):
    """
    A part cannot be read; *kind* is the reason for programs, *message* for people.

    ============  ==================================================================
    kind          meaning
    ============  ==================================================================
    expired       the link is too old
    changed       the object is not the one that was listed, or it is gone
    no-ranges     the server does not support ranges
    denied        the server refuses the request
    unreachable   the host cannot be reached, or does not speak TLS that is trusted
    server        the server answers with errors, or breaks off again and again
    disk          the file cannot be written
    ============  ==================================================================
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class _Again(Exception):
    """An attempt failed; another one may succeed, after *pause* seconds at least."""

    def __init__(self, kind: str, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.pause = pause


class Reader:
    """
    Reads parts of objects, and keeps the connections open; for one thread.

    Args:
        moved: Is called with the number of bytes that were written just now.
    """

    def __init__(self, moved: Callable[[int], None]) -> None:
        self._moved = moved
        self._buffer = memoryview(bytearray(BUFFER))
        self._open: Dict[Tuple[str, str], http.client.HTTPConnection] = {}
        self._sums: List[str] = []
        self._sum: Any = None

    def read(self, part: Part, fd: int) -> Tuple[List[str], bool]:
        """
        Write a part to its place in a file.

        Returns:
            The MD5 sums of its pieces, in order, and whether they can be compared with
            those of the store. They cannot if the store has encrypted the object with a
            key of a customer: then its checksum is not that of the contents.

        Raises:
            Failed: The part cannot be read.
        """
        self._sums, self._sum = [], None
        at, comparable, attempt = part.start, True, 0
        while True:
            begun = at
            try:
                response = self._request(part, at)
                comparable = comparable and not _customer_key(response)
                for count in self._body(response, part, at):
                    self._write(fd, part, at, count)
                    at += count
                return self._sums, comparable
            except _Again as error:
                if part.whole and at > part.start:
                    # A server without ranges sends everything again.
                    self._moved(part.start - at)
                    at = part.start
                    self._sums, self._sum = [], None
                attempt = 0 if at - begun >= PROGRESS_BYTES else attempt + 1
                most = CONNECTS if error.kind == "unreachable" else ATTEMPTS
                if attempt >= most:
                    raise Failed(error.kind, error.message) from error
                pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
                # The pauses of many threads differ, so that their requests do not come
                # all at once.
                pause *= random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
                time.sleep(max(pause, error.pause))

    def _request(self, part: Part, at: int) -> http.client.HTTPResponse:
        headers = {"Accept-Encoding": "identity", **part.headers}
        if headers.get("Authorization") == BOX_IDENTITY:
            headers["Authorization"] = _as_box(part.url)
        if not part.whole:
            headers["Range"] = "bytes=%d-%d" % (at, part.end - 1)
        response = self._exchange(part.url, headers)
        status = response.status
        if status == 206 and not part.whole:
            found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not found or (int(found[1]), int(found[2])) != (at, part.size):
                raise self._ended(response, "changed", "it has another size now")
            self._check_version(response, part)
            return response
        if status == 200:
            self._check_version(response, part)
            if not part.whole:
                raise self._ended(response, "no-ranges", "the server has no ranges")
            if response.length is not None and response.length != part.size:
                raise self._ended(response, "changed", "it has another size now")
            return response
        self._refused(response)
        raise AssertionError  # never reached

    def _check_version(self, response: http.client.HTTPResponse, part: Part) -> None:
        """Raise Failed if a response says that it is of another version."""
        # Two servers of one address may report two times for one entity tag.
        name, expected = ("ETag", part.etag) if part.etag else (MODIFIED, part.modified)
        found = response.headers.get(name)
        if expected and found is not None and found != expected:
            raise self._ended(response, "changed", "it has another version now")

    def _exchange(self, url: str, headers: Dict[str, str]) -> http.client.HTTPResponse:
        """Send a request, and return the response; its body is not read yet."""
        parts = urlsplit(url)
        target = parts.path + ("?" + parts.query if parts.query else "")
        key = parts.scheme, parts.netloc
        while True:
            reused = key in self._open
            try:
                connection = self._open.get(key) or self._connect(key)
                connection.request("GET", target or "/", headers=headers)
                return connection.getresponse()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._close(key)
                if reused:
                    # The server has closed the connection after the last response.
                    continue
                raise _explained(error, parts.hostname or "") from error

    def _connect(self, key: Tuple[str, str]) -> http.client.HTTPConnection:
        scheme, netloc = key
        if len(self._open) >= MOST_HOSTS:
            for other in list(self._open):
                self._close(other)
        if scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                netloc, timeout=SILENCE, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(netloc, timeout=SILENCE)
        connection.connect()
        assert connection.sock is not None
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[key] = connection
        return connection

    def _close(self, key: Tuple[str, str]) -> None:
        connection = self._open.pop(key, None)
        if connection is not None:
            connection.close()

    def _body(self, response: http.client.HTTPResponse, part: Part, at: int) -> Any:
        """Yield the number of bytes that were read into the buffer, again and again."""
        looked, since = time.monotonic(), at
        try:
            while at < part.end:
                count = response.readinto(self._buffer[: part.end - at])
                if not count:
                    raise _Again("server", "the server breaks off")
                yield count
                at += count
                now = time.monotonic()
                if now > looked + SILENCE:
                    if at - since < LEAST_RATE * (now - looked):
                        raise _Again("server", "the server sends almost nothing")
                    looked, since = now, at
            # The end of a response is read, so that the connection can be used again.
            if response.length or (not response.isclosed() and response.read(1)):
                raise Failed("changed", "it is longer now")
        except (_Again, Failed):
            self._drop()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            raise _Again("server", "the connection breaks: %r" % error) from error

    def _drop(self) -> None:
        for key in list(self._open):
            self._close(key)

    def _write(self, fd: int, part: Part, at: int, count: int) -> None:
        data = self._buffer[:count]
        try:
            written = 0
            while written < count:
                written += os.pwrite(fd, data[written:], at + written)
        except OSError as error:
            raise Failed("disk", error.strerror or str(error)) from error
        if part.md5_every:
            self._add_sums(part, at, data)
        self._moved(count)

    def _add_sums(self, part: Part, at: int, data: memoryview) -> None:
        while len(data):
            if self._sum is None:
                self._sum = md5()
            into = (at - part.start) % part.md5_every
            piece = data[: part.md5_every - into]
            if self._sum is not None:
                self._sum.update(piece)
            at += len(piece)
            data = data[len(piece) :]
            if (at - part.start) % part.md5_every == 0 or at == part.end:
                self._sums.append(self._sum.hexdigest() if self._sum else "")
                self._sum = None

    def _ended(
        self, response: http.client.HTTPResponse, kind: str, message: str
    ) -> Failed:
        self._drop()
        return Failed(kind, message)

    def _refused(self, response: http.client.HTTPResponse) -> None:
        """Raise the exception that stands for a response with an error."""
        status = response.status
        try:
            body = response.read(LONGEST_ERROR)
        except (OSError, http.client.HTTPException, ValueError):
            body = b""
        self._drop()
        code = CODE.search(body)
        text = code[1].decode("ascii") if code else response.reason or ""
        message = "HTTP %d %s" % (status, text)
        if status in (404, 410, 412, 416):
            raise Failed("changed", message)
        if any(mark in body for mark in EXPIRED):
            raise Failed("expired", message)
        if status in (408, 429) or status >= 500 or text == "RequestTimeout":
            raise _Again("server", message, _retry_after(response))
        raise Failed("denied" if status in DENIALS else "server", message)


def _as_box(url: str) -> str:
    """Return the header with which the box reads an object as itself."""
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise Failed("denied", "a token of the box is sent over https only")
    try:
        return authorization()
    except OSError as error:
        raise Failed("denied", str(error)) from error


def md5() -> Any:
    """Return a new MD5 sum, None if this Python has no MD5."""
    try:
        return hashlib.md5()  # noqa: S324 - the checksum that stores keep
    except ValueError:
        # OpenSSL in FIPS mode.
        return None


def _customer_key(response: http.client.HTTPResponse) -> bool:
    """Return whether the object's checksum is not one of its contents."""
    names = (
        "x-amz-server-side-encryption-customer-algorithm",
        "x-goog-encryption-algorithm",
    )
    if any(response.headers.get(name) for name in names):
        return True
    return response.headers.get("x-amz-server-side-encryption", "AES256") != "AES256"


def _retry_after(response: http.client.HTTPResponse) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), 60.0) if re.fullmatch("[0-9]{1,9}", value) else 0.0


def _explained(error: Exception, host: str) -> Exception:
    if isinstance(error, ssl.SSLCertVerificationError):
        message = "the certificate of %s is not trusted: %s"
        return Failed("unreachable", message % (host, error.verify_message))
    if isinstance(error, (http.client.HTTPException, ConnectionResetError)):
        return _Again("server", "the connection to %s breaks: %r" % (host, error))
    if isinstance(error, socket.timeout):
        return _Again("unreachable", "%s does not answer" % host)
    reason: Optional[str] = getattr(error, "strerror", None)
    return _Again("unreachable", "%s cannot be reached: %s" % (host, reason or error))
