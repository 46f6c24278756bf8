"""Check the fields of a JSON object from a box, one by one, as they are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from onebox.agent.file_names import printable, raw
from onebox.agent.jobs import job_state
from onebox.errors import ProtocolError

# No size, offset or count of a real box is larger.
LARGEST = (1 << 63) - 1
# The largest number of seconds that is accepted, for a duration and for a time since
# the epoch. As a time it is in the year 5138.
LATEST = 1e11
# At most this many characters of a text, and this many items of a list, are used.
LONGEST_TEXT = 2000
MOST_TEXTS = 100


class Fields:
    """
    The fields of a JSON object; every method raises ProtocolError for a wrong value.

    *what* names the object in error messages.
    """

    def __init__(self, value: object, what: str) -> None:
        self._what = what
        if not isinstance(value, dict):
            raise self.invalid("it is no object")
        self._value: Mapping[str, Any] = value

    def __getitem__(self, name: str) -> object:
        return self._value.get(name)

    def invalid(self, why: str) -> ProtocolError:
        """Return the error for an invalid object."""
        return ProtocolError(
            f"the box sent no valid {self._what}: {why}",
            next="inv ssh looks at the box; inv teardown --discard-outputs gives it up",
        )

    def job(self, name: str) -> str:
        """Return a job id, which must match a pattern because files are named by it."""
        return self.matching(name, job_state.JOB)

    def matching(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return a text that matches a pattern."""
        value = self[name]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._wrong(name)
        return value

    def one_of(self, name: str, words: tuple[str, ...]) -> str:
        """Return a text that is one of some words."""
        value = self[name]
        if not isinstance(value, str) or value not in words:
            raise self._wrong(name)
        return value

    def text(self, name: str) -> str:
        """Return a text, escaped for a terminal; "" if it is absent."""
        value = self[name]
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name)
        return printable(value[:LONGEST_TEXT])

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, escaped for a terminal; () if it is absent."""
        texts = self.names(name)[:MOST_TEXTS]
        return tuple(printable(text[:LONGEST_TEXT]) for text in texts)

    def names(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, unescaped; () if it is absent."""
        value = self[name]
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._wrong(name)
        if not all(isinstance(text, str) for text in value):
            raise self._wrong(name)
        return tuple(value)

    def paths(self, name: str) -> tuple[bytes, ...]:
        """Return a list of paths, as bytes; () if it is absent."""
        try:
            return tuple(raw(path) for path in self.names(name))
        except UnicodeEncodeError as error:
            raise self._wrong(name) from error

    def flag(self, name: str) -> bool:
        """Return a boolean; False if it is absent."""
        value = self[name]
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name)
        return bool(value)

    def integer(self, name: str, *, least: int = 0, most: int = LARGEST) -> int:
        """Return an integer within bounds."""
        value = self[name]
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(name)
        return value

    def integer_or_none(self, name: str, *, most: int = LARGEST) -> int | None:
        """Return an integer within bounds, None if it is absent."""
        return None if self[name] is None else self.integer(name, most=most)

    def integers(self, name: str, count: int, *, most: int) -> tuple[int, ...]:
        """Return a list of at most *count* integers within bounds."""
        value = self[name]
        if not isinstance(value, list) or len(value) > count:
            raise self._wrong(name)
        if not all(type(item) is int and 0 <= item <= most for item in value):
            raise self._wrong(name)
        return tuple(value)

    def number(self, name: str, *, least: float = 0.0) -> float:
        """Return a finite number within bounds."""
        value = self[name]
        if type(value) not in (int, float) or not isinstance(value, (int, float)):
            raise self._wrong(name)
        if not least <= value <= LATEST or not math.isfinite(value):
            raise self._wrong(name)
        return float(value)

    def number_or_none(self, name: str, *, least: float = 0.0) -> float | None:
        """Return a finite number within bounds, None if it is absent."""
        return None if self[name] is None else self.number(name, least=least)

    def _wrong(self, name: str) -> ProtocolError:
        value = self[name]
        if isinstance(value, str):
            shown = f'"{printable(value[:80])}"'
        elif isinstance(value, (dict, list)):
            shown = "a list" if isinstance(value, list) else "an object"
        elif type(value) is int and abs(value) > LARGEST:
            shown = "a huge number"
        else:
            shown = str(value)
        return self.invalid(f"{name} is {shown}")
