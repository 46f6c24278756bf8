"""Stop and start droplets, and wait until an action of the API is completed."""

from __future__ import annotations

import time
from collections.abc import Callable

from onebox.errors import Gone, ProviderError, Unclear
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.errors import Already
from onebox.providers.digitalocean.instances import Droplets
from onebox.providers.kernel.errors import Pending


def stop(cloud: Cloud, droplets: Droplets, number: int) -> None:
    """
    Shut a droplet down, cut its power if it does not react, and wait until it is off.

    Raises:
        Unclear: The droplet is still on after the time limit.
    """
    limits = cloud.timeouts
    began = time.monotonic()
    sent: dict[str, float] = {}
    status = ""

    def is_off() -> bool:
        nonlocal status
        droplet = droplets.by_number(number)
        if droplet is None or droplet.get("status") == "off":
            return True
        status = str(droplet.get("status"))
        waited = time.monotonic() - began
        kind = "power_off" if waited > limits.shutdown else "shutdown"
        # The action is sent again after a while, because it may have been lost, or the
        # system may have ignored it.
        due = kind not in sent or waited - sent[kind] > limits.shutdown
        if status == "active" and due and _begin(cloud, number, kind):
            sent[kind] = waited
        return False

    if not cloud.poller.until(is_off, limits.action):
        raise Unclear(
            f"droplet {number} is still {status} after {limits.action:.0f} s of "
            "stopping",
            next="inv status",
        )


def start(cloud: Cloud, droplets: Droplets, number: int) -> Answer:
    """
    Power a droplet on; return it once it is active.

    Raises:
        Unclear: The droplet is still off after the time limit.
    """
    limits = cloud.timeouts
    sent = -limits.action

    def active() -> Answer | None:
        nonlocal sent
        droplet = droplets.by_number(number)
        if droplet is None:
            raise Gone(f"droplet {number} does not exist any more")
        if droplet.get("status") == "active":
            return droplet
        now = time.monotonic()
        if now - sent > limits.shutdown and _begin(cloud, number, "power_on"):
            sent = now
        return None

    started = cloud.poller.until(active, limits.action)
    if started is None:
        raise Unclear(
            f"droplet {number} is still off after {limits.action:.0f} s",
            next="inv status",
        )
    return started


def wait_for(cloud: Cloud, path: str, done: Callable[[], bool], seconds: float) -> None:
    """
    Wait until an action is completed and *done* returns true.

    Args:
        path: The API path of the action, "" if it is unknown and only *done* counts.

    Raises:
        ProviderError: The action failed.

        Unclear: The action takes longer than *seconds*.
    """
    status = "" if path else "completed"

    def is_done() -> bool:
        nonlocal status
        if status != "completed":
            try:
                status = str(cloud.get(path)["action"]["status"])
            except Gone:
                status = "completed"
        if status == "errored":
            raise ProviderError(f"DigitalOcean gave up on {path}", next="again, later")
        return status == "completed" and done()

    cloud.poller.require(is_done, seconds, path or "an action")


def _begin(cloud: Cloud, number: int, kind: str) -> bool:
    """
    Begin an action; return whether it was accepted or may have been.

    Return False if the droplet is busy or in the requested state already.
    """
    try:
        cloud.post(f"droplets/{number}/actions", {"type": kind})
    except (Pending, Already):
        return False
    except (Gone, Unclear):
        # The action may have been accepted. The next poll shows the droplet's state,
        # and to send the action again would be harmless.
        return True
    return True
