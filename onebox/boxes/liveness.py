"""Check, while a command waits for a box, that the box still runs."""

from __future__ import annotations

import time

from onebox.boxes.finder import BoxFinder
from onebox.errors import Lost, Preempted
from onebox.providers.base import Provider
from onebox.providers.values import Box
from onebox.ui.screen import Screen

# A box that shuts down gets this long to be off, so that its reason can be read.
STOPPING_SECONDS = 10.0
# Least time between two checks whether this machine's public address has changed.
IP_CHECK_SECONDS = 30.0


class Liveness:
    """
    The checks of a box whose connection does not answer.

    Args:
        title: The name of the box in messages.
    """

    def __init__(
        self, provider: Provider, boxes: BoxFinder, title: str, screen: Screen
    ) -> None:
        self._provider = provider
        self._boxes = boxes
        self._title = title
        self._screen = screen
        self._ip_checked: float | None = None

    def refresh(self, box: Box) -> Box:
        """Return the present state of a starting box. Raises Lost if it is gone."""
        now = self._provider.get(box.id, box.place)
        if now is not None and now.state in ("starting", "running"):
            self._boxes.note_seen(box.id)
            return now
        self.check(box)
        return box

    def check(self, box: Box) -> None:
        """
        Return if the box runs; let this machine in if its address has changed.

        Raises:
            Preempted: The provider took the box back.

            Lost: The box is off or gone.
        """
        now = self._provider.get(box.id, box.place)
        pause = max(self._provider.poll_interval, 0.2)
        until = time.monotonic() + STOPPING_SECONDS
        while now is not None and now.state == "stopping" and time.monotonic() < until:
            time.sleep(pause)
            now = self._provider.get(box.id, box.place)
        if now is None and self._boxes.may_be_unlisted(box.created):
            return
        if now is not None:
            self._boxes.note_seen(box.id)
        if now is not None and now.state in ("starting", "running"):
            self._allow_my_ip(now)
            return
        self._boxes.invalidate()
        state = "gone" if now is None else now.state
        why = f": {now.why}" if now is not None and now.why else ""
        text = f"{self._title} ({box.id}) is {state}{why}"
        advice = "inv status" if now is None else "inv fetch brings what its disk holds"
        if now is not None and now.why == "preempted":
            raise Preempted(text, next=advice)
        raise Lost(text, next=advice)

    def _allow_my_ip(self, box: Box) -> None:
        """Open the firewall for this machine, unless that was done a moment ago."""
        now = time.monotonic()
        if self._ip_checked is not None and now - self._ip_checked < IP_CHECK_SECONDS:
            return
        self._ip_checked = now
        if self._provider.allow_my_ip(box):
            self._screen.note(
                "this machine's public address has changed; the firewall now allows it"
            )
