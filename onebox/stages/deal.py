"""Deal units to boxes, and find what all the boxes can cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import announcement, offers
from onebox.errors import Unsuitable, UsageError
from onebox.providers.costs import total

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box, Offer
    from onebox.units.job import UnitJob

# The name of each box, and the numbers of its units.
Dealt = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Cost:
    """
    What several boxes cost.

    Attributes:
        offer: The offer that is tried first.

        names: The names of the boxes.

        deadline: When a box that is created now powers itself off (epoch seconds).

        at_most: The highest cost of all boxes in USD until then, None if it is unknown.
    """

    offer: Offer
    names: tuple[str, ...]
    deadline: float
    at_most: float | None

    def describe(self, now: float) -> str:
        """Return the price of all boxes and their highest cost, in one line."""
        count, hourly = len(self.names), self.offer.hourly
        boxes = formatting.count(count, "box", "boxes")
        # A box that costs nothing is on this machine.
        gone = "this command is gone" if hourly == 0 else "this machine is off"
        if hourly == 0:
            text = f"{boxes}, {formatting.rate(0)}"
        elif count == 1:
            text = f"{boxes}, at most {formatting.money(self.at_most)}"
        else:
            total = None if hourly is None else count * hourly
            text = (
                f"{count} x {formatting.rate(hourly)} = {formatting.rate(total)}, at "
                f"most {formatting.money(self.at_most)} for all"
            )
        each = "it" if count == 1 else "each"
        off = formatting.when(self.deadline, now)
        return f"{text}; {each} powers itself off {off}, even if {gone}"

    def announce(self, context: BoxContext) -> None:
        """Print the headline of all boxes."""
        first, last = self.names[0], self.names[-1]
        names = first if first == last else f"{first} … {last}"
        title = [f"{context.title_of(names)}   {context.provider.name}"]
        identity = context.provider.identity
        title += announcement.title(self.offer, "now", identity)
        context.screen.headline(title, [self.describe(context.now())])


def name(context: BoxContext, number: int) -> str:
    """Return the name of the box with a number, which begins with 1."""
    return f"{context.settings.name}-{number}"


def to_boxes(context: BoxContext, units: UnitJob, boxes: int) -> Dealt:
    """
    Deal the units that run like cards, to at most so many boxes as there are units.

    Units that take long often have neighbouring numbers, so they are spread.
    """
    count, numbers = min(boxes, len(units.numbers)), units.numbers
    return tuple(
        (name(context, first + 1), numbers[first::count]) for first in range(count)
    )


def refuse_existing(
    context: BoxContext, dealt: Dealt, *, but_temporary: bool = False
) -> None:
    """
    Raise UsageError if a box of these names exists.

    Results of earlier units on its disk would be fetched in place of newer ones.

    Args:
        but_temporary: Leave out boxes that are removed before the units run.
    """
    names = [name for name, _ in dealt]
    found = [
        box
        for box in context.provider.find(context.owner)
        if (box.tags.kind, box.tags.project) == ("box", context.project)
        and box.tags.name in names
        and box.state != "gone"
        and not (but_temporary and _is_temporary(context, box))
    ]
    if found:
        there = sorted({box.tags.name for box in found})
        rate = formatting.rate(total(box.offer.hourly for box in found))
        is_up = "is there already" if len(there) == 1 else "are there already"
        removes = " and ".join(f"inv teardown --name={name}" for name in there)
        raise UsageError(
            f"{formatting.first_names(there, len(there))} {is_up} ({rate}), and each "
            "box of several is a new one",
            next=f"{removes}, or another --name",
        )


def _is_temporary(context: BoxContext, box: Box) -> bool:
    return context.with_name(box.tags.name).store.record.temporary


def cost(context: BoxContext, dealt: Dealt) -> Cost:
    """
    Return what the boxes cost.

    Raises:
        Unsuitable: One of them exceeds a limit, or all together exceed max_cost.
    """
    limits, offer = context.settings.limits, offers.find(context)[0]
    announcement.warn_of_clock(context)
    offers.check_price(context, offer)
    names = tuple(name for name, _ in dealt)
    at_most = None
    if offer.hourly is not None:
        at_most = len(names) * offer.hourly * limits.max_hours
    limit = limits.max_cost
    if limit is not None and at_most is not None and at_most > limit:
        raise Unsuitable(
            f"{len(names)} boxes of {offer.type} could cost "
            f"{formatting.money(at_most)}, more than [limits] max_cost = "
            f"{formatting.money(limit)}",
            next="fewer --boxes, a smaller --vm, fewer max_hours, or a higher limit",
        )
    return Cost(offer, names, offers.deadline(context), at_most)
