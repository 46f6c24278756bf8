"""Refuse flags and commands that cannot stand together on a command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from onebox.command_hints import program_name
from onebox.flags import MODES, FlagStore, Mode, SharedArgument
from onebox.line_values import Known, Mistake
from onebox.parser import WrongLine, wrong_line

if TYPE_CHECKING:
    from onebox.command_line import Reader


class _Part(NamedTuple):
    """
    A task on a command line.

    Attributes:
        known: What may follow the task.

        words: Its own words, which begin with its name.

        stage: The task, if it is one of onebox's own stages, else None.

        given: Its own flags that were typed, without the dashes.

        shared: Those of the flags that apply to the whole line.
    """

    known: Known
    words: Sequence[str]
    stage: Any
    given: Sequence[str]
    shared: Sequence[str]

    @property
    def modes(self) -> dict[str, Mode]:
        """Return what the flags of the stage that change what it does go with."""
        return MODES.get(self.stage.name, {}) if self.stage else {}

    @property
    def uses_command(self) -> bool:
        """Return whether the task may use a command of the user."""
        chosen = (self.modes[flag] for flag in self.given if flag in self.modes)
        return self.stage is None or (
            self.known.takes_command and all(mode.command for mode in chosen)
        )


def refuse(
    contexts: Iterable[Any],
    reader: Reader,
    words: Sequence[str],
    before: Sequence[str],
    command: Sequence[str],
) -> None:
    """
    Raise WrongLine if parts of a line cannot stand together.

    Args:
        contexts: The tasks of the line, as Invoke has parsed them.

        words: The words of the tasks, *before* those before them.

        command: The user's command.
    """
    tasks = reader.tasks_in(words)
    arguments = [list(context.args.values()) for context in contexts if context.name]
    if len(arguments) != len(tasks):
        return
    parts = [_part(*task, found) for task, found in zip(tasks, arguments)]
    found = _find(parts, command)
    if found is not None:
        mistake, meant = found
        FlagStore.clear()
        raise WrongLine(wrong_line(mistake, before, meant))


def _find(
    parts: Sequence[_Part], command: Sequence[str]
) -> tuple[Mistake, Sequence[str]] | None:
    """Return the first contradiction, and the command of the line that was meant."""
    for place, part in enumerate(parts):
        for problem, changed in _wrong_flags(part):
            lines = [_line(parts, place, words) for words in changed]
            return Mistake(problem, lines[0], other_lines=lines[1:]), command
    if command and parts and not any(part.uses_command for part in parts):
        (*_, last) = parts
        flags = [f" --{flag}" for flag in last.given if flag in last.modes]
        problem = f"{last.known.name}{''.join(flags[:1])} takes no command"
        line = _line(parts, 0, parts[0].words)
        if flags == [" --command"]:
            problem = "--command does not go with a command after it"
            one = _line(parts, len(parts) - 1, _dropped(last, "command"))
            return Mistake(problem, [*one, "--", *command], other_lines=[line]), ()
        return Mistake(problem, line), ()
    mistake = _mixed_document(parts, command)
    return None if mistake is None else (mistake, command)


def _part(known: Known, words: Sequence[str], arguments: Iterable[Any]) -> _Part:
    arguments = list(arguments)
    stages = [a.stage for a in arguments if isinstance(a, SharedArgument)]
    stage = stages[0] if stages and stages[0].builtin else None
    given: dict[bool, list[str]] = {False: [], True: []}
    for argument in arguments:
        if argument.got_value:
            name = argument.name.strip("_").replace("_", "-")
            given[isinstance(argument, SharedArgument)].append(name)
    return _Part(known, words, stage, given[False], given[True])


def _wrong_flags(part: _Part) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield each problem with the flags of a task, and the words that were meant."""
    chosen = [flag for flag in part.given if flag in part.modes]
    for flag in chosen:
        beside, _, without = part.modes[flag]
        typed = (*part.shared, *part.given)
        wrong = [name for name in typed if name in without]
        if beside is not None:
            wrong += [name for name in part.given if name not in (flag, *beside)]
        for other in wrong:
            changed = [_dropped(part, other), _dropped(part, flag)]
            if other not in (*part.modes, *without):
                del changed[1]
            yield f"--{flag} does not go with --{other}", changed
    usual = part.modes.get("")
    for other in part.given if usual and not chosen else ():
        fitting = [
            flag for flag, mode in part.modes.items() if other in (mode.beside or ())
        ]
        if fitting and "" not in fitting:
            name, *rest = part.words
            flags = [f"--{flag}" for flag in fitting]
            yield (
                f"--{other} goes with {' or '.join(flags)}",
                [[name, flag, *rest] for flag in flags],
            )


def _mixed_document(parts: Sequence[_Part], command: Sequence[str]) -> Mistake | None:
    """Return a mistake if a JSON document would be mixed with other output."""
    documents = [part for part in parts if part.stage and "json" in part.given]
    others = [
        part
        for part in parts
        if part.stage
        and part not in documents
        and (part.known.read_only or part.known.takes_command)
    ]
    if len(documents) != 1 or not others:
        return None
    lines = []
    for part in parts:
        after = ["--", *command] if command and part.known.takes_command else []
        lines.append(shlex.join([program_name(), *part.words, *after]))
    return Mistake(
        f"with --json, stdout has one document, so {others[0].known.name} cannot be on "
        "the same line",
        None,
        advice=", then ".join(lines),
    )


def _line(parts: Sequence[_Part], place: int, words: Sequence[str]) -> list[str]:
    """Return the words of a line in which one task has other words."""
    return [
        word
        for n, part in enumerate(parts)
        for word in (words if n == place else part.words)
    ]


def _dropped(part: _Part, flag: str) -> list[str]:
    """Return the words of a task without a flag and its value."""
    kept, rest = [], iter(part.words)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name != f"--{flag}":
            kept.append(word)
        elif part.known.flags.get(name) and not equals:
            next(rest, "")
    return kept
