"""Count the images of this owner at each provider, with what they cost a month."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onebox import formatting
from onebox.context import BoxContext
from onebox.errors import OneboxError
from onebox.images.image_list import bound
from onebox.providers.base import Provider
from onebox.settings.units import GB


@dataclass(frozen=True)
class ImageTotal:
    """
    The number of the owner's images at a provider, and what they cost in USD a month.

    *monthly_usd*, None if the price is unknown, is an upper bound if *at_most* is set.
    """

    provider: str
    count: int
    monthly_usd: float | None
    at_most: bool

    @property
    def text(self) -> str:
        """Return a phrase with the number, the provider and the cost."""
        count = formatting.count(self.count, "image")
        cost = bound(formatting.money(self.monthly_usd), self.at_most)
        return f"{count} at {self.provider}, {cost} a month"


def _total(provider: Provider, owner: str) -> ImageTotal:
    """Return the number and the cost of the owner's images at a provider."""
    found, rate = provider.images(owner), provider.image_rate
    cost = None if rate is None else sum(rate * image.stored / GB for image in found)
    at_most = any(image.at_most for image in found)
    return ImageTotal(provider.name, len(found), cost, at_most)


def find(
    context: BoxContext, providers: Sequence[str], unreachable: list[str]
) -> list[ImageTotal]:
    """
    Return the total of each provider that has images of this owner.

    A provider that is in *unreachable* is skipped. A provider that does not answer is
    added to *unreachable*.
    """
    totals = []
    for name in providers:
        if any(entry.startswith(f"{name} (") for entry in unreachable):
            continue
        try:
            found = _total(context.load_provider(name), context.owner)
        except OneboxError as error:
            unreachable.append(f"{name} ({error.message})")
            continue
        totals += [found] if found.count else []
    return totals


def show(context: BoxContext, totals: Sequence[ImageTotal]) -> None:
    """Print a line for each provider that has images."""
    for one in totals:
        other = one.provider != context.provider_name
        at = f" --provider={one.provider}" * other
        lists = context.screen.hints.spell(f"inv image --list{at}")
        context.screen.print(f"{one.text}: {lists}")
