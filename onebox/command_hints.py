"""Spell the `inv` commands in messages as the user of this project must type them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

OWN = (
    "image",
    "provision",
    "push",
    "run",
    "fetch",
    "teardown",
    "plan",
    "status",
    "logs",
    "history",
    "top",
    "cancel",
    "ssh",
    "cleanup",
    "doctor",
    "init",
)
# These commands concern all boxes or no box, so they need no --name.
OF_NO_BOX = {"cleanup", "doctor", "history", "init"}

_TASK = rf"(?:{'|'.join(OWN)})(?![\w.-])"
_FLAG = r"--[a-z][a-z-]*(?:=[^\s,;:)`]*)?"
# Text in double quotes is user input or a value, so no command in it is changed.
_COMMAND = re.compile(rf'"[^"\n]*"|(?<![\w./-])inv {_TASK}(?: (?:{_TASK}|{_FLAG}))*')


@dataclass(frozen=True)
class Hints:
    """
    The spelling of this project's `inv` commands.

    Attributes:
        tasks: What the user must type for each onebox task, such as "box.run", by the
            task's own name, such as "run".

        name: The box name that commands get as --name, "" if they need no --name.
    """

    tasks: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def spell(self, text: str) -> str:
        """
        Return *text* with each `inv` command spelled as the user must type it.

        >>> Hints({"logs": "box.logs"}, "b").spell("inv logs follows it")
        'inv box.logs --name=b follows it'
        """
        return _COMMAND.sub(self._spelled, text)

    def _spelled(self, found: re.Match[str]) -> str:
        if found[0].startswith('"'):
            return found[0]
        words = found[0].split(" ")
        typed = [self.tasks.get(word, word) for word in words]
        named = any(word.startswith("--name=") for word in words)
        if self.name and not named and not OF_NO_BOX.issuperset(_tasks(words)):
            typed.append(f"--name={self.name}")
        return " ".join(typed)


def _tasks(words: list[str]) -> list[str]:
    return [word for word in words[1:] if not word.startswith("--")]
