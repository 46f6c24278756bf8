"""Make the requests of clouds whose libraries use requests, and explain failures."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from onebox import formatting
from onebox.errors import (
    ConfigError,
    NoCredentials,
    NotAllowed,
    OneboxError,
    Throttled,
    Unclear,
)
from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.errors import (
    Failed,
    Refusal,
    RetryAfter,
    Unanswered,
    header_seconds,
)
from onebox.providers.kernel.timeouts import Timeouts


class Session(requests.Session):
    """
    A session of the library requests that raises onebox's errors.

    The client library of a cloud makes its requests with this session. Because the
    session raises an error for every error response, the client library neither repeats
    a request by rules of its own, nor hides the headers of a response.

    Args:
        cloud: The name of the cloud in sentences.

        base: The address of the API. Messages show only the part of a request's address
            that follows it.

        token: The token, which messages must not show.

        explain: Returns the error for an error response.

        once: A regular expression for the paths whose POST must not be repeated after a
            lost response, because a second call would create a second object.

        trouble: An error to raise at each request, or None. The function `trouble`
            returns it.

        longest_demanded: The longest pause (seconds) that the server can demand.
    """

    def __init__(
        self,
        cloud: str,
        base: str,
        token: str,
        explain: Callable[[Refusal], OneboxError],
        timeouts: Timeouts,
        clock: ServerClock,
        *,
        once: str,
        trouble: OneboxError | None = None,
        longest_demanded: float = float("inf"),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        self._cloud, self._base, self._token = cloud, base, token
        self._explain, self._timeouts, self._clock = explain, timeouts, clock
        self._once, self._trouble = once, trouble
        self._retry = timeouts.retry(sleep, longest_demanded)
        # Without an `auth` object, requests would replace the token with an entry of
        # ~/.netrc.
        self.auth = lambda request: request

    def request(self, method: Any, url: Any, **options: Any) -> Any:  # type: ignore[override] # as libraries call it
        """Make a request, and repeat it by the rules in `kernel.retry`."""
        if self._trouble is not None:
            raise self._trouble
        path = url[len(self._base) :].strip("/")
        return self._retry.call(
            lambda: self._attempt(method, url, path, options),
            repeatable=method != "POST" or not re.fullmatch(self._once, path),
        )

    def _attempt(
        self, method: str, url: str, path: str, options: dict[str, Any]
    ) -> requests.Response:
        try:
            response = self._exchange(method, url, options)
        except requests.RequestException as error:
            raise not_answered(
                self._cloud, method, path, self._why(error), error
            ) from error
        self._clock.correct(response.headers.get("Date"))
        status = response.status_code
        if status == 429:
            raise throttled(self._cloud, response.headers, self._clock())
        answer = _answer(response)
        code, message = self._error(answer or {})
        if status >= 500 or (status < 300 and answer is None):
            why = f"HTTP {status}, {message or 'without a readable response'}"
            raise without_response(self._cloud, method, path, why, Failed)
        if status >= 300:
            message, code = message or "no message", code or str(status)
            refusal = Refusal(f"{method} {path}", message, code, status, message)
            raise self._explain(refusal)
        return response

    def _exchange(
        self, method: str, url: str, options: dict[str, Any]
    ) -> requests.Response:
        # The server may close a reused connection while a request is sent, and then the
        # outcome of the request is unclear. So each request that changes something uses
        # a new connection.
        if method != "GET":
            self.close()
        limits = self._timeouts
        options = {**options, "timeout": (limits.connect, limits.read), "stream": True}
        end = time.monotonic() + limits.request
        response = super().request(method, url, allow_redirects=False, **options)
        with response:
            data = b""
            for chunk in response.iter_content(1 << 16):
                data += chunk
                if time.monotonic() > end:
                    raise _EndlessError(f"no end after {limits.request:.0f} s")
        # The property `content` cannot be limited in time, so its value is set here.
        response._content = data
        return response

    def _why(self, error: requests.RequestException) -> str:
        if isinstance(error, _EndlessError):
            return str(error)
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            return f"silence for {self._timeouts.read:.0f} s"
        return "the connection broke"

    def _error(self, answer: Mapping[str, Any]) -> tuple[str, str]:
        """
        Return the API's code and message in an error response, "" where it has none.
        """
        error = answer.get("error")
        fields = error if isinstance(error, dict) else answer
        message = " ".join(str(fields.get("message") or "").split())[:300]
        if self._token:
            message = message.replace(self._token, "[token]")
        return str(fields.get("code") or fields.get("id") or ""), message


class _EndlessError(requests.RequestException):
    """The response did not end within the time limit."""


def _answer(response: requests.Response) -> dict[str, Any] | None:
    """
    Return the JSON object in a response, {} if the response is empty.

    Return None if the response holds anything other than a JSON object.
    """
    try:
        answer = response.json() if response.content.strip() else {}
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def trouble(
    cloud: str, variable: str, token: str, endpoint_variable: str, endpoint: str
) -> OneboxError | None:
    """
    Return the error if the token cannot be sent to the API, None if it can be sent.

    Args:
        variable: The environment variable that holds the token.

        endpoint_variable: The environment variable that holds the address of the API.
    """
    if not token:
        return NoCredentials(
            f"there is no token for {cloud}",
            next=f"set {variable}; inv doctor checks its permissions",
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        return ConfigError(
            f"{variable} holds no token: no token has such characters",
            next=f"set {variable} again, then inv doctor",
        )
    if not is_safe(endpoint):
        return ConfigError(
            f"{endpoint_variable} must use https, because the token is sent there"
        )
    return None


def not_answered(
    cloud: str, method: str, path: str, why: str, error: requests.RequestException
) -> OneboxError:
    """
    Return the error for a request whose connection failed or broke.

    Args:
        why: What broke the exchange; used if the request may have reached the server.
    """
    if isinstance(error, requests.exceptions.SSLError):
        return NotAllowed(f"{cloud}'s certificate is not trusted: {error}")
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, (NewConnectionError, ConnectTimeoutError)):
        return Unanswered(
            f"{cloud}'s API cannot be reached",
            next="try again when this machine has a network",
        )
    return without_response(cloud, method, path, why)


def without_response(
    cloud: str, method: str, path: str, why: str, unclear: type[Unclear] = Unclear
) -> OneboxError:
    """
    Return the error for a call that got no usable response.

    It is Unanswered for a GET, which changes nothing. For other methods its class is
    *unclear*.
    """
    text = f"{cloud} did not answer {method} {path}: {why}"
    if method == "GET":
        return Unanswered(text, next="try again in a minute")
    return unclear(text, next="inv status, in a minute")


def throttled(
    cloud: str, headers: Mapping[str, str], now: float
) -> Throttled | RetryAfter:
    """Return the error for a throttled call, with a pause if the API demands one."""
    seconds = _retry_after(headers, now)
    duration = "" if seconds is None else f" for {formatting.seconds(seconds)}"
    error = Throttled(
        f"{cloud} accepts no more calls from this account{duration}",
        next="the same command, later",
    )
    # A tenth of a second is added, because the server rounds down to a whole second.
    return error if seconds is None else RetryAfter(error, seconds + 0.1)


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return how many seconds the API asks to wait, None if it names no time."""
    after = header_seconds(headers.get("Retry-After", ""))
    if after is not None:
        return after
    reset = header_seconds(headers.get("ratelimit-reset", ""))
    return None if reset is None else max(reset - now, 0.0)


def is_safe(address: str) -> bool:
    """
    Return whether the token can safely be sent to an address.

    The address must use https, or must be on this machine.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
