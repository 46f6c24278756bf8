"""Find out under which address this machine reaches the world."""

from __future__ import annotations

import ipaddress
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from queue import SimpleQueue

from onebox.errors import UsageError

# Asked over TLS. They answer with the address, as text, and nothing else.
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
    said: SimpleQueue[str] = SimpleQueue()
    for service in services:
        # Neither here nor at the end of the process is a slow one waited for.
        threading.Thread(
            target=lambda service=service: said.put(_ask(service, seconds)),
            daemon=True,
        ).start()
    answers: list[str] = []
    for _ in services:
        found = said.get()
        if found in answers:
            return found
        if found:
            answers.append(found)
    text = " and ".join(answers) if answers else "nothing"
    raise UsageError(
        f"this machine's public address is not certain: {len(services)} services "
        f"were asked, and said {text}",
        next='set ssh_cidr = "your.address/32" in the provider\'s table',
    )


def _ask(service: str, seconds: float) -> str:
    """Return the address that a service tells, "" if it tells none."""
    # The addresses are of our own code: none of them names a file (S310).
    head = {"User-Agent": "onebox"}
    request = urllib.request.Request(service, headers=head)  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 - ours
            text = answer.read(64).decode("ascii", "replace")
        return str(ipaddress.IPv4Address(text.strip()))
    except urllib.error.HTTPError as error:
        error.close()
        return ""
    except (OSError, ValueError, HTTPException):
        return ""
