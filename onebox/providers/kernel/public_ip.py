"""Find out the public IPv4 address of this machine."""

from __future__ import annotations

import ipaddress
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from queue import SimpleQueue

from onebox.errors import UsageError

# Each service answers an HTTPS request with the client's address as text, and nothing
# else.
SERVICES = (
    "https://checkip.amazonaws.com/",
    "https://api.ipify.org/",
    "https://icanhazip.com/",
)
SECONDS = 5.0


def my_ip(services: Sequence[str] = SERVICES, seconds: float = SECONDS) -> str:
    """
    Return this machine's public IPv4 address as soon as two services agree on it.

    Raises:
        UsageError: No two services agree, so the user must set `ssh_cidr`.
    """
    answers: SimpleQueue[str] = SimpleQueue()
    for service in services:
        # The threads are daemons, so neither this call nor the exit of onebox waits for
        # a slow service.
        threading.Thread(
            target=lambda service=service: answers.put(_ask(service, seconds)),
            daemon=True,
        ).start()
    seen: list[str] = []
    for _ in services:
        answer = answers.get()
        if answer in seen:
            return answer
        if answer:
            seen.append(answer)
    text = " and ".join(seen) if seen else "nothing"
    raise UsageError(
        f"this machine's public address is not certain: {len(services)} services "
        f"answered {text}",
        next='set ssh_cidr = "your.address/32" in the provider\'s table',
    )


def _ask(service: str, seconds: float) -> str:
    """Return the address that a service answers, "" if it answers with none."""
    # Ruff's rule S310 warns that an address may be a file: URL. These addresses are
    # constants.
    head = {"User-Agent": "onebox"}
    request = urllib.request.Request(service, headers=head)  # noqa: S310 - constants
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 - constants
            text = answer.read(64).decode("ascii", "replace")
        return str(ipaddress.IPv4Address(text.strip()))
    except urllib.error.HTTPError as error:
        error.close()
        return ""
    except (OSError, ValueError, HTTPException):
        return ""
