"""Find out under which address this machine reaches the world."""

from __future__ import annotations

import ipaddress
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from ..errors import UsageError

# They answer with the address, as text, and nothing else.
SERVICES = (
    "https://checkip.amazonaws.com/",
    "https://api.ipify.org/",
    "https://icanhazip.com/",
)
SECONDS = 5.0


def address(services: Sequence[str] = SERVICES, seconds: float = SECONDS) -> str:
    """
    Return this machine's own IPv4 address, as two of the services agree on it.

    Raises:
        UsageError: No two of them agree: whom to let in has to be said.
    """
    answers: list[str] = []
    pool = ThreadPoolExecutor(len(services))
    try:
        asked = [pool.submit(_ask, service, seconds) for service in services]
        for done in as_completed(asked):
            found = _address(done)
            if found in answers:
                return found
            if found:
                answers.append(found)
    finally:
        # A slow service is not waited for: its answer would change nothing.
        pool.shutdown(wait=False)
    said = " and ".join(answers) if answers else "nothing"
    raise UsageError(
        f"this machine's public address is not certain: {len(services)} services "
        f"were asked, and said {said}",
        next='set ssh_cidr = "your.address/32" in the provider\'s table',
    )


def _ask(service: str, seconds: float) -> str:
    request = urllib.request.Request(service, headers={"User-Agent": "onebox"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
        return str(answer.read(64).decode("ascii", "replace").strip())


def _address(done: Future[str]) -> str:
    """Return the address in an answer, "" if there is none."""
    try:
        return str(ipaddress.IPv4Address(done.result()))
    except (OSError, ValueError, urllib.error.URLError):
        return ""
