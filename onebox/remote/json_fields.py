"""Check the fields of a JSON object from a box, each when it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from onebox.agent.file_names import printable, raw
from onebox.agent.jobs import job_state, log_times
from onebox.errors import ProtocolError

# No size, offset or count of a real box is larger.
LARGEST = (1 << 63) - 1
# The largest number of seconds that is accepted, for a duration and for a time since
# the epoch. As a time it is in the year 5138.
LATEST = 1e11
# Of a text, at most this many characters are used. Of a list of texts, at most this
# many items are used.
LONGEST_TEXT = 2000
MOST_TEXTS = 100


class Fields:
    """
    The fields of a JSON object from a box.

    *what* names the object in error messages. Every method that reads a field takes the
    field's *name*, and raises ProtocolError if the field has a wrong value.
    """

    def __init__(self, value: object, what: str) -> None:
        self._what = what
        if not isinstance(value, dict):
            raise self.invalid("it is no object")
        self._value: Mapping[str, Any] = value

    def __getitem__(self, name: str) -> object:
        return self._value.get(name)

    def invalid(self, why: str) -> ProtocolError:
        """Return the error which says that the object is invalid, and *why*."""
        return ProtocolError(
            f"the box sent no valid {self._what}: {why}",
            next="inv ssh looks at the box; inv teardown --discard-outputs gives it up",
        )

    def job(self, name: str) -> str:
        """
        Return the job id in a field.

        It must match a pattern, because files are named after it.
        """
        return self.matching(name, job_state.JOB)

    def matching(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return the text in a field, which must match *pattern*."""
        value = self[name]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._wrong(name)
        return value

    def one_of(self, name: str, words: tuple[str, ...]) -> str:
        """Return the text in a field, which must be one of *words*."""
        value = self[name]
        if not isinstance(value, str) or value not in words:
            raise self._wrong(name)
        return value

    def text(self, name: str) -> str:
        """
        Return the text in a field, escaped for a terminal.

        Return "" if there is no such field.
        """
        value = self[name]
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name)
        return printable(value[:LONGEST_TEXT])

    def texts(self, name: str) -> tuple[str, ...]:
        """
        Return the list of texts in a field, each escaped for a terminal.

        Return () if there is no such field.
        """
        texts = self.names(name)[:MOST_TEXTS]
        return tuple(printable(text[:LONGEST_TEXT]) for text in texts)

    def names(self, name: str) -> tuple[str, ...]:
        """
        Return the list of texts in a field, unescaped; () if there is no such field.
        """
        value = self[name]
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._wrong(name)
        if not all(isinstance(text, str) for text in value):
            raise self._wrong(name)
        return tuple(value)

    def paths(self, name: str) -> tuple[bytes, ...]:
        """
        Return the list of paths in a field, as bytes; () if there is no such field.
        """
        try:
            return tuple(raw(path) for path in self.names(name))
        except UnicodeEncodeError as error:
            raise self._wrong(name) from error

    def objects(self, name: str) -> list[object]:
        """
        Return at most `MOST_TEXTS` items of the list in a field, unchecked.

        Return [] if there is no such field.
        """
        value = self[name]
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name)
        return value[:MOST_TEXTS]

    def marks(self, name: str) -> tuple[tuple[float, int], ...]:
        """
        Return the marks of a log in a field: pairs of a time and a length, ascending.

        Return () if there is no such field.
        """
        value = self[name]
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > log_times.MOST:
            raise self._wrong(name)
        found: list[tuple[float, int]] = []
        for item in value:
            if not isinstance(item, list) or len(item) != 2:
                raise self._wrong(name)
            at, size = item
            if type(at) not in (int, float) or not 0 <= at <= LATEST:
                raise self._wrong(name)
            if type(size) is not int or not 0 <= size <= LARGEST:
                raise self._wrong(name)
            found.append((float(at), size))
        return tuple(found)

    def flag(self, name: str) -> bool:
        """Return the boolean in a field; False if there is no such field."""
        value = self[name]
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name)
        return bool(value)

    def integer(self, name: str, *, least: int = 0, most: int = LARGEST) -> int:
        """Return the integer in a field, which must be from *least* to *most*."""
        value = self[name]
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(name)
        return value

    def integer_or_none(self, name: str, *, most: int = LARGEST) -> int | None:
        """
        Return the integer in a field, which must be from 0 to *most*.

        Return None if there is no such field.
        """
        return None if self[name] is None else self.integer(name, most=most)

    def integers(self, name: str, count: int, *, most: int) -> tuple[int, ...]:
        """
        Return the list of integers in a field.

        The list must have at most *count* items, each from 0 to *most*.
        """
        value = self[name]
        if not isinstance(value, list) or len(value) > count:
            raise self._wrong(name)
        if not all(type(item) is int and 0 <= item <= most for item in value):
            raise self._wrong(name)
        return tuple(value)

    def number(self, name: str, *, least: float = 0.0) -> float:
        """
        Return the finite number in a field, which must be from *least* to `LATEST`.
        """
        value = self[name]
        if type(value) not in (int, float) or not isinstance(value, (int, float)):
            raise self._wrong(name)
        if not least <= value <= LATEST or not math.isfinite(value):
            raise self._wrong(name)
        return float(value)

    def number_or_none(self, name: str, *, least: float = 0.0) -> float | None:
        """
        Return the finite number in a field, which must be from *least* to `LATEST`.

        Return None if there is no such field.
        """
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
