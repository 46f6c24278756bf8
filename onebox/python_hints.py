"""Spell the `inv` commands and flags in messages as calls of `onebox.api`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from onebox.command_hints import FLAG, TASK, Hints
from onebox.invocation import Invocation

# The functions of `onebox.api` with their parameters: a flag --discard-outputs is the
# parameter discard_outputs. The flag --command is the first argument.
FUNCTIONS = {
    "provision": ("vm", "provider", "name", "spot"),
    "push": ("vm", "provider", "name", "spot"),
    "run": (
        *("command", "vm", "provider", "name", "spot"),
        *("keep", "detach", "queue", "into"),
    ),
    "map": (
        *("command", "over", "failed", "limit", "boxes"),
        *("vm", "provider", "name", "spot"),
        *("keep", "detach", "queue", "into"),
    ),
    "fetch": ("name", "provider", "into", "partial", "rescue"),
    "teardown": ("name", "provider", "discard_outputs", "all"),
    "plan": ("command", "vm", "provider", "name", "spot"),
    "offers": ("vm", "provider", "spot", "limit"),
    "status": ("name", "provider"),
    "logs": ("name", "provider"),
    "history": ("limit",),
    "cancel": ("name", "provider"),
}
# The functions answer yes to all questions that --yes is for.
_IMPLIED = {"--yes"}
_NAMES = {name for names in FUNCTIONS.values() for name in names}
_BOOLEANS = {
    *("spot", "keep", "detach", "queue"),
    *("failed", "partial", "rescue", "discard_outputs", "all"),
}


# What follows `--` in a command is a command of the user.
_REST = r"(?: -- [^\n,;)]+)?"
_WORD = re.compile(rf"{FLAG}|{TASK}")
_PYTHON_COMMAND = re.compile(
    r"""(?P<kept>"[^"\n]*"|`[^`\n]*`|onebox\.api\.\w+\([^)\n]*\))"""
    rf"|(?<![\w./-])(?:inv|onebox) (?P<words>{TASK}(?: (?:{TASK}|{FLAG}))*)"
    rf"(?P<rest>{_REST})"
    rf"|(?<![\w./-])(?P<flag>{FLAG})(?P<names>:)?"
    r"|(?<![\w./-])export (?P<variable>\w+)=…"
    r"|(?<![\w./-])(?P<debug>inv --debug)(?![\w-])"
)


@dataclass(frozen=True)
class PythonHints(Hints):
    """
    The spelling of `inv` commands and flags for users of `onebox.api`.

    A command without a function stays a command, for a terminal. Its spelling can
    stand wherever the command can, also in the middle of a sentence.

    Attributes:
        project: The value of the parameter `project`, None if the call has none.
    """

    program: str = "onebox"
    project: str | None = None

    def spell(self, text: str) -> str:
        """
        Return *text* with each command as a call, and each flag as a parameter.

        >>> hints = PythonHints(name="b")
        >>> hints.spell("a larger --vm, or inv teardown --discard-outputs")
        'a larger vm, or onebox.api.teardown(discard_outputs=True, name="b")'
        >>> hints.spell("inv run -- python a.py; inv doctor")
        'onebox.api.run("python a.py", name="b"); `onebox doctor` in a terminal'
        """
        return _PYTHON_COMMAND.sub(self._as_python, text)

    def _as_python(self, found: re.Match[str]) -> str:
        if found["kept"]:
            return found[0]
        if found["debug"]:
            return 'logging.basicConfig(level="DEBUG")'
        if found["variable"]:
            return f'os.environ["{found["variable"]}"] = "…"'
        if found["flag"]:
            parameter = _parameter(found["flag"])
            if found["names"]:
                # The flag is the subject of a message: "--spot: expected …".
                parameter = f"{parameter.partition('=')[0]}:" if parameter else ""
            return parameter or found[0]
        words, rest = _WORD.findall(found["words"]), found["rest"]
        try:
            return "; ".join(self._calls(words, rest.removeprefix(" -- ")))
        except LookupError:
            folder = f"cd {shlex.quote(self.project)} && " if self.project else ""
            command = super().spell(f"inv {found['words']}")
            return f"`{folder}{command}{rest}` in a terminal"

    def _calls(self, words: list[str], command: str) -> list[str]:
        """Return the calls for a command; raise LookupError if there is no such one."""
        calls: list[tuple[str, list[str]]] = []
        for word in words:
            if not word.startswith("--"):
                calls.append((word, []))
                FUNCTIONS[word]
                continue
            function, arguments = calls[-1]
            if word in _IMPLIED:
                continue
            parameter = _parameter(word)
            if parameter.partition("=")[0] not in FUNCTIONS[function]:
                raise LookupError(word)
            arguments.append(parameter)
        if command:
            calls[-1][1].insert(0, f"command={_quoted(command)}")
        return [self._call(*call) for call in calls]

    def _call(self, function: str, arguments: list[str]) -> str:
        given = {argument.partition("=")[0] for argument in arguments}
        for name, value in (("name", self.name), ("project", self.project)):
            takes = name == "project" or name in FUNCTIONS[function]
            if value and takes and name not in given:
                arguments = [*arguments, f"{name}={_quoted(value)}"]
        text = ", ".join(arguments).removeprefix("command=")
        return f"onebox.api.{function}({text})"


def hints_for(invocation: Invocation, tasks: Mapping[str, str], name: str) -> Hints:
    """
    Return the spelling of commands for the user of a command line or of a call.

    *tasks* and *name* are those of `Hints`.
    """
    if invocation.from_python:
        return PythonHints(name=name, project=invocation.project)
    return Hints(tasks, name)


def _parameter(flag: str) -> str:
    """
    Return a flag as a parameter of `onebox.api`, "" if there is no such one.

    >>> _parameter("--vm=a"), _parameter("--vm"), _parameter("--all"), _parameter("--x")
    ('vm="a"', 'vm', 'all=True', '')
    """
    if flag == "--no-spot":
        return "spot=False"
    flag, given, value = flag[2:].partition("=")
    name = flag.replace("-", "_")
    if name not in _NAMES:
        return ""
    if name in _BOOLEANS:
        return f"{name}=True"
    if not given:
        return name
    value = value.strip("'\"")
    return f"{name}={value if value.isdecimal() else _quoted(value)}"


def _quoted(text: str) -> str:
    """Return a text as a string of Python, in double quotes if possible."""
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'
