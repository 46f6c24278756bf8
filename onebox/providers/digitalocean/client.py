"""
Every request to DigitalOcean goes through here, and through nothing else.

The SDK says where the API is and with which token; its own way of asking has no
time limit, loses the status and the headers of an answer, follows links to
wherever they lead, and knows no retries. So this replaces it.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import random
import re
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

# A list of more pages than this does not end.
PAGES = 500
PER_PAGE = 200

Answer = dict[str, Any]
Query = Mapping[str, str]

_DATE = r"\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT"


class Calls(BaseAPI):  # type: ignore[misc] # the SDK has no types
    """
    The API, with the token and the address that the SDK's variables name.

    Args:
        sleep: How to wait.

        now: The time (epoch seconds), where no answer has told the server's.
    """

    def __init__(
        self,
        patience: Timeouts,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.trouble: OneboxError | None = None
        self.patience = patience
        self.sleep = sleep
        self._now = now
        self._skew = 0.0
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
                next=f"set {errors.TOKEN}; inv doctor names the scopes it needs",
            )
        elif not _safe(self._base):
            self.trouble = ConfigError(
                "DIGITALOCEAN_END_POINT wants https, because the token goes there"
            )

    @property
    def address(self) -> str:
        """Where the API is, with a slash at the end."""
        return self._base

    @property
    def secret(self) -> str:
        """The token; for comparisons, never for words."""
        return self._token

    def time(self) -> float:
        """Return the time (epoch seconds) by DigitalOcean's clock, to a second."""
        return self._now() + self._skew

    def get(self, path: str, **query: str) -> Answer:
        """Read something."""
        return self._ask("GET", path, query, None, again=True)

    def all(self, path: str, key: str, **query: str) -> list[Answer]:
        """Read a whole list, page by page; nothing in it twice."""
        found: dict[str, Answer] = {}
        for page in self._pages(path, query):
            for item in page.get(key) or []:
                found.setdefault(str(item.get("id", item.get("slug"))), item)
        return list(found.values())

    def post(self, path: str, body: Answer, *, again: bool = False) -> Answer:
        """
        Have something made or done.

        Args:
            again: A repetition changes nothing, so that it may be repeated.

        Raises:
            Unclear: It may have been done, or not; where it is `Failed`, nothing
                more comes of it than shows within the lists' lag.
        """
        return self._ask("POST", path, {}, body, again=again)

    def put(self, path: str, body: Answer) -> Answer:
        """Replace something; a repetition changes nothing."""
        return self._ask("PUT", path, {}, body, again=True)

    def delete(self, path: str, body: Answer | None = None) -> None:
        """Remove something. Raises `Gone` if it is not there."""
        self._ask("DELETE", path, {}, body, again=True)

    def get_data(self, url: str, type: str = "GET", params: Any = None) -> Answer:
        """Answer the SDK's own objects, should one of them ever ask."""
        query, body = (params or {}, None) if type == "GET" else ({}, params)
        return self._ask(type, url, query, body, again=type in ("GET", "DELETE"))

    def _pages(self, path: str, query: Query) -> Iterator[Answer]:
        for number in range(1, PAGES + 1):
            asked = {**query, "page": str(number), "per_page": str(PER_PAGE)}
            page = self._ask("GET", path, asked, None, again=True)
            yield page
            if not ((page.get("links") or {}).get("pages") or {}).get("next"):
                return
        raise ProviderError(f"DigitalOcean's list of {path} does not end")

    def _ask(
        self, method: str, path: str, query: Query, body: Any, *, again: bool
    ) -> Answer:
        if self.trouble is not None:
            raise self.trouble
        path = path.strip("/")
        limited, tried = 0.0, 0
        while True:
            try:
                status, headers, data = self._exchange(method, path, query, body)
            except _NotSentError:
                tried = self._unreached(tried)
                continue
            except _CutError as error:
                tried = self._after(tried, method, path, str(error), again)
                continue
            if status == 429:
                limited += self._wait_as_told(headers, limited)
                continue
            self._skew = _server_time(headers, self.time()) - self._now()
            told = _read(data)
            if status >= 500 or (status < 300 and told is None):
                text = f"HTTP {status}, {_said(told) or 'no answer that can be read'}"
                text = self._hide(text)
                tried = self._after(tried, method, path, text, again, errors.Failed)
                continue
            if status >= 300:
                code, said = str((told or {}).get("id", "")), _said(told)
                raise errors.refusal(method, path, status, code, self._hide(said))
            return told or {}

    def _after(
        self,
        tried: int,
        method: str,
        path: str,
        why: str,
        again: bool,
        unclear: type[Unclear] = Unclear,
    ) -> int:
        """Wait before a repetition, and count it; raise if there is to be none."""
        text = f"DigitalOcean did not answer {method} {path}: {why}"
        if not again:
            raise unclear(text, next="inv status, in a minute")
        if tried + 1 >= self.patience.tries:
            if method == "GET":
                raise ProviderError(text, next="again, in a minute")
            raise unclear(text, next="inv status, in a minute")
        self.sleep(self._jitter(tried))
        return tried + 1

    def _unreached(self, tried: int) -> int:
        """Wait before another attempt to reach the API, and count it; or raise."""
        if tried + 1 >= self.patience.tries:
            raise ProviderError(
                f"DigitalOcean's API at {self._base} cannot be reached",
                next="again, once this machine has a network",
            )
        self.sleep(self._jitter(tried))
        return tried + 1

    def _jitter(self, tried: int) -> float:
        # Not all clients at once: nothing here is a secret.
        seconds = self.patience.pause * 2.0**tried
        return seconds * random.uniform(0.5, 1)  # noqa: S311 - no secret

    def _wait_as_told(self, headers: Mapping[str, str], waited: float) -> float:
        """Wait until calls are welcome again, if that is soon. Raises `Throttled`."""
        told = _told_to_wait(headers, self._now())
        seconds = self._jitter(3) if told is None else told + 0.1
        if waited + seconds > self.patience.limited:
            raise Throttled(
                "DigitalOcean takes no more calls from this account for "
                f"{formatting.seconds(seconds)}",
                next="the same command, later",
            )
        self.sleep(seconds)
        return max(seconds, 0.1)

    def _exchange(
        self, method: str, path: str, query: Query, body: Any
    ) -> tuple[int, Mapping[str, str], bytes]:
        # A kept connection may be closed under a request that is then neither
        # done nor not done: whatever changes something gets a fresh one.
        session = self._session if method == "GET" else requests.Session()
        end = time.monotonic() + self.patience.whole
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
                timeout=(self.patience.connect, self.patience.read),
                allow_redirects=False,
                stream=True,
            ) as response:
                data = b""
                for chunk in response.iter_content(1 << 16):
                    data += chunk
                    if time.monotonic() > end:
                        raise _CutError(f"no end in {self.patience.whole:.0f} s")
                return response.status_code, response.headers, data
        except requests.RequestException as error:
            self._failed(error)
        finally:
            if session is not self._session:
                session.close()

    def _failed(self, error: requests.RequestException) -> NoReturn:
        if isinstance(error, requests.exceptions.SSLError):
            raise NotAllowed(
                f"the API's certificate is not to be trusted: {self._hide(str(error))}"
            ) from error
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(reason, (NewConnectionError, ConnectTimeoutError)):
            raise _NotSentError("no connection") from error
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            raise _CutError(f"silence for {self.patience.read:.0f} s") from error
        raise _CutError("the connection broke") from error

    def _hide(self, text: str) -> str:
        return text.replace(self._token, "[token]")


@dataclass(frozen=True)
class _Bearer(AuthBase):
    """The token; given so, no entry of ~/.netrc takes its place."""

    token: str

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class _NotSentError(Exception):
    """The request has certainly not reached anybody."""


class _CutError(Exception):
    """Nobody knows whether the request has had an effect."""


def _told_to_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Return for how many seconds the API wants no calls, if it says so."""
    after = headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    reset = headers.get("ratelimit-reset", "").strip()
    if reset.isdigit():
        return max(float(reset) - _server_time(headers, now), 0.0)
    return None


def _server_time(headers: Mapping[str, str], otherwise: float) -> float:
    """Return what the server's clock has said."""
    if not re.fullmatch(_DATE, headers.get("Date", "")):
        return otherwise
    return email.utils.parsedate_to_datetime(headers["Date"]).timestamp()


def _read(data: bytes) -> Answer | None:
    """Return what an answer holds: {} if it is empty, None if it is no JSON object."""
    if not data.strip():
        return {}
    try:
        told = json.loads(data)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _said(told: Answer | None) -> str:
    return " ".join(str((told or {}).get("message", "")).split())[:300]


def _safe(address: str) -> bool:
    """Tell whether a token may travel there: encrypted, or within this machine."""
    parts = urlsplit(address)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
