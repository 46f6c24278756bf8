"""Commands to type, spelled so that they reach the box that is spoken of."""

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
    "cancel",
    "ssh",
    "sweep",
    "doctor",
    "init",
)
# These are about all that is the user's, whatever box is named.
OF_NO_BOX = {"sweep", "doctor", "init"}

_TASK = rf"(?:{'|'.join(OWN)})(?![\w.-])"
_FLAG = r"--[a-z][a-z-]*(?:=[^\s,;:)`]*)?"
# What stands in double quotes is what somebody has typed, or a value.
_COMMAND = re.compile(rf'"[^"\n]*"|(?<![\w./-])inv {_TASK}(?: (?:{_TASK}|{_FLAG}))*')


@dataclass(frozen=True)
class Hints:
    """
    How this project's commands are typed.

    Attributes:
        tasks: What each task is called on the command line, by its own name.

        name: The box's name, if a command has to say it.
    """

    tasks: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def spell(self, text: str) -> str:
        """
        Spell every `inv` command in a sentence as it has to be typed.

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
