"""
Run jobs from a notebook or a script, with return values and exceptions.

    import onebox.api

    receipt = onebox.api.run("python train.py", vm="large")
    print(receipt.exit_code, receipt.seconds, receipt.cost)

Each function does what the `inv` task of its name does, in one call: `run` creates the
box, pushes, runs the job, fetches its outputs and removes the box. It raises the errors
of `onebox.errors`, and never ends the process:

* `JobFailed`: the job's exit code is not 0. The error has `code`, `receipt`, and
  `text`, the end of the job's output.
* another `OneboxError`: its text has what happened, what still runs, and what to do.
* `KeyboardInterrupt`: the job continues on its box; `logs` follows it.

The job's output goes to `sys.stdout`, messages go to `sys.stderr`. Calls in several
threads work at the same time if they use different names; otherwise the later call
raises `Busy`.

All functions have these parameters:

* `name`: Name of the box, for a project with several boxes.
* `project`: The project folder. By default it is the nearest folder with a `tasks.py`
  or `onebox.toml`, from the working directory upwards.
* `provider`: Where the box is: "local" or a cloud.
* `settings`: Further settings by their names in `onebox.toml`, for this call, such as
  `{"limits.max_hours": 2, "run.env": {"SEED": "1"}}`. They replace those in the file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from onebox import tasks
from onebox.errors import InputError, JobFailed, OneboxError, UsageError
from onebox.invocation import PythonCall
from onebox.jobs.receipt import OutputCount, Receipt
from onebox.line_contexts import python_call

__all__ = [
    "JobFailed",
    "OneboxError",
    "OutputCount",
    "Receipt",
    "cancel",
    "fetch",
    "logs",
    "provision",
    "push",
    "run",
    "status",
    "teardown",
]

MARKS = ("tasks.py", "tasks/__init__.py", "onebox.toml")
Function = TypeVar("Function", bound=Callable[..., Any])


def _with_short_traceback(function: Function) -> Function:
    """Let the function's errors begin here: a cell shows no code of onebox."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (OneboxError, KeyboardInterrupt) as error:
            raise error.with_traceback(None)  # noqa: B904 - the cause is kept

    return cast(Function, call)


@_with_short_traceback
def run(
    command: str | Sequence[str | os.PathLike[str]] | None = None,
    *,
    vm: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    spot: bool | None = None,
    project: str | os.PathLike[str] | None = None,
    keep: bool = False,
    detach: bool = False,
    queue: bool = False,
    into: str | os.PathLike[str] | None = None,
    output: Callable[[bytes], None] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Receipt | None:
    """
    Run a job on a box, fetch its outputs, and return its receipt.

    Args:
        command: A line for the shell, or a list of words. By default it is the command
            of [run] in onebox.toml.

        vm: Size of the box: a name from onebox.toml, or the provider's own type.

        provider: Where to create the box: "local" or a cloud.

        name: Name of the box, for a project with several boxes.

        spot: Whether to use spot capacity, which the provider may take back.

        project: The project folder; by default the nearest one, see `onebox.api`.

        keep: Keep the box up after the job.

        detach: Start the job and return None; `logs` follows it.

        queue: If the box is busy, wait until it is the turn of this run.

        into: Folder for the outputs, instead of the usual one.

        output: Called with each part of the job's output, instead of printing it. If it
            raises an error, the job continues, and the error is raised at the end.

        settings: Further settings by name, such as {"limits.max_hours": 2}.

    Returns:
        The receipt. If `when = "changed"` in [run] skips the job, it is the receipt of
        the job that has made the outputs. None if *detach* is set.

    Raises:
        JobFailed: The job's exit code is not 0; its log and its outputs are fetched.

        OneboxError: Another failure. Its text has what still runs, and what to do.

        KeyboardInterrupt: The call was interrupted; a job that has started continues.
    """
    flags = {"vm": vm, "provider": provider, "name": name, "spot": spot}
    line, words = _command(command)
    with _call("run", project, flags, settings, output, words, line) as c:
        receipt: Receipt | None = tasks.run(
            c,
            command=line,
            keep=keep,
            detach=detach,
            queue=queue,
            yes=True,
            into="" if into is None else os.fspath(into),
        )
    return receipt


# Each function names its parameters, although they repeat: `help()` and editors show
# them.
@_with_short_traceback
def provision(
    *,
    vm: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    spot: bool | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> str:
    """
    Create or reuse the box, and return its id; it stays up until `teardown`.

    For the parameters, see `run`. Raises OneboxError.
    """
    flags = {"vm": vm, "provider": provider, "name": name, "spot": spot}
    with _call("provision", project, flags, settings) as c:
        return str(tasks.provision(c).id)


@_with_short_traceback
def push(
    *,
    vm: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    spot: bool | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> None:
    """
    Copy code and data to the box; create the box if there is none.

    For the parameters, see `run`. Raises OneboxError.
    """
    flags = {"vm": vm, "provider": provider, "name": name, "spot": spot}
    with _call("push", project, flags, settings) as c:
        tasks.push(c)


@_with_short_traceback
def fetch(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    into: str | os.PathLike[str] | None = None,
    partial: bool = False,
    rescue: bool = False,
    settings: Mapping[str, object] | None = None,
) -> OutputCount:
    """
    Fetch the outputs, verified byte for byte; return the number of files and bytes.

    Args:
        name, provider, project, settings: See `run`.

        into: Folder for the outputs, instead of the usual one.

        partial: Fetch even if the job still runs or its outcome is unknown.

        rescue: Pay for a machine that reads the disk of a preempted box.

    Raises:
        OutputsHeld: Some outputs were not fetched, so the box is kept.

        OneboxError: Another failure.
    """
    flags = {"provider": provider, "name": name}
    with _call("fetch", project, flags, settings) as c:
        fetched = tasks.fetch(
            c,
            into="" if into is None else os.fspath(into),
            partial=partial,
            rescue=rescue,
        )
        return OutputCount(fetched.files, fetched.bytes)


@_with_short_traceback
def teardown(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    discard_outputs: bool = False,
    all: bool = False,
    settings: Mapping[str, object] | None = None,
) -> None:
    """
    Remove the box after its outputs are fetched, and verify that it is gone.

    Args:
        name, provider, project, settings: See `run`.

        discard_outputs: Delete outputs that are not fetched, without a question.

        all: Remove all boxes of this project.

    Raises:
        OutputsHeld: Some outputs were not fetched, so the box is kept.

        OneboxError: Another failure.
    """
    flags = {"provider": provider, "name": name}
    with _call("teardown", project, flags, settings) as c:
        tasks.teardown(c, discard_outputs=discard_outputs, all=all, yes=True)


@_with_short_traceback
def status(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> None:
    """
    Print the boxes and jobs of this project.

    For the parameters, see `run`. Raises OneboxError.
    """
    flags = {"provider": provider, "name": name}
    with _call("status", project, flags, settings) as c:
        tasks.status(c)


@_with_short_traceback
def logs(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    output: Callable[[bytes], None] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Receipt | None:
    """
    Show the job's output, follow it until the job ends, and return its receipt.

    For the parameters, see `run`. The outputs are not fetched. The receipt is None if
    it is missing or damaged.

    Raises:
        JobFailed: The job's exit code is not 0.

        OneboxError: Another failure.

        KeyboardInterrupt: The call was interrupted; the job continues.
    """
    flags = {"provider": provider, "name": name}
    with _call("logs", project, flags, settings, output) as c:
        receipt: Receipt | None = tasks.logs(c)
    return receipt


@_with_short_traceback
def cancel(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> None:
    """
    Stop the job: SIGTERM, a grace period, SIGKILL. The box stays up.

    For the parameters, see `run`. Raises OneboxError.
    """
    flags = {"provider": provider, "name": name}
    with _call("cancel", project, flags, settings) as c:
        tasks.cancel(c)


@contextmanager
def _call(
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
    if not root.is_dir():
        raise InputError(f"project={str(project)!r} is not a folder")
    taker = None if output is None else _Taker(output)
    shown = repr(line or list(words)) if line or words else ""
    call = PythonCall(
        f"onebox.api.{name}({shown})", {**(settings or {}), **given}, taker
    )
    with python_call(call, root, words) as c:
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


def _command(
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
