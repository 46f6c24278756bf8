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
    root = _nearest_project() if project is None else Path(project).absolute()
    if output is not None and not callable(output):
        raise TypeError(f"output: expected a function, got {output!r}")
    if not root.is_dir():
        raise InputError(f"project={str(project)!r} is not a folder")
    taker = None if output is None else _Taker(output)
    shown = repr(line or list(words)) if line or words else ""
    python = PythonCall(
        f"onebox.api.{name}({shown})",
        {**(settings or {}), **given},
        taker,
        None if project is None else os.fspath(project),
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
    if isinstance(command, str):
        line, words = command, []
    else:
        line, words = "", [os.fspath(word) for word in command]
    if not line.strip() and not words:
        hint = 'onebox.api.run("python job.py")'
        raise UsageError("the command is empty", next=hint).in_full()
    return line, words


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
