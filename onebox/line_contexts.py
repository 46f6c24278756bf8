"""Open the box contexts of one command line, or of one call of `onebox.api`."""

from __future__ import annotations

import atexit
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit

from onebox import early_interrupt
from onebox.command_hints import program_name
from onebox.errors import ConfigError, UsageError
from onebox.flags import FlagStore, usage_exit
from onebox.invoke_internals import (
    config_levels,
    ignored_variables,
    project_folder,
    read_executor,
    tasks_with_json,
)
from onebox.parser import Remainder
from onebox.providers import with_bytecode

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.invocation import PythonCall


class LineContexts:
    """
    The box contexts of one command line, one for each set of shared flags.

    Most command lines have one context. A user's task makes more contexts when it
    passes shared flags as keywords, as in `run(c, name="second")`.

    Args:
        call: The call of `onebox.api` that takes the place of a command line.
    """

    def __init__(self, call: PythonCall | None = None) -> None:
        self._call = call
        if call is None:
            flags = FlagStore.take()
            self._task_names, self._stages = read_executor()
            _refuse_two_documents(tasks_with_json())
        else:
            flags, self._task_names, self._stages = dict(call.flags), {}, {}
        self._command_line_flags = flags
        if len(self._stages) > 1 and flags.get("name"):
            files = " and ".join(file or "onebox.toml" for file in self._stages)
            raise usage_exit(f"--name names one box, but the tasks use {files}")
        # The shared flags of each stage that is running, and its file of settings.
        # Those of the innermost stage are last and are in force.
        self._flags: list[tuple[dict[str, Any], str]] = []
        self._contexts: dict[Any, BoxContext] = {}
        self._running: list[BoxContext] = []
        # Whether the stage that was called last prints a JSON document (`--json`).
        self.json = False
        # Whether that stage replaces onebox.toml (`init --force`).
        self.replaces_file = False
        # The boxes that are kept are printed at exit, because before that a later task
        # of the command line may remove one.
        if call is None:
            atexit.register(self.print_kept_boxes)

    @classmethod
    def of(cls, c: Context) -> LineContexts:
        """Return the contexts of the command line that *c* belongs to."""
        contexts = getattr(c.config, "_onebox", None)
        if not isinstance(contexts, cls):
            contexts = cls()
            # The contexts are stored in the config, because `Executor.execute` passes
            # the same config to all tasks of a command line, but a new Context to each.
            c.config._set(_onebox=contexts)
        return contexts

    @contextmanager
    def using(self, flags: dict[str, Any], file: str) -> Iterator[None]:
        """Let a stage's keywords and file override its caller's during the body."""
        base = self._flags[-1] if self._flags else (self._command_line_flags, "")
        self._flags.append(({**base[0], **flags}, file or base[1]))
        try:
            yield
        finally:
            self._flags.pop()

    def current(self) -> BoxContext:
        """Return the context of the stage that is running."""
        return self._running[-1]

    @contextmanager
    def entered(self, c: Context) -> Iterator[BoxContext]:
        """
        Yield the context for the flags in force; it is the current one in the body.

        When the outermost stage that uses the context ends, its temporary box is torn
        down.
        """
        try:
            context = self._opened(c)
            load_module("exit_code")
            runner = load_module("runner")
            early_interrupt.end()
        except KeyboardInterrupt:
            if self._call is not None:
                raise
            raise Exit(code=128 + signal.SIGINT) from None
        context.screen.json = self.json
        outermost = context not in self._running
        self._running.append(context)
        try:
            if outermost:
                with (
                    self._exit_code(context, self._flags[-1][1]),
                    runner.outermost_stage(context),
                ):
                    yield context
            else:
                yield context
        finally:
            self._running.pop()

    def _opened(self, c: Context) -> BoxContext:
        flags, file = self._flags[-1]
        settings = load_module("settings")
        invoke = config_levels(c, file)
        key = (freeze(flags), file, repr(invoke), self.replaces_file)
        if key not in self._contexts:
            call = self._call
            command = call.text if call else shlex.join([program_name(), *sys.argv[1:]])
            invocation = load_module("invocation").Invocation(
                command,
                self._stages.get(file, ()),
                has_other_files=len(self._stages) > 1,
                from_python=call is not None,
                project=call.project if call else None,
            )
            with self._exit_code(None, file):
                for name in ignored_variables(c, os.environ):
                    raise ConfigError(
                        f"INVOKE_{name}: Invoke ignores it, because its configuration "
                        "does not have the key",
                        next=f"{name}, which needs no key",
                    )
                with _corrected_line(call is not None):
                    self._contexts[key] = load_module("context").BoxContext.open(
                        root=str(project_folder(c)),
                        environ=os.environ,
                        flags=flags,
                        invocation=invocation,
                        tasks=self._task_names.get(file),
                        places=settings.Places(
                            file=file,
                            replaces_file=self.replaces_file,
                            invoke=tuple(
                                settings.InvokeLevel(*level) for level in invoke
                            ),
                        ),
                        output=call.output if call else None,
                    )
        return self._contexts[key]

    def _exit_code(
        self, context: BoxContext | None, file: str
    ) -> AbstractContextManager[None]:
        """Print onebox's errors, and make `inv` exit with their exit codes."""
        manager: AbstractContextManager[None]
        if self._call is not None:
            project = self._call.project
            manager = load_module("exit_code").python_errors(context, project)
            return manager
        manager = load_module("exit_code").exit_code(
            context, os.environ, self._task_names.get(file, {}), json=self.json
        )
        return manager

    def print_kept_boxes(self) -> None:
        """Print the boxes that the command line leaves up."""
        if self._contexts:
            load_module("runner").print_kept_boxes(self._contexts.values())


def _refuse_two_documents(tasks: Sequence[str]) -> None:
    """Raise Exit if several tasks of the command line have `--json`."""
    if len(tasks) > 1:
        lines = [f"{program_name()} {task} --json" for task in dict.fromkeys(tasks)]
        raise usage_exit(
            "stdout has one JSON document, so a command line has --json once\n"
            f"  next: {', then '.join(lines)}"
        )


@contextmanager
def python_call(
    call: PythonCall, root: os.PathLike[str], words: Sequence[str] = ()
) -> Iterator[Context]:
    """
    Yield the Invoke context for one call of `onebox.api`.

    After the body, boxes that are kept are printed, and locks are released.

    Args:
        root: The project folder.

        words: The words of the job's command.

    Raises:
        UsageError: The call contradicts itself.
    """
    config = Config(project_location=root)
    config.load_project()
    config.load_shell_env()
    contexts = LineContexts(call)
    config._set(_onebox=contexts)
    with load_module("store.box_store").locks_released():
        try:
            yield Context(config, remainder=Remainder(words))
        except Exit as error:
            message = str(error.message).partition("]: ")[2]
            hints = load_module("python_hints").PythonHints(project=call.project)
            raise UsageError(hints.spell(message)).in_full() from None
        finally:
            contexts.print_kept_boxes()


@contextmanager
def _corrected_line(from_python: bool) -> Iterator[None]:
    """Add the command line, or the parameter, with the value that was meant."""
    try:
        yield
    except ConfigError as error:
        if error.meant and not error.next and not from_python:
            error.next = _with_meant_value(error)
        elif error.meant and not error.next and error.source.startswith("--"):
            error.next = f'{error.source[2:]}="{error.meant}"'
        raise


def _with_meant_value(error: ConfigError) -> str:
    """Return the typed command line with the value that was meant; "" for a file."""
    words, variable = sys.argv[1:], ""
    if error.source.startswith("--"):
        command_line = load_module("command_line")
        words = command_line.with_value(words, error.source, error.meant)
    elif error.source.startswith("ONEBOX_"):
        variable = f"{error.source}={shlex.quote(error.meant)} "
    else:
        return ""
    return f"{variable}{shlex.join([program_name(), *words])}"


def load_module(module: str) -> Any:
    """
    Import and return a module of onebox.

    It is imported only when a stage runs, because `inv --list` needs no such module.
    """
    with with_bytecode():
        return importlib.import_module(f"onebox.{module}")


def freeze(value: Any) -> Any:
    """Return a hashable copy of nested mappings and lists."""
    if isinstance(value, Mapping):
        return tuple(sorted((name, freeze(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    return value
