"""Call a task from Python: find the project, give it the settings, hand on errors."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from onebox.errors import InputError, OneboxError, UsageError
from onebox.invocation import PythonCall
from onebox.line_contexts import python_call

MARKS = ("tasks.py", "tasks/__init__.py", "onebox.toml")
_SETTINGS = 'settings={"limits.max_hours": 2}'
_LOG = logging.getLogger("onebox")
Function = TypeVar("Function", bound=Callable[..., Any])


def with_short_traceback(function: Function) -> Function:
    """
    Let the function's errors begin here: a cell shows no code of onebox.

    The whole traceback, with the errors that caused it, goes to the logger "onebox" at
    level DEBUG.
    """

    @functools.wraps(function)
    def shortened(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (OneboxError, KeyboardInterrupt) as error:
            _LOG.debug("%s failed", function.__name__, exc_info=True)
            raise error.with_traceback(None) from None

    return cast(Function, shortened)


@contextmanager
def call(
    name: str,
    project: str | os.PathLike[str] | None,
    flags: Mapping[str, object],
    settings: Mapping[str, object] | None = None,
    output: Callable[[bytes], None] | None = None,
    words: Sequence[str] = (),
    line: str = "",
) -> Iterator[Any]:
    """Yield the Invoke context for one call; raise an error of *output* at its end."""
    given = {path: value for path, value in flags.items() if value is not None}
    if output is not None and not callable(output):
        raise _unexpected("output", "a function", output)
    # The values may be secrets, so no message has them.
    if settings is not None and not isinstance(settings, Mapping):
        raise _unexpected("settings", "a dict", type(settings), _SETTINGS)
    for path in settings or {}:
        if not isinstance(path, str):
            raise _unexpected("settings", "names of settings", path, _SETTINGS)
    folder = path_text("project", project)
    root = _nearest_project() if project is None else Path(folder).absolute()
    if not root.is_dir():
        raise InputError(f"project={str(project)!r} is not a folder")
    taker = None if output is None else _Taker(output)
    shown = repr(line or list(words)) if line or words else ""
    python = PythonCall(
        f"onebox.api.{name}({shown})",
        {**(settings or {}), **given},
        taker,
        None if project is None else folder,
    )
    with python_call(python, root, words) as c:
        yield c
    if taker is not None and taker.error is not None:
        raise taker.error


class _Taker:
    """Hands output to a function of the user, until the function raises an error."""

    def __init__(self, function: Callable[[bytes], Any]) -> None:
        self._function = function
        self.error: Exception | None = None

    def __call__(self, data: bytes) -> None:
        if self.error is None:
            try:
                self._function(data)
            except Exception as error:
                self.error = error


def command_line(
    command: str | Sequence[str | os.PathLike[str]] | None,
) -> tuple[str, list[str]]:
    """Return a command as a line for the shell, or as words; the other one is empty."""
    if command is None:
        return "", []
    hint = 'onebox.api.run("python job.py")'
    if isinstance(command, str):
        line, words = command, []
    else:
        wrong = _unexpected("command", "a string or a list of strings", command, hint)
        try:
            line, words = "", [os.fspath(word) for word in command]
        except TypeError:
            raise wrong from None
        if not all(isinstance(word, str) for word in words):
            raise wrong
    if not line.strip() and not (words and words[0].strip()):
        raise UsageError("the command is empty", next=hint).in_full()
    return line, words


def switches(**values: object) -> None:
    """Raise UsageError if one of these parameters is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise _unexpected(name, "True or False", value)


def path_text(name: str, path: str | os.PathLike[str] | None) -> str:
    """Return the path in the parameter *name*, "" for None. Raises UsageError."""
    if not isinstance(path, (str, os.PathLike, type(None))):
        raise _unexpected(name, "a path", path)
    return "" if path is None else os.fspath(path)


def _unexpected(name: str, expected: str, value: object, hint: str = "") -> OneboxError:
    problem = f"{name}: expected {expected}, got {value!r}"
    return UsageError(problem, next=hint).in_full()


def _nearest_project() -> Path:
    """Return the nearest project folder. Raises InputError if there is none."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if any((folder / mark).exists() for mark in MARKS):
            return folder
    raise InputError(
        f"no onebox.toml or tasks.py in {here} or above it",
        next='pass project="…", the folder to push',
    ).in_full()
