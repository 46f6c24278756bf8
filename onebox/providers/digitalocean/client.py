"""
The DigitalOcean API client: every request of onebox goes through this file.

python-digitalocean supplies the API's address and the token, from the environment
variables that its users know, and the HTTP session. Its functions for requests are not
used, because they have no time limit, raise errors without the status and the headers
of the response, send the token to redirected addresses, and never repeat a request.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from digitalocean.baseapi import BaseAPI, EndPointError
from requests.auth import AuthBase

from onebox import __version__
from onebox.errors import (
    ConfigError,
    NotAllowed,
    OneboxError,
    ProviderError,
)
from onebox.providers.digitalocean import errors
from onebox.providers.kernel import http
from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.retry import Retry
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.kernel.wait import Poller

# A list with more pages than this counts as endless.
PAGES = 500
PER_PAGE = 200

Answer = dict[str, Any]
Query = Mapping[str, str]

_CLOUD = "DigitalOcean"


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
        elif not http.is_safe(self._base):
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
        except requests.RequestException as error:
            raise http.not_answered(_CLOUD, method, path, error) from error
        self.clock.correct(headers.get("Date"))
        if status == 429:
            raise http.throttled(_CLOUD, headers, self.clock())
        answer = _read(data)
        message = self._hide(_message(answer))
        if status >= 500 or (status < 300 and answer is None):
            why = f"HTTP {status}, {message or 'without a readable response'}"
            raise http.without_response(_CLOUD, method, path, why, errors.Failed)
        if status >= 300:
            code = str((answer or {}).get("id", ""))
            raise errors.refusal(method, path, status, code, message)
        return answer or {}

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
                        raise requests.Timeout("no end of the answer")
                return response.status_code, response.headers, data
        finally:
            if session is not self._session:
                session.close()

    def _hide(self, text: str) -> str:
        return text.replace(self._token, "[token]")


@dataclass(frozen=True)
class _Bearer(AuthBase):
    """Sends the token with a request; as an `auth` object it overrides ~/.netrc."""

    token: str

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


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
