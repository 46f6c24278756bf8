"""Spell the `inv` commands in messages as the user of this project must type them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

OWN = (
    "image",
    "provision",
    "push",
    "run",
    "map",
    "fetch",
    "teardown",
    "plan",
    "offers",
    "status",
    "logs",
    "history",
    "top",
    "cancel",
    "ssh",
    "exec",
    "notebook",
    "cleanup",
    "doctor",
    "init",
    "export",
)
# These commands concern all boxes or no box, so they need no --name.
OF_NO_BOX = {"cleanup", "doctor", "export", "history", "init", "offers"}

TASK = rf"(?:{'|'.join(OWN)})(?![\w.-])"
# A flag's value may be quoted for a shell, as in --command='cd a && b'.
FLAG = r"""--[a-z][a-z-]*(?:=(?:'[^'\n]*'|"[^"\n]*"|[^\s,;:)`'"])*)?"""
# Text in double quotes is user input or a value, so no command in it is changed.
_COMMAND = re.compile(rf'"[^"\n]*"|(?<![\w./-])inv {TASK}(?: (?:{TASK}|{FLAG}))*')


def program_name() -> str:
    """Return the program that the user typed, "onebox" or "inv"."""
    folder, name = os.path.split(sys.argv[0] if sys.argv else "")
    if name == "__main__.py":
        name = os.path.basename(folder)  # noqa: PTH119 - pathlib costs time
    return "onebox" if name.partition(".")[0] == "onebox" else "inv"


@dataclass(frozen=True)
class Hints:
    """
    The spelling of this project's `inv` commands.

    Attributes:
        tasks: What the user must type for each onebox task, such as "box.run", by the
            task's own name, such as "run".

        name: The box name that commands get as --name, "" if they need no --name.

        program: The program that the user typed.
    """

    tasks: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    program: str = field(default_factory=program_name)

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
        typed = [self.program, *(self.tasks.get(word, word) for word in words[1:])]
        named = any(word.startswith("--name=") for word in words)
        if self.name and not named and not OF_NO_BOX.issuperset(_tasks(words)):
            typed.append(f"--name={self.name}")
        return " ".join(typed)


def _tasks(words: list[str]) -> list[str]:
    return [word for word in words[1:] if not word.startswith("--")]
