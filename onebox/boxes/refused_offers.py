"""The candidates that were refused: which need no try, and why, each cause once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from onebox import formatting
from onebox.errors import NoCapacity, OneboxError, QuotaExceeded, Unsuitable
from onebox.providers.base import Offer, Provider

_BOX = re.compile(r"\bob-[0-9a-z]+\b")


@dataclass
class Refusals:
    """
    The refusals of one create, in order.

    Attributes:
        refused: Each candidate with the error that it was refused with.
    """

    provider: Provider
    refused: list[tuple[Offer, OneboxError]] = field(default_factory=list)

    def covers(self, size: Offer) -> bool:
        """
        Tell whether a limit that has refused another candidate refuses this one.

        It is then counted as refused, and need not be asked for.
        """
        for before, error in self.refused:
            if isinstance(error, QuotaExceeded) and self.provider.also_refused(
                before, error.limit, size
            ):
                self.refused.append((size, error))
                return True
        return False

    def rows(self) -> list[str]:
        """Return one row for each cause, with the candidates that it refused."""
        groups: dict[tuple[object, ...], list[tuple[Offer, OneboxError]]] = {}
        for size, error in self.refused:
            key = (type(error), size.spot, error.cause or _plain(size, error.message))
            groups.setdefault(key, []).append((size, error))
        return [
            f"{_which([size for size, _ in group])}: "
            f"{group[0][1].cause or group[0][1].message}"
            for group in groups.values()
        ]

    def error(self, name: str, option: str) -> OneboxError:
        """
        Return the error of a create that no candidate has come of.

        Args:
            name: The size's name.

            option: What chooses another size, such as "--vm".
        """
        errors = list(dict.fromkeys(error for _, error in self.refused))
        if len(errors) == 1 and not isinstance(errors[0], NoCapacity):
            return errors[0]
        count = formatting.count(len(self.refused), "candidate")
        table = "".join(f"\n    {row}" for row in self.rows())
        kinds = {type(error) for error in errors}
        kind: type[OneboxError] = NoCapacity
        if len(kinds) == 1 and kinds <= {QuotaExceeded, Unsuitable}:
            (kind,) = kinds
        return kind(
            f"none of {count} for {name} can be had:{table}",
            next=self._next(errors, option),
        )

    def _next(self, errors: Sequence[OneboxError], option: str) -> str:
        """Return what each refusal advises, each advice once."""
        usual = f"another {option}, more zones or regions in onebox.toml, or later"
        found = [
            usual if isinstance(error, NoCapacity) else error.next for error in errors
        ]
        return "; ".join(one for one in dict.fromkeys(found) if one)


def _plain(size: Offer, message: str) -> str:
    """Return a message without what names the candidate: equal causes are equal."""
    for name in (size.type, size.place):
        if name:
            message = message.replace(name, "…")
    return _BOX.sub("…", message)


def _which(sizes: Sequence[Offer]) -> str:
    """
    Name candidates in a few words.

    >>> one = Size("s", "t1", 1, 1, None, None, place="a")
    >>> two = Size("s", "t1", 1, 1, None, None, True, place="b")
    >>> _which([one]), _which([two, two, two])
    ('t1 in a', 't1 in b, spot')
    >>> _which([one, two])
    't1 in 2 zones'
    """
    types = list(dict.fromkeys(size.type for size in sizes))
    places = list(dict.fromkeys(size.place for size in sizes if size.place))
    text = types[0] if len(types) == 1 else f"{types[0]} and {len(types) - 1} more"
    if places:
        where = places[0] if len(places) == 1 else f"{len(places)} zones"
        text += f" in {where}"
    return f"{text}, spot" if all(size.spot for size in sizes) else text
