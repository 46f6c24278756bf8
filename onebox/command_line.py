"""Read a command line as Invoke does; find its command, or the mistake in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple


class Known(NamedTuple):
    """
    What a command line may contain after the name of a task.

    Attributes:
        name: The task's name; "" for the words before the first task.

        flags: Whether each flag takes a value; None if its value is optional.

        positionals: How many words without a flag are arguments of the task.

        is_stage: Whether the task is a stage of onebox or a user's own stage.

        takes_command: Whether the task runs a command of the user.

        read_only: Whether the task changes nothing, unless it has the flag `--yes`.

        is_plan: Whether this is the stage `plan`.
    """

    name: str
    flags: Mapping[str, bool | None]
    positionals: int = 0
    is_stage: bool = False
    takes_command: bool = False
    read_only: bool = False
    is_plan: bool = False


@dataclass(frozen=True)
class Reading:
    """
    How far a command line can be read.

    Attributes:
        task: The task that the word at *index* follows.

        index: The index of the first word that has no meaning; the number of words if
            all have one.

        problem: What is wrong with that word: "word" (neither flag, value nor task),
            "flag" (unknown), "value" (the flag has none) or "switch" (the flag takes
            none); "" if nothing is wrong.

        flag: The flag of the problem "value" or "switch".

        awaits: The flag for whose value the line ends too early, "" if there is none.
    """

    task: Known
    index: int
    problem: str = ""
    flag: str = ""
    awaits: str = ""


@dataclass(frozen=True)
class Mistake:
    """
    A mistake in a command line.

    Attributes:
        problem: What is wrong, for a message.

        line: The words that were probably meant, None if that is not known.

        other_lines: Other lines that may have been meant.

        next: What to type to find out more, without the program's name.

        about_stage: Whether the mistake or the line that was meant concerns a stage.
    """

    problem: str
    line: Sequence[str] | None
    next: str = ""
    about_stage: bool = True
    other_lines: Sequence[Sequence[str]] = ()


class Reader:
    """
    Reads the words of command lines.

    Args:
        tasks: The tasks by all names that can be typed.

        core: The flags of Invoke itself, as those of a task without a name.

        examples: Values of flags, for the message about a flag without one.
    """

    def __init__(
        self, tasks: Mapping[str, Known], core: Known, examples: Mapping[str, str]
    ) -> None:
        self.tasks = tasks
        self.core = core
        self._examples = examples

    def read(self, words: Sequence[str]) -> Reading:
        """Read words up to the first one that has no meaning; see `Reading`."""
        task, awaits, may_await, positionals = self.core, "", False, 0
        for index, word in enumerate(words):
            is_flag = word.startswith("-") and word != "-"
            if awaits:
                if word in task.flags or (is_flag and task.is_stage):
                    return Reading(task, index - 1, "value", awaits)
                awaits = ""
                continue
            if is_flag and (word not in task.flags or task is self.core):
                name, equals, value = word.partition("=")
            else:
                name, equals, value = word, "", ""
            if is_flag:
                may_await = False
                takes_value = self._takes_value(task, name)
                if takes_value is _UNKNOWN:
                    if self._is_short_block(task, name):
                        continue
                    return Reading(task, index, "flag")
                if takes_value is False and equals:
                    return Reading(task, index, "switch", name)
                if takes_value is True and equals and not value and task.is_stage:
                    return Reading(task, index, "value", name)
                if not equals:
                    awaits = name if takes_value is True else ""
                    may_await = takes_value is None
                continue
            if may_await and word not in self.tasks:
                may_await = False
            elif positionals:
                positionals -= 1
            elif word in self.tasks:
                task, may_await = self.tasks[word], False
                positionals = task.positionals
            else:
                return Reading(task, index, "word")
        if awaits:
            return Reading(task, len(words) - 1, "value", awaits, awaits)
        return Reading(task, len(words))

    def command_start(self, words: Sequence[str]) -> int | None:
        """
        Return the index of the first word of the user's command, None without one.

        The command begins at the first word after a task that takes a command, if the
        word is neither a flag, nor the value of a flag, nor the name of a task.
        """
        reading = self.read(words)
        if reading.problem == "word" and reading.task.takes_command:
            return reading.index
        return None

    def explain(
        self, words: Sequence[str], reading: Reading, is_program: Callable[[str], bool]
    ) -> Mistake | None:
        """
        Return the mistake that *reading* has found, None if it has found none.

        Args:
            is_program: Returns whether a word names a program or a file.
        """
        mistake = self._first_mistake(words, reading, is_program)
        if mistake is None or mistake.line is None:
            return mistake
        # The line that was meant may contain another mistake.
        line, problems = list(mistake.line), 0
        while "--" not in line and problems < len(words):
            further = self._first_mistake(line, self.read(line), is_program)
            if further is None or further.line is None:
                break
            line, problems = list(further.line), problems + 1
        return replace(mistake, line=line)

    def explain_plan(
        self, words: Sequence[str], command: Sequence[str], shared: Collection[str]
    ) -> tuple[list[str], list[list[str]]]:
        """
        Return the tasks that may not be on a line with `plan`, and the lines to type.

        They are the stages that change something, because the word `plan` promises that
        nothing changes. Both lists are empty if there is nothing to separate.

        Args:
            command: The user's command, without `--`.

            shared: The flags that apply to the whole line.
        """
        parts = self._tasks_in(words)
        if {"--dry", "-R"}.intersection(words):
            return [], []
        plans = [part for part in parts if part[0].is_plan]
        rest = [part for part in parts if not part[0].is_plan]
        changing = [task.name for task, part in rest if _changes(task, part)]
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

    def _tasks_in(self, words: Sequence[str]) -> list[tuple[Known, Sequence[str]]]:
        """Return each task of a line that can be read, with its own words."""
        starts = [
            n
            for n, word in enumerate(words)
            if word in self.tasks
            and not self.read(words[:n]).awaits
            and self.read(words[: n + 1]).task is self.tasks[word]
        ]
        ends = [*starts[1:], len(words)]
        return [(self.tasks[words[n]], words[n:end]) for n, end in zip(starts, ends)]

    def _first_mistake(
        self, words: Sequence[str], reading: Reading, is_program: Callable[[str], bool]
    ) -> Mistake | None:
        if reading.problem == "word":
            return self._explain_word(words, reading, is_program)
        if reading.problem == "flag":
            return self._explain_flag(words, reading)
        task = reading.task
        if reading.problem == "value":
            return self._without_value(reading.flag, task)
        if reading.problem == "switch":
            line = _replaced(words, reading.index, reading.flag)
            problem = f"{reading.flag} takes no value"
            return Mistake(problem, line, about_stage=task.is_stage)
        return None

    def _without_value(self, flag: str, task: Known) -> Mistake:
        example = f"{flag}={self._examples.get(flag, '…')}"
        problem = f"{flag} needs a value, for example {example}"
        return Mistake(problem, None, about_stage=task.is_stage)

    def _explain_word(
        self, words: Sequence[str], reading: Reading, is_program: Callable[[str], bool]
    ) -> Mistake:
        index, task = reading.index, reading.task
        word = words[index]
        same = [name for name in self.tasks if name.endswith(f".{word}")]
        if len(same) > 1:
            lines = [_replaced(words, index, name) for name in same]
            return Mistake(
                f'there is no task "{word}"', lines[0], other_lines=lines[1:]
            )
        near = nearest(word, self.tasks)
        if task.takes_command and near[:1] != word[:1]:
            # A command such as htop is likelier than a mistyped first letter.
            near = ""
        if near and not is_program(word):
            line = _replaced(words, index, near)
            stage = task.is_stage or self.tasks[near].is_stage
            return Mistake(f'there is no task "{word}"', line, about_stage=stage)
        if task.takes_command:
            line = [*words[:index], "--", *words[index:]]
            return Mistake(f"{task.name} takes its command after --", line)
        runner = self._first_runner()
        if runner and is_program(word):
            line = [*words[:index], runner, "--", *words[index:]]
            return Mistake(f'there is no task "{word}"', line)
        return Mistake(
            f'there is no task "{word}"', None, "--list", about_stage=task.is_stage
        )

    def _explain_flag(self, words: Sequence[str], reading: Reading) -> Mistake:
        index, task = reading.index, reading.task
        word, equals, value = words[index].partition("=")
        flag, rest = f"--{word.lstrip('-')}", list(words[index + 1 :])
        takes_value = self._takes_value(task, flag)
        if takes_value is not _UNKNOWN:
            # `-vm large` was meant as `--vm=large`.
            if takes_value is True and not equals and rest:
                equals, value = "=", rest.pop(0)
            if takes_value is True and not value:
                return self._without_value(flag, task)
            fixed = [*words[:index], f"{flag}{equals}{value}", *rest]
            problem = f"{word} is not a flag: a long flag begins with two dashes"
            return Mistake(problem, fixed, about_stage=task.is_stage)
        if task is self.core:
            moved = self._moved_after_task(words, index, flag)
            if moved:
                return Mistake(f"{word} belongs after the task", moved)
        # The dashes are left out, because with them any two short names are near.
        known = [name[2:] for name in (*task.flags, *self.core.flags) if name[2:]]
        near = nearest(flag[2:], known)
        line = [*words[:index], f"--{near}{equals}{value}", *rest] if near else None
        name = f"--help {task.name}".rstrip()
        owner = task.name or "the program"
        return Mistake(
            f"{owner} has no flag {word}", line, name, about_stage=task.is_stage
        )

    def _moved_after_task(
        self, words: Sequence[str], index: int, flag: str
    ) -> list[str] | None:
        """Return a line with the flag of a stage, at *index*, moved after the stage."""
        taking = [t.flags[flag] for t in self.tasks.values() if flag in t.flags]
        rest = list(words[index + 1 :])
        if not taking or not any(t.is_stage for t in self.tasks.values()):
            return None
        moved = words[index]
        if taking[0] and "=" not in moved:
            if not rest or rest[0] in self.tasks:
                return None
            moved = f"{moved}={rest.pop(0)}"
        for place, word in enumerate(rest):
            if word in self.tasks and flag in self.tasks[word].flags:
                return [*words[:index], *rest[: place + 1], moved, *rest[place + 1 :]]
        runner = self._first_runner()
        return [*words[:index], runner, moved, *rest] if runner and not rest else None

    def _first_runner(self) -> str:
        """Return the name of the task that runs a job, "" if there is none."""
        names = [name for name, task in self.tasks.items() if task.takes_command]
        runs = [name for name in names if name.rpartition(".")[2] == "run"]
        return min(runs, key=len, default="")

    def _takes_value(self, task: Known, flag: str) -> bool | _Unknown | None:
        if flag in task.flags:
            return task.flags[flag]
        if flag in ("--help", "-h"):
            # After a task, Invoke takes the task's own name as the value.
            return None if task is self.core else False
        return self.core.flags.get(flag, _UNKNOWN)

    def _is_short_block(self, task: Known, word: str) -> bool:
        """Return whether Invoke reads *word* as several short flags in one."""
        if word.startswith("--") or len(word) < 3:
            return False
        if task.is_stage and f"--{word[1:]}" in {*task.flags, *self.core.flags}:
            return False
        return self._takes_value(task, word[:2]) is not _UNKNOWN


def with_value(words: Sequence[str], flag: str, value: str) -> list[str]:
    """
    Return a line in which a long flag has another value.

    >>> with_value(["run", "--vm", "larg", "--", "--vm"], "--vm", "large")
    ['run', '--vm=large', '--', '--vm']
    """
    end = words.index("--") if "--" in words else len(words)
    fixed, rest = [], list(words[:end])
    while rest:
        word = rest.pop(0)
        if word == flag and rest:
            del rest[0]
        elif not word.startswith(f"{flag}="):
            fixed.append(word)
            continue
        fixed.append(f"{flag}={value}")
    return [*fixed, *words[end:]]


class _Unknown:
    """The type of the value that stands for a flag which does not exist."""


_UNKNOWN = _Unknown()


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


def nearest(word: str, names: Sequence[str] | Mapping[str, Known]) -> str:
    """Return the name that is nearest to *word*, "" if none is near."""
    import difflib

    return next(iter(difflib.get_close_matches(word[:99], list(names), 1, 0.6)), "")


def _replaced(words: Sequence[str], index: int, word: str) -> list[str]:
    return [*words[:index], word, *words[index + 1 :]]
