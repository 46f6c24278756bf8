"""The commands of units: a line of shell, or words, with their placeholders filled."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Union

from onebox.settings.checks import InvalidValue
from onebox.units import templates as unit_templates

# A line of shell, or words.
Command = Union[str, tuple[str, ...]]


class Commands:
    """
    The commands of all units.

    Args:
        line: A line of shell with placeholders.

        words: Words with placeholders; they count if *line* is "".

        names: The names of the parameters.

    Raises:
        InvalidValue: A placeholder has another name, or no program can be started with
            the text.
    """

    def __init__(self, line: str, words: Sequence[str], names: Sequence[str]) -> None:
        self._is_line = bool(line)
        texts = [line] if line else list(words)
        for text in texts:
            _check_bytes(text)
        known = (*names, "unit", "outputs")
        self._templates = [
            unit_templates.parse(text, known, is_line=self._is_line) for text in texts
        ]
        self.text = line or shlex.join(texts)

    def of_unit(self, number: int, values: Mapping[str, str]) -> Command:
        """
        Return the command of a unit.

        Raises:
            InvalidValue: A value cannot be quoted where it stands.
        """
        try:
            found = tuple(template.fill(values) for template in self._templates)
        except InvalidValue as problem:
            raise InvalidValue(f"unit {number}: {problem}", problem.next) from None
        return found[0] if self._is_line else found


def _check_bytes(text: str) -> None:
    if "\0" in text:
        raise InvalidValue("contains a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValue("is not valid UTF-8") from None
