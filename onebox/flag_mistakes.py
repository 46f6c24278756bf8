"""Find wrong values of flags in a command line, and flags that are settings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from onebox.line_values import Given, Mistake
from onebox.providers import with_bytecode

_EXPECTED = {int: "a whole number", float: "a number"}


def wrong_value(
    words: Sequence[str],
    given: Sequence[Given],
    argument_of: Callable[[Given], Any],
) -> Mistake | None:
    """
    Return the first flag whose value is no number, or that a task has twice.

    Invoke takes the second value of a flag as the name of a task.

    Args:
        words: The command line.

        argument_of: Returns Invoke's argument of a flag.
    """
    earlier: dict[tuple[int, int], Given] = {}
    for one in given:
        argument = argument_of(one)
        if argument is None or argument.kind is list:
            continue
        first = earlier.setdefault((one.place, id(argument)), one)
        if first is not one:
            values = f"{shlex.quote(first.value)}, {shlex.quote(one.value)}"
            return Mistake(
                f"{one.flag} is given twice: {values}",
                _without(words, one),
                about_stage=one.task.is_stage,
                other_lines=[_without(words, first)],
            )
        if argument.kind in _EXPECTED:
            try:
                argument.kind(one.value)
            except ValueError:
                return Mistake(
                    f"{one.flag}: expected {_EXPECTED[argument.kind]}, "
                    f"got {one.value!r}",
                    None,
                    f"--help {one.task.name}".rstrip(),
                    about_stage=one.task.is_stage,
                )
    return None


def _without(words: Sequence[str], given: Given) -> list[str]:
    return [word for place, word in enumerate(words) if place not in given.words]


def with_setting(mistake: Mistake, word: str) -> Mistake:
    """Add the setting that an unknown flag names to the message about the flag."""
    with with_bytecode():
        from onebox.settings.schema import keys

    flag, _, value = word.partition("=")
    name = flag.lstrip("-").replace("-", "_")
    found = [key for key in keys().values() if key.name == name and key.variable]
    if len(found) != 1:
        return mistake
    (key,) = found
    where = f"[{key.table}] {key.name}" if key.table else key.name
    variable = f"{key.variable}={shlex.quote(value or key.example.strip(chr(34)))}"
    return replace(
        mistake,
        problem=f"{mistake.problem}; it is a setting",
        advice=f"{where} in onebox.toml, or {variable}",
    )
