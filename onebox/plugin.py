"""
Make Invoke tasks of stages.

A stage brings up the stages it needs, runs once per command line, and takes the flags
of the whole command line: `--vm`, `--provider`, `--name`, `--profile`, `--spot`.
Invoke's own `pre=` is not used for this, because it passes no arguments on, and
`inv provision run` would run `provision` twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, overload

from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from onebox.command_hints import Hints
from onebox.errors import OneboxError
from onebox.flags import SHARED_FLAGS, FlagStore, NoSpot, SharedArgument, usage_exit
from onebox.invocation import JOB_STAGES, UnitFlags
from onebox.invoke_internals import all_tasks, collection_in_use, names_in
from onebox.line_contexts import LineContexts, freeze, load_module
from onebox.parser import error_documents, remainder_of, warnings_of

if TYPE_CHECKING:
    from invoke.context import Context

    from onebox.context import BoxContext

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
            arguments and its source are those of its last success. For a stage that
            needs others, `[run] command` and `env`, and `[image]`, are inputs, too.

        takes_command: Whether the words after `--` are a command for the stage. With
            the program `onebox`, the command needs no `--`.

        read_only: Whether the stage changes nothing unless it has the flag `--yes`. A
            line with `plan` has only such stages.
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
        takes_command: bool = False,
        read_only: bool = False,
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
        self.takes_command = takes_command
        self.read_only = read_only
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
        # Invoke runs equal tasks of a command line only once. For Invoke, tasks with
        # the same name and code are equal, although two functions that a factory has
        # made have the same code and different values.
        if not (isinstance(other, Stage) and super().__eq__(other)):
            return False
        same_values = self.body is other.body or not (
            getattr(self.body, "__closure__", None)
            or _defaults(self.body) != _defaults(other.body)
        )
        same_files = (self.inputs, self.outputs) == (other.inputs, other.outputs)
        same_settings = self.config_file == other.config_file
        return same_values and same_files and same_settings

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
        if self.builtin:
            self._spell_help(arguments)
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
        hints = Hints(names.get(self.config_file, {}))
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
            for name in ("only", "force", "no_spot", *SHARED_FLAGS)
            if name not in self.signature.parameters
        }
        only, force = bool(shared.get("only")), bool(shared.get("force"))
        flags = {
            name: value
            for name in SHARED_FLAGS
            if (value := shared.get(name)) is not None
        }
        with error_documents():
            contexts = LineContexts.of(c)
        contexts.json = self.builtin and bool(kwargs.get("json"))
        contexts.replaces_file = self.builtin and bool(
            self.name == "init" and kwargs.get("force")
        )
        with contexts.using(flags, self.config_file), contexts.entered(c) as context:
            # Invoke passes the defaults of a stage on the command line, but not those
            # of a stage in another task's `pre`. The defaults are applied here, so that
            # both calls have the same arguments.
            bound = self.signature.bind(c, *args, **kwargs)
            bound.apply_defaults()
            command = bound.arguments.get("command", "")
            if self.builtin and not isinstance(command, str):
                raise usage_exit(f"run(c, command={command!r}): expected a string")
            arguments = freeze(tuple(bound.arguments.values())[1:])
            # An `on_box` stage runs again after its box has gone, and a `before_job`
            # stage runs again after a job has started.
            generation = (
                context.chain.ended_boxes if self.on_box else 0,
                context.chain.started_jobs if self.before_job else 0,
            )
            files = (self.inputs, self.outputs)
            key = (self.body, files, arguments, only, generation)
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
            names = all_tasks()
            name = names.get(self, self.name)
            declared = freshness.Declared(
                name, self.body, self.inputs, self.outputs, bool(self.needs)
            )
            now = declared.now(context, arguments)
            reason = "--force" if force else declared.reason(context, now)
        files = stage_module("graph").describe_files(self.inputs, self.outputs)
        if c.config.run.dry:
            before = [names.get(need, need.name) for need in earlier]
            freshness.plan(context, name, files, reason, before)
            return None
        if not freshness.announce(context, name, files, reason):
            # The stage would have used the box, so its line names a box that is up.
            context.invocation.box_used |= bool(self.needs)
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
        is_run = self.builtin and self.name in JOB_STAGES
        if self.builtin and self.name in (*JOB_STAGES, "exec", "plan"):
            words, line = remainder_of(c), arguments["command"]
            stage_module("run").check_command(context, words, line, self.name)
        is_map = self.builtin and self.name == "map"
        dry = c.config.run.dry or (is_map and context.invocation.plans_map)
        if self.takes_command and not context.invocation.warnings:
            context.invocation.warnings = warnings_of(c)
            # A plan has the warnings as lines of its own.
            if not dry and not (self.builtin and self.name == "plan"):
                for warning in context.invocation.warnings:
                    context.screen.warn(warning)
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
                own_command=load_module("formatting").shell_line(remainder_of(c))
                or (arguments["command"] if is_run else ""),
                units=UnitFlags.of(remainder_of(c), arguments) if is_map else None,
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
                    command = context.invocation.own_command
                    return stage_module("plan").show(context, self.name, command)
                return super().__call__(*bound.args, **bound.kwargs)

    def _prepare_chain(self, context: BoxContext) -> bool:
        """Return whether the needs must run; see `runner.prepare_chain`."""
        with self._system_errors():
            stage_name = self.name if self.builtin else ""
            return bool(load_module("runner").prepare_chain(context, stage_name))

    @contextmanager
    def _system_errors(self, *, own: bool = False) -> Iterator[None]:
        """
        Turn an unexpected error of onebox's own code into a OneboxError.

        Args:
            own: Whether the body is onebox's own code although the stage is a user's.
        """
        try:
            yield
        except OSError as error:
            if not (self.builtin or own):
                raise
            raise load_module("exit_code").system_error(error) from error
        except (Exit, OneboxError):
            raise
        except Exception as error:
            if not (self.builtin or own):
                raise
            raise load_module("exit_code").unexpected_error(error) from error


def _defaults(body: Callable[..., Any]) -> tuple[Any, Any]:
    return getattr(body, "__defaults__", None), getattr(body, "__kwdefaults__", None)


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
    return LineContexts.of(c).current()


def stage_module(name: str) -> Any:
    """Import and return the module of `onebox.stages` that does a stage's work."""
    return load_module(f"stages.{name}")
