"""
Stages as Invoke tasks: here, and in `options`, is what knows Invoke's insides.

A stage brings up what it needs before it runs, does so once per command line,
and takes part in the options that belong to the line as a whole: `--vm`,
`--provider`, `--name`, `--spot`. Invoke's own `pre=` cannot do that: it hands no
arguments on, and would run `provision` twice in `inv provision run`.
"""

from __future__ import annotations

import atexit
import importlib
import inspect
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from invoke.exceptions import Exit
from invoke.executor import Executor
from invoke.parser.argument import Argument
from invoke.tasks import Task

from onebox.flags import OPTIONS, FlagStore, NoSpot, SharedArgument, contradiction

if TYPE_CHECKING:
    from invoke.context import Context

    from onebox.context import BoxContext

ONLY_HELP = "Run this stage alone, on what is there."


# Task takes the type that its body returns: a stage has bodies of any.
class Stage(Task):  # type: ignore[type-arg]
    """
    A task of the chain, or a user's own on top of it.

    Args:
        needs: The stages that must be up to date before this one runs.

        own: Whether this is one of onebox's own, which `--dry` replaces by its
            line of the plan.

        on_box: Whether what it does goes with the box, so that a new box needs
            it anew.

        before_job: Whether a job needs it anew: files may have been edited since.

        each_time: Whether it is done as often as it is called: what it finds is
            another thing each time.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        *args: Any,
        needs: Iterable[Stage] = (),
        own: bool = False,
        on_box: bool = False,
        before_job: bool = False,
        each_time: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("auto_shortflags", False)
        self.needs = tuple(needs)
        self.own = own
        self.on_box = on_box
        self.before_job = before_job
        self.each_time = each_time
        # A user's task may have parameters of these names: they are its own.
        self.signature = inspect.signature(body)
        self._pre: list[Any] = []
        super().__init__(body, *args, **kwargs)

    @property
    def pre(self) -> list[Any]:
        """
        Return Invoke's own pre-tasks.

        Invoke asks every task of a line for them before the first one runs: so
        a stage knows what else the user has asked for.
        """
        if self.own:
            FlagStore.named.append(self.name)
        return self._pre

    @pre.setter
    def pre(self, tasks: list[Any]) -> None:
        self._pre = tasks

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return this task's own flags, then the ones shared by the line."""
        FlagStore.begin()
        # Invoke takes the texts out of there: a second program would have none.
        texts = dict(self.help)
        arguments = list(super().get_arguments(ignore_unknown_help))
        self.help = texts
        taken = {name for argument in arguments for name in argument.names}
        if self.needs and "only" not in taken:
            arguments.append(
                Argument(name="only", kind=bool, default=False, help=ONLY_HELP)
            )
        for name, text in OPTIONS.items():
            if name in taken:
                continue
            kind = bool if name == "spot" else str
            arguments.append(SharedArgument(name=name, kind=kind, help=text))
        if not taken & {"spot", "no-spot"}:
            arguments.append(NoSpot())
        return arguments

    def __call__(self, c: Context, *args: Any, **kwargs: Any) -> Any:
        """
        Run the stage once per line and set of options, after what it needs.

        Raises:
            invoke.Exit: It failed; the message has been printed, the code is
                the job's own or one of `onebox.errors`.
        """
        shared = {
            name: kwargs.pop(name, None)
            for name in ("only", "no_spot", *OPTIONS)
            if name not in self.signature.parameters
        }
        only = bool(shared.get("only"))
        given = {
            name: value for name in OPTIONS if (value := shared.get(name)) is not None
        }
        line = _Chains.of(c)
        with line.using(given), line.context(c) as context:
            # Invoke passes every flag of a stage that is on the line, and none of
            # one that is another's `pre`: it is the same stage all the same.
            bound = self.signature.bind(c, *args, **kwargs)
            bound.apply_defaults()
            command = bound.arguments.get("command", "")
            if self.own and not isinstance(command, str):
                raise contradiction(
                    f"run(c, command={command!r}): wants one line of text"
                )
            said = _freeze(tuple(bound.arguments.values())[1:])
            since = (context.ended * self.on_box, context.begun * self.before_job)
            key = (self.body, said, only, *since)
            if self.each_time or key not in context.done:
                given = bound.arguments
                context.done[key] = self._run(c, context, only, given, args, kwargs)
            return context.done[key]

    def _run(
        self,
        c: Context,
        context: BoxContext,
        only: bool,
        given: Mapping[str, Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        # `run` asks whether its outputs are where they are to be put.
        into = given["into"] if self._own_name == "run" else ""
        if c.config.run.dry:
            with context.planning(), context.fetching_into(into):
                return self._show(c, context, only, given, args, kwargs)
        self._begin(c, context, only, given)
        with context.fetching_into(into):
            with self._own_failures():
                wanted = not only and _core().wants(context, self._own_name)
            if wanted:
                self._bring_up_needs(c, context)
            with self._own_failures():
                return super().__call__(c, *args, **kwargs)

    @contextmanager
    def _own_failures(self) -> Iterator[None]:
        """Turn what the system refuses one of onebox's own stages into an error."""
        try:
            yield
        except OSError as error:
            if not self.own:
                raise
            raise _core().system_failed(error) from error

    def _show(
        self,
        c: Context,
        context: BoxContext,
        only: bool,
        given: Mapping[str, Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Print the stage's line of the plan; the body of a user's own still runs."""
        self._begin(c, context, only, given)
        if not only:
            self._bring_up_needs(c, context)
        if self.own:
            command = given["command"] if self.name == "run" else ""
            command = command or shlex.join(remainder_of(c))
            with self._own_failures():
                return _core().show_plan(context, self.name, command)
        return super().__call__(c, *args, **kwargs)

    def _begin(
        self, c: Context, context: BoxContext, only: bool, given: Mapping[str, Any]
    ) -> None:
        own = self._own_name
        context.line.begin(
            own,
            only=only,
            # `image --keep` keeps the builder, and no more than that.
            keep=bool(own == "run" and given["keep"]),
            own_command=bool(c.remainder or (own == "run" and given["command"])),
        )

    def _bring_up_needs(self, c: Context, context: BoxContext) -> None:
        with context.line.as_need():
            for need in self.needs:
                need(c)

    @property
    def _own_name(self) -> str:
        """Return the name of a stage of onebox's own, "" for a user's."""
        return self.name if self.own else ""


@overload
def stage(*needs: Stage, **options: Any) -> Callable[[Callable[..., Any]], Stage]: ...
@overload
def stage(body: Callable[..., Any], /) -> Stage: ...
def stage(*needs: Any, **options: Any) -> Any:
    """
    Make a task that brings up what it needs and takes the shared flags.

        @stage(push)
        def train(c, epochs=3):
            run(c, command=f"python train.py --epochs={epochs}")

    Keyword options are those of `invoke.task`.
    """

    def made(body: Callable[..., Any]) -> Stage:
        return Stage(body, needs=needs, **options)

    if len(needs) == 1 and not isinstance(needs[0], Task) and callable(needs[0]):
        body, needs = needs[0], ()
        return made(body)
    return made


def session_of(c: Context) -> BoxContext:
    """Return the session of the stage that is running in this context."""
    return _Chains.of(c).current()


def load(stage: str) -> Any:
    """Return the module that does a stage's work; not before it is needed."""
    return _imported(f".stages.{stage}")


def remainder_of(c: Context) -> list[str]:
    """
    Return what stands behind `--`, each word as it was typed.

    Invoke joins the words with spaces, which loses the quoting, so they are
    taken from argv where the two agree.
    """
    if not c.remainder:
        return []
    if "--" in sys.argv:
        words = sys.argv[sys.argv.index("--") + 1 :]
        if " ".join(words) == c.remainder:
            return words
    try:
        return shlex.split(c.remainder)
    except ValueError as error:
        raise Exit(f"onebox: after --: {error}", code=64) from error


class _Chains:
    """The sessions of one command line, and which options hold at the moment."""

    def __init__(self) -> None:
        # Taken away from there: the next line in this process has its own.
        self.of_line, self.named = FlagStore.options, tuple(FlagStore.named)
        FlagStore.begin()
        self.tasks = _called()
        self.options: list[dict[str, Any]] = []
        self.sessions: dict[Any, BoxContext] = {}
        # Only then no task is left that could end a box: a plain one may call ours.
        atexit.register(self.say_kept)
        self.running: list[BoxContext] = []

    @classmethod
    def of(cls, c: Context) -> _Chains:
        found = getattr(c.config, "_onebox", None)
        if not isinstance(found, cls):
            found = cls()
            # The config object is the one thing that all tasks of a line share.
            c.config._set(_onebox=found)
        return found

    @contextmanager
    def using(self, given: dict[str, Any]) -> Iterator[None]:
        # A keyword beats the line; inside a stage, the enclosing stage's hold.
        base = self.options[-1] if self.options else self.of_line
        self.options.append({**base, **given})
        try:
            yield
        finally:
            self.options.pop()

    def current(self) -> BoxContext:
        return self.running[-1]

    def say_kept(self) -> None:
        """Say at the line's end which boxes it leaves up."""
        if self.sessions:
            _core().say_kept(self.sessions.values())

    @contextmanager
    def context(self, c: Context) -> Iterator[BoxContext]:
        """Give the session for the options that hold, and settle what it owes."""
        core = _core()
        key = _freeze(self.options[-1])
        if key not in self.sessions:
            with _exits(core, None, c):
                self.sessions[key] = core.BoxContext.open(
                    root=_root(c),
                    environ=os.environ,
                    flags=self.options[-1],
                    line=core.Invocation(_command_line(), self.named),
                    tasks=self.tasks,
                )
        context = self.sessions[key]
        outermost = context not in self.running
        self.running.append(context)
        try:
            if outermost:
                with _exits(core, context, c), core.frame(context):
                    yield context
            else:
                yield context
        finally:
            self.running.pop()


@contextmanager
def _exits(core: Any, context: BoxContext | None, c: Context) -> Iterator[None]:
    """Turn our errors into Invoke's exit, with the line that explains them."""
    try:
        yield
    except core.OneboxError as error:
        if logging.getLogger("invoke").isEnabledFor(logging.DEBUG):
            logging.getLogger("invoke").debug("onebox failed", exc_info=True)
        core.report(error, context, os.environ, _Chains.of(c).tasks)
        raise Exit(code=error.code) from error
    except core.Interrupted as stop:
        raise Exit(code=stop.code) from stop


def _called() -> dict[str, str]:
    """
    Return what each of our own tasks is called on the command line.

    That is in the collection, which Invoke shows to nobody but its executor: so
    that one is looked for among our callers. Without any, all keep their names.
    """
    found: dict[str, str] = {}
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Executor):
            names = caller.collection.task_names
            for name in sorted(names, key=lambda name: name.count(".")):
                task = caller.collection[name]
                if isinstance(task, Stage) and task.own:
                    found.setdefault(task.name, name)
            break
        frame = frame.f_back
    return found


def _core() -> Any:
    return _imported(".runner")


def _imported(module: str) -> Any:
    """
    Import what a running stage needs: not before one runs.

    `inv --list` must cost what Invoke itself costs. Invoke also turns bytecode
    off; ours is compiled once, not at every start, unless the user has said no.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    try:
        return importlib.import_module(module, __package__)
    finally:
        sys.dont_write_bytecode = before


def _root(c: Context) -> str:
    prefix = getattr(c.config, "_project_prefix", None)
    return str(prefix or os.getcwd())  # noqa: PTH109 - pathlib costs import time


def _command_line() -> str:
    return shlex.join(["inv", *sys.argv[1:]])


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((name, _freeze(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    return value
