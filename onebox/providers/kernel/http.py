"""What requests' answers and errors mean, for the clouds whose libraries use it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from onebox import formatting
from onebox.errors import ConfigError, NotAllowed, OneboxError, Throttled, Unclear
from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.errors import (
    Refusal,
    RetryAfter,
    Rule,
    Unanswered,
    explain,
)
from onebox.providers.kernel.retry import Retry


class Session(requests.Session):
    """
    A session for a cloud's library, which raises onebox's errors.

    So the library neither repeats a request by rules of its own, nor hides the headers
    of its response.

    Args:
        cloud: The cloud's name in sentences.

        rules: The meaning of its error responses.

        clock: Corrected by each response.

        repeatable: Returns whether a second request to an address changes nothing.

        trouble: Raised at each request, if there is any; see `trouble`.
    """

    def __init__(
        self,
        cloud: str,
        rules: Sequence[Rule],
        retry: Retry,
        clock: ServerClock,
        *,
        repeatable: Callable[[str], bool],
        trouble: OneboxError | None = None,
    ) -> None:
        super().__init__()
        self._cloud, self._rules, self._retry = cloud, rules, retry
        self._clock, self._repeatable, self._trouble = clock, repeatable, trouble
        # Without an auth, requests would replace the token by a line of ~/.netrc.
        self.auth = lambda request: request

    def request(self, method: Any, url: Any, **options: Any) -> Any:  # type: ignore[override] # as libraries call it
        """Make a request, repeated as `kernel.retry` describes."""
        if self._trouble is not None:
            raise self._trouble
        return self._retry.call(
            lambda: self._once(method, url, options),
            repeatable=self._repeatable(url),
        )

    def _once(self, method: str, url: str, options: Any) -> requests.Response:
        path = urlsplit(url).path
        try:
            response = super().request(method, url, allow_redirects=False, **options)
        except requests.RequestException as error:
            raise not_answered(self._cloud, method, path, error) from error
        self._clock.correct(response.headers.get("Date"))
        status = response.status_code
        if status == 429:
            raise throttled(self._cloud, response.headers, self._clock())
        answer = _answer(response)
        if status < 300 and answer is not None:
            return response
        said = (answer or {}).get("error") or {}
        code, message = str(said.get("code", status)), str(said.get("message", ""))
        if status < 300 or status >= 500:
            why = f"HTTP {status}, {message or 'without a readable response'}"
            raise without_response(self._cloud, method, path, why)
        raise explain(self._rules, Refusal(f"{method} {path}", message, code, status))


def _answer(response: requests.Response) -> dict[str, Any] | None:
    """Return the JSON object in a response: {} if it is empty, None if it is none."""
    try:
        answer = response.json() if response.content else {}
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def trouble(cloud: str, variable: str, token: str, endpoint: str) -> OneboxError | None:
    """Return the error of a token that cannot be sent, None if it can be."""
    if not token:
        return NotAllowed(
            f"there is no token for {cloud}", next=f"set {variable}, then inv doctor"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        return ConfigError(
            f"{variable} holds no token: it has characters that none can have",
            next=f"set {variable} again, then inv doctor",
        )
    if not is_safe(endpoint):
        return ConfigError(
            f"{endpoint} must use https, because the token is sent there"
        )
    return None


def not_answered(
    cloud: str, method: str, path: str, error: requests.RequestException
) -> OneboxError:
    """Return the error for a request whose connection failed or broke."""
    if isinstance(error, requests.exceptions.SSLError):
        return NotAllowed(f"{cloud}'s certificate is not trusted: {error}")
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, (NewConnectionError, ConnectTimeoutError)):
        return Unanswered(
            f"{cloud}'s API cannot be reached",
            next="try again when this machine has a network",
        )
    silent = isinstance(error, requests.Timeout) or "timed out" in str(error)
    why = "silence for too long" if silent else "the connection broke"
    return without_response(cloud, method, path, why)


def without_response(
    cloud: str, method: str, path: str, why: str, unclear: type[Unclear] = Unclear
) -> OneboxError:
    """Return the error for a call without a usable response."""
    text = f"{cloud} did not answer {method} {path}: {why}"
    if method == "GET":
        return Unanswered(text, next="try again in a minute")
    return unclear(text, next="inv status, in a minute")


def throttled(
    cloud: str, headers: Mapping[str, str], now: float
) -> Throttled | RetryAfter:
    """Return the error for a throttled call, with the pause that the API demands."""
    seconds = _retry_after(headers, now)
    duration = "" if seconds is None else f" for {formatting.seconds(seconds)}"
    error = Throttled(
        f"{cloud} accepts no more calls from this account{duration}",
        next="the same command, later",
    )
    # The server rounds down to a whole second.
    return error if seconds is None else RetryAfter(error, seconds + 0.1)


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that the API asks to wait, None if it does not."""
    after = headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    reset = headers.get("ratelimit-reset", "").strip()
    if reset.isdigit():
        return max(float(reset) - now, 0.0)
    return None


def is_safe(address: str) -> bool:
    """Return whether a token may be sent there: encrypted, or within this machine."""
    parts = urlsplit(address)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
