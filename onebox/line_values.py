"""What is known about a command line, and what is found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

        is_map: Whether this is the stage `map`.
    """

    name: str
    flags: Mapping[str, bool | None]
    positionals: int = 0
    is_stage: bool = False
    takes_command: bool = False
    read_only: bool = False
    is_plan: bool = False
    is_map: bool = False


class Given(NamedTuple):
    """
    A flag that a command line gives a value.

    Attributes:
        task: The task that the flag follows.

        place: The index of this task's name; -1 before the first task.

        flag: The flag as it was typed.

        words: Which words of the line are the flag and its value.
    """

    task: Known
    place: int
    flag: str
    value: str
    words: range


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

        given: The flags with a value before the word at *index*.
    """

    task: Known
    index: int
    problem: str = ""
    flag: str = ""
    awaits: str = ""
    given: Sequence[Given] = ()


@dataclass(frozen=True)
class Mistake:
    """
    A mistake in a command line.

    Attributes:
        problem: What is wrong, for a message.

        line: The words that were probably meant, None if that is not known.

        advice: What else to do, instead of *next*.

        other_lines: Other lines that may have been meant.

        next: What to type to find out more, without the program's name.

        about_stage: Whether the mistake or the line that was meant concerns a stage.
    """

    problem: str
    line: Sequence[str] | None
    next: str = ""
    about_stage: bool = True
    other_lines: Sequence[Sequence[str]] = ()
    advice: str = ""
