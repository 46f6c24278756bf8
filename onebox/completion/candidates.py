"""List how an `onebox` command line can continue."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from onebox.command_line import Reader
from onebox.line_values import Known

if TYPE_CHECKING:
    # A word that can follow, and its description.
    Candidate = tuple[str, str]


def split(line: str) -> list[str]:
    """
    Split a line that ends at the cursor; the last word is the one to complete.

    The name of the program is left out. The last word is "" after a space.
    """
    for closing in ("", "'", '"', "\\"):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        if line[-1:].isspace() and not closing:
            words.append("")
        return words[1:] or [""]
    return [""]


def candidates(
    reader: Reader,
    words: Sequence[str],
    help_texts: Mapping[str, Mapping[str, str]],
    values: Callable[[str], Iterable[Candidate]],
) -> list[Candidate]:
    """
    Return the words that can stand for the last of *words*, which is incomplete.

    The result is empty where a file or the user's command is expected.

    Args:
        help_texts: The help of each flag by task; the task "" has the core flags. The
            flag "" has the help of the task itself.

        values: Returns the values of a flag.
    """
    *complete, last = words
    reading = reader.read(complete)
    if reading.awaits:
        found: Iterable[Candidate] = values(reading.awaits)
    elif reading.problem:
        return []
    elif last.startswith("-") and "=" in last:
        flag = last.partition("=")[0]
        found = ((f"{flag}={value}", text) for value, text in values(flag))
    elif last.startswith("-"):
        found = _flags(reading.task, help_texts)
    else:
        found = ((name, help_texts.get(name, {}).get("", "")) for name in reader.tasks)
    return [(word, text) for word, text in found if word.startswith(last)]


def _flags(
    task: Known, help_texts: Mapping[str, Mapping[str, str]]
) -> Iterator[Candidate]:
    texts = help_texts.get(task.name, {})
    flags = {**task.flags, "--help": False}
    for flag, takes_value in sorted(flags.items()):
        if flag.startswith("--"):
            yield f"{flag}=" if takes_value else flag, texts.get(flag, "")
