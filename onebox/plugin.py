"""
Make Invoke tasks of stages; only this module and `flags` depend on Invoke's internals.

A stage brings up the stages it needs, runs once per command line, and takes the flags
of the whole command line: `--vm`, `--provider`, `--name`, `--spot`. Invoke's own `pre=`
is not used for this, because it passes no arguments on, and `inv provision run` would
run `provision` twice.
"""

from __future__ import annotations

import atexit
import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, overload

from invoke.parser.argument import Argument
from invoke.tasks import Task

from onebox.collection_names import collection_in_use, names_in, read_executor
from onebox.command_hints import Hints, program_name
from onebox.flags import SHARED_FLAGS, FlagStore, NoSpot, SharedArgument, usage_exit
from onebox.parser import remainder_of
from onebox.providers import with_bytecode

if TYPE_CHECKING:
    from invoke.context import Context

    from onebox.context import BoxContext

ONLY_HELP = "Run this stage alone, without the stages it needs."


# The generic class Task has a parameter for the type that the body returns. It is left
# out, because this type differs from stage to stage.
class Stage(Task):  # type: ignore[type-arg]
    """
    A task that brings up the stages it needs and takes the shared flags.

    Args:
        needs: The stages that must be up to date before this one runs.

        builtin: Whether this is one of onebox's own stages. `--dry` prints their
            part of the plan instead of running them.

        on_box: Whether the stage's result is lost with the box, so that the stage runs
            again for a new box.

        before_job: Whether the stage runs again before each job, because local files
            may have been edited.

        each_time: Whether the stage runs at every call, even if it ran before on
            the same command line.

        takes_command: Whether the words after `--` are a command for the stage. With
            the program `onebox`, the command needs no `--`.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        *args: Any,
        needs: Iterable[Stage] = (),
        builtin: bool = False,
        on_box: bool = False,
        before_job: bool = False,
        each_time: bool = False,
        takes_command: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("auto_shortflags", False)
        self.needs = tuple(needs)
        self.builtin = builtin
        self.on_box = on_box
        self.before_job = before_job
        self.each_time = each_time
        self.takes_command = takes_command
        # A user's task may have a parameter with the name of a shared flag, such as
        # `name`. The signature shows whether `name` is this parameter or the flag.
        self.signature = inspect.signature(body)
        super().__init__(body, *args, **kwargs)

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return this task's own flags, then the flags that all stages share."""
        # Invoke calls this method for every task before it parses a command line, so
        # the flag values of an earlier command line are removed here.
        FlagStore.clear()
        # Invoke removes each help text that it uses. The texts are restored, because a
        # second Invoke program in this process needs them, too.
        help_texts = dict(self.help)
        arguments = list(super().get_arguments(ignore_unknown_help))
        self.help = help_texts
        if self.builtin:
            self._spell_help(arguments)
        own_names = {name for argument in arguments for name in argument.names}
        if self.needs and "only" not in own_names:
            arguments.append(
                Argument(name="only", kind=bool, default=False, help=ONLY_HELP)
            )
        for name, text in SHARED_FLAGS.items():
            if name in own_names:
                continue
            kind = bool if name == "spot" else str
            arguments.append(
                SharedArgument(stage=self, name=name, kind=kind, help=text)
            )
        if not own_names & {"spot", "no-spot"}:
            arguments.append(NoSpot(self))
        return arguments

    def _spell_help(self, arguments: Iterable[Argument]) -> None:
        """Spell the commands in the help texts as the user must type them."""
        doc = self.body.__doc__ or ""
        texts = [doc, *(argument.help or "" for argument in arguments)]
        if not any("inv " in text for text in texts):
            return
        collection = collection_in_use()
        names = names_in(collection) if collection is not None else {}
        hints = Hints(names)
        self.__doc__ = hints.spell(doc)
        for argument in arguments:
            argument.help = hints.spell(argument.help or "")

    def __call__(self, c: Context, *args: Any, **kwargs: Any) -> Any:
        """
        Run the stage after the stages it needs; if it already ran, return its result.

        Raises:
            invoke.Exit: The stage failed, and the message has been printed. The exit
                code is the job's own or that of an error in `onebox.errors`.
        """
        shared = {
            name: kwargs.pop(name, None)
            for name in ("only", "no_spot", *SHARED_FLAGS)
            if name not in self.signature.parameters
        }
        only = bool(shared.get("only"))
        flags = {
            name: value
            for name in SHARED_FLAGS
            if (value := shared.get(name)) is not None
        }
        contexts = _Contexts.of(c)
        with contexts.using(flags), contexts.entered(c) as context:
            # Invoke passes the defaults of a stage on the command line, but not those
            # of a stage in another task's `pre`. The defaults are applied here, so that
            # both calls have the same arguments.
            bound = self.signature.bind(c, *args, **kwargs)
            bound.apply_defaults()
            command = bound.arguments.get("command", "")
            if self.builtin and not isinstance(command, str):
                raise usage_exit(f"run(c, command={command!r}): expected a string")
            arguments = _freeze(tuple(bound.arguments.values())[1:])
            # An `on_box` stage runs again after its box has gone, and a `before_job`
            # stage runs again after a job has started.
            generation = (
                context.chain.ended_boxes if self.on_box else 0,
                context.chain.started_jobs if self.before_job else 0,
            )
            key = (self.body, arguments, only, generation)
            if self.each_time or key not in context.chain.results:
                context.chain.results[key] = self._run(c, context, only, bound)
            return context.chain.results[key]

    def _run(
        self, c: Context, context: BoxContext, only: bool, bound: inspect.BoundArguments
    ) -> Any:
        """
        Run the stages that this task needs, then the task's own function.

        With `--dry`, one of onebox's own stages prints its part of the plan instead.
        """
        arguments = bound.arguments
        is_run = self.builtin and self.name == "run"
        if is_run:
            stage_module("run").refuse_shell_line(context, remainder_of(c))
        dry = c.config.run.dry
        # The folder of --into is also in force for the needed stages and the checks
        # below, because the outputs in that folder decide whether `run` is up to date.
        into = arguments["into"] if is_run else ""
        with (
            context.planning() if dry else nullcontext(),
            context.using_outputs_folder(into),
        ):
            context.invocation.begin(
                self.name if self.builtin else "",
                only=only,
                # Only `run --keep` keeps the box; `image --keep` keeps the builder.
                keep=is_run and arguments["keep"],
                own_command=bool(c.remainder or (is_run and arguments["command"])),
            )
            must_run_needs = not only and (dry or self._prepare_chain(context))
            if must_run_needs:
                with context.invocation.as_need():
                    for need in self.needs:
                        need(c)
            with self._system_errors():
                if dry and self.builtin:
                    command = arguments["command"] if is_run else ""
                    command = command or shlex.join(remainder_of(c))
                    return stage_module("plan").show(context, self.name, command)
                return super().__call__(*bound.args, **bound.kwargs)

    def _prepare_chain(self, context: BoxContext) -> bool:
        """Return whether the needs must run; see `runner.prepare_chain`."""
        with self._system_errors():
            stage_name = self.name if self.builtin else ""
            return bool(_load("runner").prepare_chain(context, stage_name))

    @contextmanager
    def _system_errors(self) -> Iterator[None]:
        """Turn an OSError of one of onebox's own stages into a OneboxError."""
        try:
            yield
        except OSError as error:
            if not self.builtin:
                raise
            raise _load("exit_code").system_error(error) from error


@overload
def stage(*needs: Stage, **options: Any) -> Callable[[Callable[..., Any]], Stage]: ...
@overload
def stage(body: Callable[..., Any], /) -> Stage: ...
def stage(*needs: Any, **options: Any) -> Any:
    """
    Make a task that brings up the stages it needs and takes the shared flags.

        @stage(push)
        def train(c, epochs=3):
            run(c, command=f"python train.py --epochs={epochs}")

    Keyword options are those of `invoke.task`.
    """

    def decorate(body: Callable[..., Any]) -> Stage:
        return Stage(body, needs=needs, **options)

    if len(needs) == 1 and not isinstance(needs[0], Task) and callable(needs[0]):
        body, needs = needs[0], ()
        return decorate(body)
    return decorate


def context_of(c: Context) -> BoxContext:
    """Return the box context of the stage that runs with this Invoke context."""
    return _Contexts.of(c).current()


def stage_module(name: str) -> Any:
    """Import and return the module of `onebox.stages` that does a stage's work."""
    return _load(f"stages.{name}")


class _Contexts:
    """
    The box contexts of one command line, one for each set of shared flags.

    Most command lines have one context. A user's task makes more contexts when it
    passes shared flags as keywords, as in `run(c, name="second")`.
    """

    def __init__(self) -> None:
        self._command_line_flags = FlagStore.take()
        self._task_names, self._stages = read_executor()
        # The shared flags of each stage that is running. Those of the innermost stage
        # are last and are in force.
        self._flags: list[dict[str, Any]] = []
        self._contexts: dict[Any, BoxContext] = {}
        self._running: list[BoxContext] = []
        # The boxes that are kept are printed at exit, because before that a later task
        # of the command line may remove one.
        atexit.register(self._print_kept_boxes)

    @classmethod
    def of(cls, c: Context) -> _Contexts:
        """Return the contexts of the command line that *c* belongs to."""
        contexts = getattr(c.config, "_onebox", None)
        if not isinstance(contexts, cls):
            contexts = cls()
            # The contexts are stored in the config, because `Executor.execute` passes
            # the same config to all tasks of a command line, but a new Context to each.
            c.config._set(_onebox=contexts)
        return contexts

    @contextmanager
    def using(self, flags: dict[str, Any]) -> Iterator[None]:
        """Let a stage's keywords override the flags of its caller during the body."""
        base = self._flags[-1] if self._flags else self._command_line_flags
        self._flags.append({**base, **flags})
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
        context = self._opened(c)
        outermost = context not in self._running
        self._running.append(context)
        try:
            if outermost:
                with self._exit_code(context), _load("runner").outermost_stage(context):
                    yield context
            else:
                yield context
        finally:
            self._running.pop()

    def _opened(self, c: Context) -> BoxContext:
        flags = self._flags[-1]
        key = _freeze(flags)
        if key not in self._contexts:
            command = shlex.join([program_name(), *sys.argv[1:]])
            with self._exit_code(None):
                self._contexts[key] = _load("context").BoxContext.open(
                    root=_root(c),
                    environ=os.environ,
                    flags=flags,
                    invocation=_load("invocation").Invocation(command, self._stages),
                    tasks=self._task_names,
                )
        return self._contexts[key]

    def _exit_code(self, context: BoxContext | None) -> AbstractContextManager[None]:
        """Print onebox's errors, and make `inv` exit with their exit codes."""
        manager: AbstractContextManager[None] = _load("exit_code").exit_code(
            context, os.environ, self._task_names
        )
        return manager

    def _print_kept_boxes(self) -> None:
        if self._contexts:
            _load("runner").print_kept_boxes(self._contexts.values())


def _load(module: str) -> Any:
    """
    Import and return a module of onebox.

    It is imported only when a stage runs, because `inv --list` needs no such module.
    """
    with with_bytecode():
        return importlib.import_module(f"onebox.{module}")


def _root(c: Context) -> str:
    prefix = getattr(c.config, "_project_prefix", None)
    return str(prefix or os.getcwd())  # noqa: PTH109 - importing pathlib costs time


def _freeze(value: Any) -> Any:
    """Return a hashable copy of nested mappings and lists."""
    if isinstance(value, Mapping):
        return tuple(sorted((name, _freeze(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    return value
