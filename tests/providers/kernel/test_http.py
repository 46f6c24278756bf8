"""Each failure of a request has its error class."""

from __future__ import annotations

import pytest
import requests
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError

from onebox.errors import (
    ConfigError,
    NoCredentials,
    NotAllowed,
    OneboxError,
    Throttled,
    Unclear,
)
from onebox.providers.kernel import http
from onebox.providers.kernel.errors import RetryAfter, Unanswered

NO_NETWORK = requests.ConnectionError(
    MaxRetryError(None, "/", ConnectTimeoutError())  # type: ignore[arg-type] # no pool
)


@pytest.mark.parametrize(
    ("method", "error", "expected"),
    [
        ("POST", NO_NETWORK, Unanswered),
        ("GET", requests.ReadTimeout("…"), Unanswered),
        ("POST", requests.ReadTimeout("…"), Unclear),
        ("DELETE", requests.ConnectionError("reset by peer"), Unclear),
        ("POST", requests.exceptions.SSLError("self-signed"), NotAllowed),
    ],
)
def test_only_a_request_that_may_have_arrived_is_unclear(
    method: str, error: requests.RequestException, expected: type[OneboxError]
) -> None:
    """A GET changes nothing, and an unsent request has no effect."""
    found = http.not_answered("Cirrus", method, "wisps", "silence", error)
    assert type(found) is expected
    assert "Cirrus" in found.message


def test_the_pause_is_the_one_that_the_api_demands() -> None:
    """Without a number in the headers it demands none."""
    for headers in ({"Retry-After": "7"}, {"ratelimit-reset": "107"}):
        found = http.throttled("Cirrus", headers, 100.0)
        assert isinstance(found, RetryAfter)
        assert found.seconds == pytest.approx(7.1)
    for headers in (
        {},
        {"Retry-After": "soon"},
        {"Retry-After": "²"},
        {"Retry-After": "9" * 400},
        {"ratelimit-reset": "٣" * 400},
    ):
        assert isinstance(http.throttled("Cirrus", headers, 100.0), Throttled)


def test_a_token_is_sent_encrypted_or_nowhere_else() -> None:
    """Plain text is allowed within this machine."""
    for address in ("https://x.example/", "http://127.0.0.1:1/", "http://localhost/"):
        assert http.is_safe(address)
    for address in ("http://x.example/", "http://10.0.0.1/", "ftp://x", ""):
        assert not http.is_safe(address)


def test_a_token_that_cannot_be_sent_is_one_clear_error() -> None:
    """It is raised before any request; the error never holds the token."""
    safe = "https://api.example/v1"
    assert http.trouble("Cirrus", "TOKEN", "abc", "ENDPOINT", safe) is None
    for token, endpoint, error in (
        ("", safe, NoCredentials),
        ("käse", safe, ConfigError),
        ("a\nb", safe, ConfigError),
        ("abc", "http://api.example/v1", ConfigError),
    ):
        found = http.trouble("Cirrus", "TOKEN", token, "ENDPOINT", endpoint)
        assert type(found) is error
        assert not token or token not in found.message
