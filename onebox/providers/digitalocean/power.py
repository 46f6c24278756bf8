"""Stop and start droplets, and wait for whatever takes its time."""

from __future__ import annotations

import time
from collections.abc import Callable

from onebox.errors import Gone, ProviderError, Unclear
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.errors import Already, Pending
from onebox.providers.digitalocean.instances import Droplets
from onebox.providers.digitalocean.settings import Timeouts


def stop(calls: Calls, droplets: Droplets, patience: Timeouts, number: int) -> None:
    """
    Shut a droplet down, pull its plug if it does not listen, and see it off.

    Raises:
        Unclear: It is not off after all.
    """
    began = time.monotonic()
    asked: dict[str, float] = {}
    while True:
        droplet = droplets.numbered(number)
        if droplet is None or droplet.get("status") == "off":
            return
        waited = time.monotonic() - began
        if waited > patience.action:
            raise Unclear(
                f"droplet {number} is still {droplet.get('status')} after "
                f"{waited:.0f} s of stopping",
                next="inv status",
            )
        kind = "power_off" if waited > patience.shutdown else "shutdown"
        last = asked.get(kind)
        # A stop that was lost, or that the system has not heard, is told again.
        due = last is None or waited - last > patience.shutdown
        if droplet.get("status") == "active" and due and _ask(calls, number, kind):
            asked[kind] = waited
        calls.sleep(patience.look)


def start(calls: Calls, droplets: Droplets, patience: Timeouts, number: int) -> Answer:
    """
    Power a droplet on and return it once it is active, with its address.

    Raises:
        Unclear: It is not active after all.
    """
    began, asked = time.monotonic(), -patience.action
    while True:
        droplet = droplets.numbered(number)
        if droplet is None:
            raise Gone(f"droplet {number} is not there (any more)")
        waited = time.monotonic() - began
        if droplet.get("status") == "active":
            return droplet
        if waited > patience.action:
            raise Unclear(
                f"droplet {number} is still off after {waited:.0f} s", next="inv status"
            )
        if waited - asked > patience.shutdown and _ask(calls, number, "power_on"):
            asked = waited
        calls.sleep(patience.look)


def wait_for(
    calls: Calls,
    patience: Timeouts,
    path: str,
    done: Callable[[], bool],
    seconds: float,
) -> None:
    """
    Wait for an action until it is completed, and for *done* after that.

    Args:
        path: The action's own, "" if only *done* can tell.

    Raises:
        ProviderError: DigitalOcean gave it up.

        Unclear: It takes longer than it may.
    """
    until = time.monotonic() + seconds
    status = ""
    while time.monotonic() < until:
        if path and status != "completed":
            try:
                status = str(calls.get(path)["action"]["status"])
            except Gone:
                status = "completed"
        if status == "errored":
            raise ProviderError(f"DigitalOcean gave up on {path}", next="again, later")
        if (not path or status == "completed") and done():
            return
        calls.sleep(patience.look)
    raise Unclear(f"{path or 'an action'} has no end after {seconds:.0f} s")


def _ask(calls: Calls, number: int, kind: str) -> bool:
    """Ask for an action; no if the droplet is busy, or has changed meanwhile."""
    try:
        calls.post(f"droplets/{number}/actions", {"type": kind})
    except (Pending, Already):
        return False
    except (Gone, Unclear):
        # The next look tells: both end where they should if told twice.
        return True
    return True
