"""Read a command line as Invoke does; find its command, or the mistake in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from onebox.line_values import Given, Known, Mistake, Reading


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
        place, given = -1, list[Given]()
        for index, word in enumerate(words):
            is_flag = word.startswith("-") and word != "-"
            if awaits:
                missing = task.is_stage and (is_flag or not word)
                if word in task.flags or missing:
                    return Reading(task, index - 1, "value", awaits, given=given)
                both = range(index - 1, index + 1)
                given.append(Given(task, place, awaits, word, both))
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
                    return Reading(task, index, "flag", given=given)
                if takes_value is False and equals:
                    return Reading(task, index, "switch", name, given=given)
                if takes_value is True and equals and not value and task.is_stage:
                    return Reading(task, index, "value", name, given=given)
                if takes_value is True and equals:
                    one = range(index, index + 1)
                    given.append(Given(task, place, name, value, one))
                if not equals:
                    awaits = name if takes_value is True else ""
                    may_await = takes_value is None
                continue
            if may_await and word not in self.tasks:
                may_await = False
            elif positionals:
                positionals -= 1
            elif word in self.tasks:
                task, place, may_await = self.tasks[word], index, False
                positionals = task.positionals
            else:
                return Reading(task, index, "word", given=given)
        if awaits:
            return Reading(task, len(words) - 1, "value", awaits, awaits, given)
        return Reading(task, len(words), given=given)

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
            if further is None:
                break
            if further.line is None:
                # No line is suggested that would be refused.
                return replace(mistake, line=None, other_lines=(), next=further.next)
            line, problems = list(further.line), problems + 1
        return replace(mistake, line=line)

    def tasks_in(self, words: Sequence[str]) -> list[tuple[Known, Sequence[str]]]:
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
        if word == "help" and task is self.core:
            about = [name for name in words[index + 1 :] if name in self.tasks][:1]
            stage = any(self.tasks[name].is_stage for name in about)
            line = [*words[:index], "--help", *about]
            return Mistake('there is no task "help"', line, about_stage=stage)
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
        owner, help = task.name or "the program", f"--help {task.name}".rstrip()
        problem, line = f"{owner} has no flag {word}", None
        long = _long_flag(word, task)
        if long:
            if task.flags[long] is True and not equals and rest:
                equals, value = "=", rest.pop(0)
            line = [*words[:index], f"{long}{equals}{value}", *rest]
            return Mistake(problem, line, about_stage=task.is_stage)
        others = [t for t in self.tasks.values() if t.is_stage and flag in t.flags]
        if others:
            names = list(dict.fromkeys(other.name for other in others))
            *first, last = names
            have = f"{', '.join(first)} and {last} have" if first else f"{last} has"
            line = self._moved_to_earlier_task(words, index, flag)
            return Mistake(f"{problem}; {have} it", line, help)
        # The dashes are left out, because with them any two short names are near.
        own = [name for name in self.core.flags if not name.startswith("--list")]
        known = [name[2:] for name in (*task.flags, *own) if name[2:]]
        near = nearest(flag[2:], known)
        if near:
            line = [*words[:index], f"--{near}{equals}{value}", *rest]
        return Mistake(problem, line, help, about_stage=task.is_stage)

    def _moved_to_earlier_task(
        self, words: Sequence[str], index: int, flag: str
    ) -> list[str] | None:
        """Return a line with the flag, at *index*, moved to an earlier task."""
        parts, rest = self.tasks_in(words[:index]), list(words[index + 1 :])
        line = list(words[: index - sum(len(part) for _, part in parts)])
        moved = words[index]
        taking = [n for n, (task, _) in enumerate(parts) if flag in task.flags]
        if not taking:
            return None
        task = parts[taking[-1]][0]
        if task.flags[flag] and "=" not in moved and rest:
            moved = f"{moved}={rest.pop(0)}"
        for n, (_, part) in enumerate(parts):
            line += [*part, moved] if n == taking[-1] else part
            if n == taking[-1] and task.is_plan:
                # A line with a plan has no task that changes something.
                return line
        return [*line, *rest]

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
        first = self._first_with(flag)
        return [*words[:index], first, moved, *rest] if first and not rest else None

    def _first_with(self, flag: str) -> str:
        """Return the task that a flag alone was probably meant for."""
        runner = self._first_runner()
        if runner and flag in self.tasks[runner].flags:
            return runner
        names = [n for n, t in self.tasks.items() if t.is_stage and flag in t.flags]
        status = [name for name in names if name.rpartition(".")[2] == "status"]
        return next(iter([*status, *names]), "")

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
        if flag == "-c" and "--command" in task.flags and task.is_stage:
            # Invoke's own -c has no effect here, and the usual command would run.
            return _UNKNOWN
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


def _long_flag(word: str, task: Known) -> str:
    """Return the only long flag that begins as a short flag does, "" otherwise."""
    long = [
        flag
        for flag in task.flags
        if len(word) == 2 and flag.startswith(f"-{word}") and flag[:5] != "--no-"
    ]
    return long[0] if len(long) == 1 else ""


def nearest(word: str, names: Sequence[str] | Mapping[str, Known]) -> str:
    """
    Return the name that is nearest to *word*, "" if none is near.

    >>> nearest("mv", ["vm", "name"]), nearest("nme", ["vm", "name"])
    ('vm', 'name')
    """
    import difflib

    near = difflib.get_close_matches(word[:99], list(names), 1, 0.6)
    # Two short words with swapped letters have little else in common.
    swapped = (name for name in names if sorted(name) == sorted(word))
    return next(iter([*near, *swapped]), "")


def _replaced(words: Sequence[str], index: int, word: str) -> list[str]:
    return [*words[:index], word, *words[index + 1 :]]
