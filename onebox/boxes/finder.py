"""Find this project's boxes at the provider, and check whether a box still runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from onebox.boxes import no_box
from onebox.errors import Lost, OneboxError, Preempted, ProviderError, UsageError
from onebox.providers.base import Provider
from onebox.providers.values import Box, BoxState

if TYPE_CHECKING:
    from onebox.context import BoxContext

# `check_runs` waits this many seconds until a box that shuts down is off. Only then can
# the reason of the shutdown be read from the provider.
REASON_SECONDS = 10.0
# onebox checks at most once in this many seconds whether this machine's public address
# has changed.
IP_CHECK_SECONDS = 30.0


class BoxFinder:
    """
    Find the boxes of one project that have the same name.

    The boxes that the provider lists are cached until `invalidate` or `refresh` is
    called.

    Attributes:
        unanswered: Whether the provider failed to list the boxes at the last attempt.
    """

    def __init__(self, context: BoxContext) -> None:
        self._context = context
        self._provider = context.provider
        self._store = context.store
        self._screen = context.screen
        self._opened = time.monotonic()
        self._ip_checked: float | None = None
        self.unanswered = False
        self._seen: set[str] = set()
        self._warned: set[str] = set()
        self._listed: list[Box] | None = None
        # `_current` is valid only if `_determined` is True. In this case, None means
        # that there is no box.
        self._current: Box | None = None
        self._determined = False

    def find_current(self) -> Box | None:
        """
        Return the box of this name, None if there is none.

        Raises:
            OneboxError: Two or more boxes of this name are not stopped.
        """
        if not self._determined:
            self._current = self._choose_current()
            self._determined = True
        return self._current

    def _choose_current(self) -> Box | None:
        boxes = [
            box
            for box in self._list()
            if box.tags.kind == "box" and box.id not in self._context.chain.superseded
        ]
        # A preempted box may still exist, stopped, beside the box that replaced it.
        live = [box for box in boxes if box.state != "stopped"]
        if len(live) > 1:
            ids = ", ".join(box.id for box in live)
            raise OneboxError(
                f"there are {len(live)} boxes called {self._context.title}: {ids}",
                next="inv cleanup",
            )
        return max(live or boxes, key=lambda box: box.created, default=None)

    @property
    def preempted(self) -> list[Box]:
        """Return the stopped boxes of this name other than the current box."""
        current = self.find_current()
        current_id = current.id if current is not None else ""
        return [
            box
            for box in self._list()
            if (box.tags.kind, box.state) == ("box", "stopped") and box.id != current_id
        ]

    @property
    def builders(self) -> list[Box]:
        """Return the boxes of this name on which images are built."""
        return [box for box in self._list() if box.tags.kind == "builder"]

    def running(self) -> Box:
        """
        Return the current box.

        Raises:
            UsageError: There is no box, or it is neither running nor starting.
        """
        box = self.find_current()
        if box is None:
            raise no_box.error(self._context)
        if box.state not in ("running", "starting"):
            raise UsageError(
                f"{self._context.title} ({box.id}) is {box.state}; its disk is kept",
                next="inv fetch copies its outputs, inv teardown removes it",
            )
        return box

    def refresh(self) -> Box | None:
        """List the boxes again and return the current one."""
        self.invalidate()
        return self.find_current()

    def invalidate(self) -> None:
        """Drop the cached list: the next use lists the boxes again."""
        self._listed, self._determined = None, False

    def set_current(self, box: Box) -> None:
        """Cache a box that was just created or started as the current one."""
        self._current, self._determined = box, True

    def was_seen(self, box_id: str) -> bool:
        """Return whether the provider has listed this box since the command began."""
        return box_id in self._seen

    def reload(self, box: Box) -> Box:
        """
        Return a starting box as the provider reports it now.

        Raises:
            Preempted, Lost: The box is off or gone; see `check_runs`.
        """
        current = self._provider.get(box.id, box.place)
        if current is not None and current.state in ("starting", "running"):
            self._seen.add(box.id)
            return current
        self.check_runs(box)
        return box

    def check_runs(self, box: Box) -> None:
        """
        Check that a box whose connection does not answer still runs.

        If this machine's public address has changed, the firewall is opened for it.

        Raises:
            Preempted: The provider took the box back.

            Lost: The box is off or gone.
        """
        current = self.wait_while(box, REASON_SECONDS, "stopping")
        if current is None and self.may_be_unlisted(box.created):
            return
        if current is not None:
            self._seen.add(box.id)
            if current.state in ("starting", "running"):
                self._allow_my_ip(current)
                return
        self.invalidate()
        title = f"{self._context.title} ({box.id})"
        if current is None:
            raise Lost(f"{title} is gone", next="inv status")
        why = f": {current.why}" if current.why else ""
        error_type = Preempted if current.why == "preempted" else Lost
        raise error_type(
            f"{title} is {current.state}{why}",
            next="inv fetch copies what its disk holds",
        )

    def wait_while(self, box: Box, seconds: float, *states: BoxState) -> Box | None:
        """
        Wait until a box is in none of the given *states*, but at most *seconds*.

        Returns:
            The box as the provider reports it at the end, None if it does not exist.
        """
        until = time.monotonic() + seconds
        current = self._provider.get(box.id, box.place)
        while current and current.state in states and time.monotonic() < until:
            time.sleep(max(self._provider.poll_interval, 0.2))
            current = self._provider.get(box.id, box.place)
        return current

    def provider_time(self, local_time: float) -> float:
        """Convert a time by this machine's clock to the provider's clock."""
        return local_time + self._provider.now() - time.time()

    def may_be_unlisted(self, created: float) -> bool:
        """Return whether a box created at *created* may still be missing from lists."""
        return may_be_unlisted(self._provider, created, self._opened)

    def wait_until_listed(self, box_id: str, place: str, created: float) -> Box | None:
        """
        Poll the provider until it returns the box.

        A provider may list a box some time after its creation. If that time is over and
        the provider has not returned the box, the box does not exist, and the result is
        None.

        Args:
            created: When the box was created (epoch seconds by the provider's clock).
        """
        box = self._provider.get(box_id, place)
        if box is None and self.may_be_unlisted(created):
            wait = self._provider.consistency_lag
            self._screen.note(
                f"{box_id} may have been created: looking for it for up to {wait:.0f} s"
            )
        while box is None and self.may_be_unlisted(created):
            time.sleep(max(self._provider.poll_interval, 0.2))
            box = self._provider.get(box_id, place)
        if box is not None:
            self._seen.add(box_id)
        return box

    def _allow_my_ip(self, box: Box) -> None:
        """Open the firewall for this machine, at most once in `IP_CHECK_SECONDS`."""
        now = time.monotonic()
        if self._ip_checked is not None and now - self._ip_checked < IP_CHECK_SECONDS:
            return
        self._ip_checked = now
        if self._provider.allow_my_ip(box):
            self._screen.note(
                "this machine's public address has changed; the firewall now allows it"
            )

    def _list(self) -> list[Box]:
        if self._listed is None:
            self.unanswered = True
            self._listed = self._find_all()
            self.unanswered = False
        return self._listed

    def _find_all(self) -> list[Box]:
        places = {place for place, _ in self._expected().values() if place}
        context = self._context
        boxes = [
            box
            for box in self._provider.find(context.owner, sorted(places))
            if (box.tags.project, box.tags.name)
            == (context.project, context.settings.name)
            and box.state != "gone"
        ]
        self.report_unreadable()
        listed = {box.id for box in boxes}
        self._seen |= listed
        # `_expected` is called again, because its creation times use the provider's
        # clock, which is known only after a call to the provider.
        for box_id, (place, created) in self._expected().items():
            if box_id not in listed and self.may_be_unlisted(created):
                box = self.wait_until_listed(box_id, place, created)
                boxes += [box] if box and box.state != "gone" else []
        return boxes

    def report_unreadable(self) -> None:
        """
        Warn about boxes that the provider's last call of `find` could not read.

        Also warn about what it could not remove of deleted boxes.

        Raises:
            ProviderError: One of them is the box of this name, which must not be
                created again.
        """
        for text in self._provider.undeletable:
            if text not in self._warned:
                self._warned.add(text)
                self._screen.warn(f"a deleted box could not be removed: {text}")
        for box_id, text in self._provider.unreadable.items():
            if box_id in self._expected():
                raise ProviderError(
                    f"{self._context.title} ({box_id}) cannot be read: {text}",
                    next="repair it, or remove it there by hand, with its outputs",
                )
            if box_id not in self._warned:
                self._warned.add(box_id)
                self._screen.warn(f"a box cannot be read, and is left out: {text}")

    def _expected(self) -> dict[str, tuple[str, float]]:
        """
        Return the place and the creation time of each box that may exist, by its id.

        These are the recorded box, the boxes of open create intents, and the boxes of
        open delete intents if the provider had listed them before the delete. Such a
        deleted box is gone if the provider's lists lack it now. Its creation time is
        given as 0, so that no caller waits until it is listed.
        """
        provider, record = self._provider.name, self._store.record
        expected = {}
        if record.box and record.provider in ("", provider):
            expected[record.box] = (record.place, record.created)
        for intent in self._store.open_intents():
            if not intent.box or not intent.concerns(provider):
                continue
            if intent.action == "create":
                created = self.provider_time(intent.at)
                expected[intent.box] = (intent.place, created)
            elif intent.action == "delete" and intent.seen:
                expected[intent.box] = (intent.place, 0.0)
        return expected


def may_be_unlisted(provider: Provider, created: float, opened: float) -> bool:
    """
    Return whether a provider's lists may still lack a box created at *created*.

    Args:
        created: Epoch seconds by the provider's clock.

        opened: When this command began (monotonic seconds).
    """
    age = provider.now() - created
    if age < 0:
        # The box seems to be created in the future: a clock was set back, possibly by
        # hours. The age is then counted from the start of this command.
        age = time.monotonic() - opened
    return age < provider.consistency_lag
