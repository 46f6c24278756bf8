"""
The DigitalOcean API client: every request of onebox goes through this file.

python-digitalocean supplies the API's address and the token, from the environment
variables that its users know, and the HTTP session. Its functions for requests are not
used, because they have no time limit, raise errors without the status and the headers
of the response, send the token to redirected addresses, and never repeat a request.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from digitalocean.baseapi import BaseAPI, EndPointError
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from onebox import __version__, formatting
from onebox.errors import (
    ConfigError,
    NotAllowed,
    OneboxError,
    ProviderError,
    Throttled,
    Unclear,
)
from onebox.providers.digitalocean import errors
from onebox.providers.digitalocean.settings import Timeouts
from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.errors import RetryAfter, Unanswered
from onebox.providers.kernel.retry import Retry
from onebox.providers.kernel.wait import Poller

# A list with more pages than this counts as endless.
PAGES = 500
PER_PAGE = 200

Answer = dict[str, Any]
Query = Mapping[str, str]

_LATER = "inv status, in a minute"


class Cloud(BaseAPI):  # type: ignore[misc] # the SDK has no types
    """
    The API, at the address and with the token in the SDK's environment variables.

    Attributes:
        clock: Returns the time (epoch seconds) by DigitalOcean's clock.

        timeouts: The time limits of requests and waits.

        poller: The loop that waits for a change of state.

    Args:
        sleep: Pauses for a number of seconds.

        clock: Returns the time of this machine (epoch seconds).
    """

    def __init__(
        self,
        timeouts: Timeouts,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.trouble: OneboxError | None = None
        self.timeouts = timeouts
        self.poller = Poller(
            sleep, first=timeouts.poll_interval, longest=timeouts.poll_interval
        )
        self._retry = Retry(
            sleep,
            attempts=timeouts.attempts,
            first_pause=timeouts.first_pause,
            throttled_seconds=timeouts.throttled,
        )
        self.clock = ServerClock(clock)
        try:
            super().__init__()
        except EndPointError:
            self.trouble = ConfigError(
                "DIGITALOCEAN_END_POINT is not an address",
                next="unset it, or https://api.digitalocean.com/v2/",
            )
            return
        self._token = str(self.token or "").strip()
        self._base = str(self.end_point).rstrip("/") + "/"
        if not self._token:
            self.trouble = NotAllowed(
                "there is no token for DigitalOcean",
                next=f"set {errors.TOKEN}; inv doctor lists the scopes that it needs",
            )
        elif not _is_safe(self._base):
            self.trouble = ConfigError(
                "DIGITALOCEAN_END_POINT must use https, because the token is sent there"
            )

    @property
    def address(self) -> str:
        """Return the address of the API, with a slash at the end."""
        return self._base

    @property
    def secret(self) -> str:
        """Return the token, only for comparison with another token."""
        return self._token

    def get(self, path: str, **query: str) -> Answer:
        """Return one resource. Raises Gone if it does not exist."""
        return self._ask("GET", path, query, None, again=True)

    def all(self, path: str, key: str, **query: str) -> list[Answer]:
        """Return the items of a list from all its pages, each item once."""
        found: dict[str, Answer] = {}
        for page in self._pages(path, query):
            for item in page.get(key) or []:
                found.setdefault(str(item.get("id", item.get("slug"))), item)
        return list(found.values())

    def post(self, path: str, body: Answer, *, again: bool = False) -> Answer:
        """
        Create a resource, or begin an action.

        Args:
            again: Whether the call may be repeated, because a second call changes
                nothing.

        Raises:
            Unclear: The call may have taken effect, or may still do so. A `Failed`
                error means that it takes no effect later, if it has not already.
        """
        return self._ask("POST", path, {}, body, again=again)

    def put(self, path: str, body: Answer) -> Answer:
        """Replace a resource; the call may be repeated."""
        return self._ask("PUT", path, {}, body, again=True)

    def delete(self, path: str, body: Answer | None = None) -> None:
        """Delete a resource. Raises Gone if it does not exist."""
        self._ask("DELETE", path, {}, body, again=True)

    def _pages(self, path: str, query: Query) -> Iterator[Answer]:
        for number in range(1, PAGES + 1):
            paged = {**query, "page": str(number), "per_page": str(PER_PAGE)}
            page = self._ask("GET", path, paged, None, again=True)
            yield page
            if not ((page.get("links") or {}).get("pages") or {}).get("next"):
                return
        raise ProviderError(f"DigitalOcean's list of {path} does not end")

    def _ask(
        self, method: str, path: str, query: Query, body: Any, *, again: bool
    ) -> Answer:
        """Make a request, and repeat it by the rules in `kernel.retry`."""
        if self.trouble is not None:
            raise self.trouble
        path = path.strip("/")
        return self._retry.call(
            lambda: self._once(method, path, query, body), repeatable=again
        )

    def _once(self, method: str, path: str, query: Query, body: Any) -> Answer:
        try:
            status, headers, data = self._exchange(method, path, query, body)
        except _NotSentError as error:
            raise Unanswered(
                f"DigitalOcean's API at {self._base} cannot be reached",
                next="try again when this machine has a network",
            ) from error
        except _CutError as error:
            raise _without_response(method, path, str(error)) from error
        self.clock.correct(headers.get("Date"))
        if status == 429:
            raise self._throttled(headers)
        answer = _read(data)
        message = self._hide(_message(answer))
        if status >= 500 or (status < 300 and answer is None):
            why = f"HTTP {status}, {message or 'without a readable response'}"
            raise _without_response(method, path, why, errors.Failed)
        if status >= 300:
            code = str((answer or {}).get("id", ""))
            raise errors.refusal(method, path, status, code, message)
        return answer or {}

    def _throttled(self, headers: Mapping[str, str]) -> Throttled | RetryAfter:
        seconds = _retry_after(headers, self.clock())
        duration = "" if seconds is None else f" for {formatting.seconds(seconds)}"
        error = Throttled(
            f"DigitalOcean accepts no more calls from this account{duration}",
            next="the same command, later",
        )
        # A tenth of a second is added, because the server rounds down to a whole
        # second.
        return error if seconds is None else RetryAfter(error, seconds + 0.1)

    def _exchange(
        self, method: str, path: str, query: Query, body: Any
    ) -> tuple[int, Mapping[str, str], bytes]:
        # The server may close a reused connection while a request is sent, and then the
        # outcome of the request is unclear. So each request that changes something uses
        # a new connection.
        session = self._session if method == "GET" else requests.Session()
        end = time.monotonic() + self.timeouts.request
        try:
            with session.request(
                method,
                self._base + path,
                params=dict(query),
                data=None if body is None else json.dumps(body),
                headers={
                    "Content-Type": "application/json",
                    "User-Agent": f"onebox/{__version__} python-digitalocean",
                },
                auth=_Bearer(self._token),
                timeout=(self.timeouts.connect, self.timeouts.read),
                allow_redirects=False,
                stream=True,
            ) as response:
                data = b""
                for chunk in response.iter_content(1 << 16):
                    data += chunk
                    if time.monotonic() > end:
                        raise _CutError(f"no end after {self.timeouts.request:.0f} s")
                return response.status_code, response.headers, data
        except requests.RequestException as error:
            self._failed(error)
        finally:
            if session is not self._session:
                session.close()

    def _failed(self, error: requests.RequestException) -> NoReturn:
        if isinstance(error, requests.exceptions.SSLError):
            raise NotAllowed(
                f"the API's certificate is not trusted: {self._hide(str(error))}"
            ) from error
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(reason, (NewConnectionError, ConnectTimeoutError)):
            raise _NotSentError("no connection") from error
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            raise _CutError(f"silence for {self.timeouts.read:.0f} s") from error
        raise _CutError("the connection broke") from error

    def _hide(self, text: str) -> str:
        return text.replace(self._token, "[token]")


@dataclass(frozen=True)
class _Bearer(AuthBase):
    """Sends the token with a request; as an `auth` object it overrides ~/.netrc."""

    token: str

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class _NotSentError(Exception):
    """The request was not sent, so it had no effect."""


class _CutError(Exception):
    """The connection ended before the response did."""


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that the API asks to wait, None if it names no time."""
    after = headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    reset = headers.get("ratelimit-reset", "").strip()
    if reset.isdigit():
        return max(float(reset) - now, 0.0)
    return None


def _read(data: bytes) -> Answer | None:
    """
    Return the JSON object in a response.

    Return {} for an empty response, None for one that is not a JSON object.
    """
    if not data.strip():
        return {}
    try:
        answer = json.loads(data)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _message(answer: Answer | None) -> str:
    return " ".join(str((answer or {}).get("message", "")).split())[:300]


def _without_response(
    method: str, path: str, why: str, unclear: type[Unclear] = Unclear
) -> OneboxError:
    """Return the error for a call without a usable response."""
    text = f"DigitalOcean did not answer {method} {path}: {why}"
    if method == "GET":
        return Unanswered(text, next="try again in a minute")
    return unclear(text, next=_LATER)


def _is_safe(address: str) -> bool:
    """
    Return whether the address is encrypted or on this machine: safe for the token.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
