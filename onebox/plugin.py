"""
Make Invoke tasks of stages.

A stage brings up the stages it needs, runs once per command line, and takes the flags
of the whole command line: `--vm`, `--provider`, `--name`, `--profile`, `--spot`.
Invoke's own `pre=` is not used for this, because it passes no arguments on, and
`inv provision run` would run `provision` twice.
"""

from __future__ import annotations

import atexit
import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, overload

from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from onebox.errors import UsageError
from onebox.flags import SHARED_FLAGS, FlagStore, NoSpot, SharedArgument, usage_exit
from onebox.providers import with_bytecode

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.invocation import PythonCall

FORCE_HELP = "Run this stage even if nothing has changed."
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

        inputs, outputs: Files, folders and patterns, relative to the project. If they
            are given, the stage is skipped while the inputs, the outputs, the task's
            arguments and its source are those of its last success.
    """

    config_file: str

    def __init__(
        self,
        body: Callable[..., Any],
        *args: Any,
        needs: Iterable[Stage] = (),
        builtin: bool = False,
        on_box: bool = False,
        before_job: bool = False,
        each_time: bool = False,
        inputs: Iterable[str] = (),
        outputs: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        if isinstance(inputs, str) or isinstance(outputs, str):
            raise TypeError("inputs and outputs are lists of paths")
        kwargs.setdefault("auto_shortflags", False)
        self.needs = tuple(needs)
        self.builtin = builtin
        self.on_box = on_box
        self.before_job = before_job
        self.each_time = each_time
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        # The file of settings that the stage uses instead of onebox.toml. A user's own
        # stage uses the file of the stages it needs. With "", the stage uses the file
        # of the stage that calls it.
        files = [one.config_file for one in self.needs if one.config_file]
        self.config_file = files[0] if files else ""
        # A user's task may have a parameter with the name of a shared flag, such as
        # `name`. The signature shows whether `name` is this parameter or the flag.
        self.signature = inspect.signature(body)
        super().__init__(body, *args, **kwargs)

    def __eq__(self, other: object) -> bool:
        # Invoke runs equal tasks of a command line only once, and tasks with the same
        # name and body are equal.
        file = getattr(other, "config_file", "")
        return super().__eq__(other) and self.config_file == file

    __hash__ = Task.__hash__

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
        own_names = {name for argument in arguments for name in argument.names}
        if self.declares_files and "force" not in own_names:
            arguments.append(
                Argument(name="force", kind=bool, default=False, help=FORCE_HELP)
            )
        if self.needs and "only" not in own_names:
            arguments.append(
                Argument(name="only", kind=bool, default=False, help=ONLY_HELP)
            )
        for name, text in SHARED_FLAGS.items():
            if name in own_names:
                continue
            kind = bool if name == "spot" else str
            arguments.append(SharedArgument(name=name, kind=kind, help=text))
        if not own_names & {"spot", "no-spot"}:
            arguments.append(NoSpot())
        return arguments

    def __call__(self, c: Context, *args: Any, **kwargs: Any) -> Any:
        """
        Run the stage after the stages it needs; if it already ran, return its result.

        Raises:
            invoke.Exit: The stage failed, and the message has been printed. The exit
                code is the job's own or that of an error in `onebox.errors`.
        """
        shared = {
            name: kwargs.pop(name, None)
            for name in ("only", "force", "no_spot", *SHARED_FLAGS)
            if name not in self.signature.parameters
        }
        only, force = bool(shared.get("only")), bool(shared.get("force"))
        flags = {
            name: value
            for name in SHARED_FLAGS
            if (value := shared.get(name)) is not None
        }
        contexts = _Contexts.of(c)
        contexts.json = self.builtin and bool(kwargs.get("json"))
        with contexts.using(flags, self.config_file), contexts.entered(c) as context:
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
                result = self._run_if_changed(c, context, only, force, bound)
                context.chain.results[key] = result
            return context.chain.results[key]

    @property
    def declares_files(self) -> bool:
        """Return whether the stage is skipped while its files are unchanged."""
        return bool(self.inputs or self.outputs)

    def _run_if_changed(
        self,
        c: Context,
        context: BoxContext,
        only: bool,
        force: bool,
        bound: inspect.BoundArguments,
    ) -> Any:
        """Run the stage, unless it declares files and nothing has changed."""
        if not self.declares_files:
            return self._run(c, context, only, bound)
        # Stages that declare files may make the inputs of this one.
        earlier = [] if only else [n for n in self.needs if n.declares_files]
        for need in earlier:
            need(c)
        freshness = stage_module("freshness")
        with self._system_errors(own=True):
            arguments = dict(list(bound.arguments.items())[1:])
            declared = freshness.Declared(
                self.name, self.body, self.inputs, self.outputs
            )
            now = declared.now(context, arguments)
            reason = "--force" if force else declared.reason(context, now)
        files = describe_files(self.inputs, self.outputs)
        if c.config.run.dry:
            freshness.plan(context, self.name, files, reason, [n.name for n in earlier])
            return None
        if not freshness.announce(context, self.name, files, reason):
            return None
        result = self._run(c, context, only, bound)
        with self._system_errors(own=True):
            declared.keep(context, now)
        return result

    def _run(
        self, c: Context, context: BoxContext, only: bool, bound: inspect.BoundArguments
    ) -> Any:
        """
        Run the stages that this task needs, then the task's own function.

        With `--dry`, one of onebox's own stages prints its part of the plan instead.
        """
        arguments = bound.arguments
        is_run = self.builtin and self.name == "run"
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
                queue=is_run and arguments["queue"],
                own_command=bool(c.remainder or (is_run and arguments["command"])),
            )
            # The plan of one of onebox's own stages covers the stages it needs.
            planned = dry and self.builtin
            must_run_needs = not (only or planned) and (
                dry or self._prepare_chain(context)
            )
            if must_run_needs:
                with context.invocation.as_need():
                    for need in self.needs:
                        need(c)
            with self._system_errors():
                if planned:
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
    def _system_errors(self, *, own: bool = False) -> Iterator[None]:
        """
        Turn an OSError of onebox's own code into a OneboxError.

        Args:
            own: Whether the body is onebox's own code although the stage is a user's.
        """
        try:
            yield
        except OSError as error:
            if not (self.builtin or own):
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

    With `inputs=[…]` and `outputs=[…]`, paths in the project, the stage is skipped
    while nothing has changed since it succeeded; `--force` runs it. Further keyword
    options are those of `invoke.task`.
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


def stage_graph() -> list[Any]:
    """
    Return a `StageNode` for each stage that needs others and that no other one needs.

    The list is empty if Invoke's executor has not called the stage.
    """
    node_class = stage_module("graph").StageNode
    typed = _load("invoke_internals").all_tasks()
    stages = [task for task in typed if isinstance(task, Stage)]

    def node(stage: Stage) -> Any:
        needs = tuple(node(need) for need in stage.needs)
        name = typed.get(stage, stage.name)
        return node_class(name, needs, describe_files(stage.inputs, stage.outputs))

    needed = {need.body for stage in stages for need in stage.needs}
    return [
        node(stage)
        for stage in stages
        if stage.body not in needed and (stage.needs or stage.declares_files)
    ]


def describe_files(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """
    Return the declared files of a stage as text.

    >>> describe_files(["a.csv", "b/"], ["model"])
    'a.csv, b/ → model'
    """
    return " → ".join(", ".join(names) for names in (inputs, outputs) if names)


def remainder_of(c: Context) -> list[str]:
    """
    Return the words after `--`, each as it was typed.

    Invoke joins the words with spaces, which loses the quoting. The words are
    therefore read from `sys.argv` if they match what Invoke parsed.
    """
    if not c.remainder:
        return []
    if isinstance(c.remainder, _Words):
        return list(c.remainder.words)
    if "--" in sys.argv:
        words = sys.argv[sys.argv.index("--") + 1 :]
        if " ".join(words) == c.remainder:
            return words
    try:
        return shlex.split(c.remainder)
    except ValueError as error:
        raise Exit(f"onebox: after --: {error}", code=64) from error


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
    contexts = _Contexts(call)
    config._set(_onebox=contexts)
    with _load("store.box_store").locks_released():
        try:
            yield Context(config, remainder=_Words(words))
        except Exit as error:
            message = str(error.message).partition("onebox: ")[2]
            raise UsageError(message).in_full() from None
        finally:
            contexts.print_kept_boxes()


class _Words(str):
    """The words of a command as Invoke's remainder, which is one string."""

    def __new__(cls, words: Sequence[str]) -> _Words:
        text = super().__new__(cls, shlex.join(words))
        text.words = tuple(words)
        return text

    words: tuple[str, ...]


class _Contexts:
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
            self._task_names, self._stages = _load("invoke_internals").read_executor()
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
        # The boxes that are kept are printed at exit, because before that a later task
        # of the command line may remove one.
        if call is None:
            atexit.register(self.print_kept_boxes)

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
        context = self._opened(c)
        context.screen.json = self.json
        outermost = context not in self._running
        self._running.append(context)
        try:
            if outermost:
                with (
                    self._exit_code(context, self._flags[-1][1]),
                    _load("runner").outermost_stage(context),
                ):
                    yield context
            else:
                yield context
        finally:
            self._running.pop()

    def _opened(self, c: Context) -> BoxContext:
        flags, file = self._flags[-1]
        internals, settings = _load("invoke_internals"), _load("settings")
        invoke = internals.config_levels(c, file)
        key = (_freeze(flags), file, repr(invoke))
        if key not in self._contexts:
            call = self._call
            command = call.text if call else shlex.join(["inv", *sys.argv[1:]])
            invocation = _load("invocation").Invocation(
                command, self._stages.get(file, ()), from_python=call is not None
            )
            with self._exit_code(None, file):
                self._contexts[key] = _load("context").BoxContext.open(
                    root=str(internals.project_folder(c)),
                    environ=os.environ,
                    flags=flags,
                    invocation=invocation,
                    tasks=self._task_names.get(file),
                    places=settings.Places(
                        file=file,
                        invoke=tuple(settings.InvokeLevel(*level) for level in invoke),
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
            manager = _load("exit_code").python_errors(context)
            return manager
        manager = _load("exit_code").exit_code(
            context, os.environ, self._task_names.get(file, {}), json=self.json
        )
        return manager

    def print_kept_boxes(self) -> None:
        """Print the boxes that the command line leaves up."""
        if self._contexts:
            _load("runner").print_kept_boxes(self._contexts.values())


def _load(module: str) -> Any:
    """
    Import and return a module of onebox.

    It is imported only when a stage runs, because `inv --list` needs no such module.
    """
    with with_bytecode():
        return importlib.import_module(f"onebox.{module}")


def _freeze(value: Any) -> Any:
    """Return a hashable copy of nested mappings and lists."""
    if isinstance(value, Mapping):
        return tuple(sorted((name, _freeze(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    return value
