"""Separate a command line with `plan` from the tasks that change something."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebox.command_line import Reader
    from onebox.line_values import Known


def explain_plan(
    reader: Reader,
    words: Sequence[str],
    command: Sequence[str],
    shared: Collection[str],
) -> tuple[list[str], list[list[str]]]:
    """
    Return the tasks that may not be on a line with `plan`, and the lines to type.

    They are the stages that change something, because the word `plan` promises that
    nothing changes. Both lists are empty if there is nothing to separate.

    Args:
        command: The user's command, without `--`.

        shared: The flags that apply to the whole line.
    """
    parts = reader.tasks_in(words)
    if {"--dry", "-R"}.intersection(words):
        return [], []
    plans = [part for part in parts if part[0].is_plan]
    rest = [part for part in parts if not part[0].is_plan]
    # `inv plan map` is the plan of `map`.
    changing = [
        task.name for task, part in rest if _changes(task, part) and not task.is_map
    ]
    if not plans or not changing:
        return [], []
    lines = []
    for own, other in ((plans, rest), (rest, plans)):
        line = [word for _, part in own for word in part]
        flags = [f for task, part in other for f in _flags(task, part, shared)]
        line += [flag for flag in dict.fromkeys(flags) if flag not in line]
        if command and any(task.takes_command for task, _ in own):
            line += ["--", *command]
        lines.append(line)
    return changing, lines


def _changes(task: Known, words: Sequence[str]) -> bool:
    """Return whether a task with these words is a stage that changes something."""
    return task.is_stage and not (task.read_only and "--yes" not in words)


def _flags(task: Known, words: Sequence[str], names: Collection[str]) -> Iterator[str]:
    """Yield the flags with these *names* among the words of a task."""
    rest = iter(words[1:])
    for word in rest:
        name, equals, _ = word.partition("=")
        if name not in names:
            continue
        yield word if equals or not task.flags.get(name) else f"{word}={next(rest, '')}"
