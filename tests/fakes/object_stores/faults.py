"""The faults that a test requests of an object store or web server."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "error",  # refused with a status, nothing done
    "cut",  # the connection ends after some bytes of the body, or without response
    "cut request",  # the connection ends after some bytes of the upload, nothing done
    "stall",  # no more bytes for a time
    "corrupt",  # one byte of the object is another
    "whole",  # Range is ignored, as some proxies do
    "action",  # a function of the test runs before the request is answered
]


@dataclass
class Fault:
    """
    A fault of some of the next requests.

    Attributes:
        method: The HTTP method, "*" for any.

        key: A pattern of the decoded path without the first slash, such as "bucket/a*".

        skip: The number of matching requests before that succeed.

        times: The number of requests that fail.

        at: Bytes of the body that pass before a cut or stall; the offset in the object
            of a corrupted byte.

        seconds: How long a stall lasts; it ends when the server stops.

        status: The HTTP status of an error.

        code: The error's code in the store's words, "" for the usual one.

        retry_after: The header Retry-After, in seconds.

        done: The number of requests that have failed.
    """

    kind: Kind
    method: str = "*"
    key: str = "*"
    skip: int = 0
    times: int = 1
    at: int = 0
    seconds: float = 3600.0
    status: int = 503
    code: str = ""
    retry_after: int | None = None
    action: Callable[[], object] = field(default=lambda: None)
    done: int = 0


class Faults:
    """The faults of one server, in the order in which they were requested."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Request a fault; return it, so that a test can read what it did."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def take(self, method: str, path: str) -> list[Fault]:
        """Return the faults of this request: any actions, and at most one other."""
        found: list[Fault] = []
        with self._lock:
            for fault in self._faults:
                taken = any(one.kind != "action" for one in found)
                if fault.times <= 0 or (taken and fault.kind != "action"):
                    continue
                if fault.method not in ("*", method):
                    continue
                if not fnmatch.fnmatchcase(path.lstrip("/"), fault.key):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                fault.done += 1
                found.append(fault)
        return found

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()
