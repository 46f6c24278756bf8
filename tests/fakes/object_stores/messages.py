"""Requests and responses of the object stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from urllib.parse import unquote_plus

from tests.fakes.object_stores.objects import Data


@dataclass
class ReceivedRequest:
    """
    One request in the log.

    Attributes:
        path: The decoded path.

        query: The parameters; of a repeated one, the last.

        range: The header Range, "" without one.

        remote: The client's address and port, one for each connection.

        status: The status of the response, 0 as long as there is none.

        sent: The bytes of the body that were sent.
    """

    method: str
    path: str
    query: Mapping[str, str]
    range: str
    remote: tuple[str, int]
    status: int = 0
    sent: int = 0


@dataclass(frozen=True)
class Request:
    """A request as it came: the target is not decoded."""

    method: str
    target: str
    headers: Message
    body: bytes
    secure: bool

    @property
    def raw_path(self) -> str:
        """The path, percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def raw_query(self) -> str:
        """The query string, percent-encoded."""
        return self.target.partition("?")[2]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The decoded parameters in their order."""
        found = []
        for part in filter(None, self.raw_query.split("&")):
            name, _, value = part.partition("=")
            found.append((unquote_plus(name), unquote_plus(value)))
        return found

    def header(self, name: str, default: str = "") -> str:
        """Return a header."""
        return str(self.headers.get(name, default))


@dataclass
class Reply:
    """
    A response.

    Attributes:
        headers: A value of several lines is sent as so many headers.

        body: The bytes, or a file.

        start: The first byte of the body that is sent, which is also its offset in the
            object.

        length: The number of bytes from there, None for all.

        declared: The Content-Length to send, None for the true one.

        chunked: Whether it is sent in chunks, without a length.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Data = b""
    start: int = 0
    length: int | None = None
    declared: int | None = None
    chunked: bool = False

    @property
    def size(self) -> int:
        """The number of bytes to send."""
        if self.length is not None:
            return self.length
        whole = (
            self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)
        )
        return whole - self.start


class Refusal(Exception):
    """A refused request, with the response that says so."""

    def __init__(self, reply: Reply, why: str = "") -> None:
        super().__init__(why or f"HTTP {reply.status}")
        self.reply = reply
