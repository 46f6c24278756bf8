"""Collect the offers refused while one box is created; report each cause once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from onebox import formatting
from onebox.errors import NoCapacity, OneboxError, QuotaExceeded, Unsuitable
from onebox.providers.base import Provider
from onebox.providers.values import Offer

_BOX_ID = re.compile(r"\bob-[0-9a-z]+\b")


@dataclass
class RefusedOffers:
    """
    The offers that were refused while one box was created, in order of the attempts.

    Attributes:
        refused: Each offer with the error that refused it.
    """

    provider: Provider
    refused: list[tuple[Offer, OneboxError]] = field(default_factory=list)

    def add(self, offer: Offer, error: OneboxError) -> None:
        """Add an offer with the error that refused it."""
        self.refused.append((offer, error))

    def skip(self, offer: Offer) -> bool:
        """
        Return whether a quota that refused an earlier offer also refuses *offer*.

        If so, *offer* is added to the refused offers without an API call.
        """
        for earlier, error in self.refused:
            if isinstance(error, QuotaExceeded) and self.provider.also_refused(
                earlier, error.limit, offer
            ):
                self.add(offer, error)
                return True
        return False

    def rows(self) -> list[str]:
        """Return a text for each cause, which also describes the refused offers."""
        groups: dict[tuple[object, ...], list[tuple[Offer, OneboxError]]] = {}
        for offer, error in self.refused:
            cause = error.cause or _without_names(offer, error.message)
            key = (type(error), offer.spot, cause)
            groups.setdefault(key, []).append((offer, error))
        return [
            f"{_describe([offer for offer, _ in group])}: "
            f"{group[0][1].cause or group[0][1].message}"
            for group in groups.values()
        ]

    def error(self, size_name: str, option: str) -> OneboxError:
        """
        Return the error to raise if every offer was refused.

        Args:
            size_name: The name of the size that the user requested.

            option: The option that selects another size, such as "--vm".
        """
        errors = list(dict.fromkeys(error for _, error in self.refused))
        if len(errors) == 1 and not isinstance(errors[0], NoCapacity):
            return errors[0]
        rows = "".join(f"\n    {row}" for row in self.rows())
        error_types = {type(error) for error in errors}
        error_type: type[OneboxError] = NoCapacity
        if len(error_types) == 1 and error_types <= {QuotaExceeded, Unsuitable}:
            (error_type,) = error_types
        count = formatting.count(len(self.refused), "offer")
        if error_type is NoCapacity:
            message = f"no capacity for {size_name}: none of {count} is available"
        else:
            message = f"none of {count} for {size_name} can be used"
        return error_type(f"{message}:{rows}", next=self._advice(errors, option))

    def _advice(self, errors: Sequence[OneboxError], option: str) -> str:
        """Return what all *errors* advise to do next, without duplicates."""
        usual = f"another {option}, more zones or regions in onebox.toml, or later"
        advice = [
            usual if isinstance(error, NoCapacity) else error.next for error in errors
        ]
        return "; ".join(text for text in dict.fromkeys(advice) if text)


def _without_names(offer: Offer, message: str) -> str:
    """
    Replace machine type, place and box id in *message* by "…".

    Two messages with the same cause are then equal.
    """
    for name in (offer.type, offer.place):
        if name:
            message = message.replace(name, "…")
    return _BOX_ID.sub("…", message)


def _describe(offers: Sequence[Offer]) -> str:
    """
    Describe offers in a few words.

    >>> a = Offer("s", "t1", 1, 1, None, None, place="a")
    >>> b = Offer("s", "t1", 1, 1, None, None, True, place="b")
    >>> _describe([a]), _describe([b, b, b])
    ('t1 in a', 't1 in b, spot')
    >>> _describe([a, b])
    't1 in 2 zones'
    """
    types = list(dict.fromkeys(offer.type for offer in offers))
    places = list(dict.fromkeys(offer.place for offer in offers if offer.place))
    text = types[0] if len(types) == 1 else f"{types[0]} and {len(types) - 1} more"
    if places:
        text += f" in {places[0] if len(places) == 1 else f'{len(places)} zones'}"
    return f"{text}, spot" if all(offer.spot for offer in offers) else text
