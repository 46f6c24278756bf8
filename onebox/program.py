"""
The program `onebox`: the tasks of a project, without `inv` and without tasks.py.

The project is the nearest folder upwards that has onebox.toml, or a tasks.py that names
onebox; without such a folder it is the working directory. Its tasks are those of
tasks.py, and onebox's own under the names that tasks.py leaves free.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.loader import FilesystemLoader
from invoke.program import Program

import onebox
from onebox import late_flags
from onebox.agent.file_names import printable
from onebox.errors import ConfigError, OneboxError
from onebox.file_owners import is_foreign
from onebox.flags import SharedArgument
from onebox.formatting import place_of
from onebox.parser import (
    EARLIER_NAMES,
    Remainder,
    WrongLine,
    error_documents,
    reader_of,
)
from onebox.plugin import Stage
from onebox.project_search import find_project, is_of_another_user, unread_tasks
from onebox.providers import with_bytecode
from onebox.tasks import ns
from onebox.ui.plain import discard_stdout, note, print_lines

if TYPE_CHECKING:
    from invoke.parser.context import ParserContext

    from onebox.command_line import Reader

# Without a project, these tasks find no box. Others can do without a project, or have
# an error of their own.
_OF_A_BOX = ("cancel", "fetch", "logs", "ssh", "status", "teardown")

# The files of a project that Invoke reads as configuration; it runs the last one.
_CONFIGURATION = ("invoke.yaml", "invoke.yml", "invoke.json", "invoke.py")

COMMAND_HELP = (
    "The command begins at the first word that is neither a flag, nor the value of a",
    "flag, nor the name of a task. All words from there on belong to it. After --, any",
    "word can begin it.",
)


class OneboxProgram(Program):
    """The program, with onebox's own tasks unless the project has tasks of its own."""

    def __init__(self) -> None:
        super().__init__(
            version=onebox.__version__,
            namespace=ns,
            name="onebox",
            binary="onebox",
            binary_names=["onebox"],
        )
        self.root, self.is_project = Path(), True
        self.executes = False

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """
        Run a command line.

        An error before the first task, such as a damaged configuration of Invoke, is
        printed as one line. An error in a user's own task keeps its traceback.
        """
        try:
            try:
                super().run(argv, exit)
            finally:
                if not self.executes and sys.stdout is not None:
                    sys.stdout.flush()
        except Exception as error:
            if self.executes:
                raise
            logging.getLogger("invoke").debug("onebox failed", exc_info=True)
            raise SystemExit(_explain(error)) from error

    def parse_core_args(self) -> None:
        """Read the flags before the first task; print a completion script."""
        super().parse_core_args()
        shell = self.args["print-completion-script"].value
        if shell:
            with with_bytecode():
                from onebox.completion.scripts import SCRIPTS

            if shell not in SCRIPTS:
                raise Exit(
                    f"onebox[64]: there is no completion for {shell!r}; "
                    f"the shells are {', '.join(SCRIPTS)}",
                    code=64,
                )
            print_lines(SCRIPTS[shell].splitlines())
            raise Exit

    @error_documents()
    def parse_collection(self) -> None:
        """Find the project, and load its tasks."""
        try:
            here = Path.cwd()
        except OSError as error:
            raise Exit(
                "onebox[66]: the working directory no longer exists\n"
                "  next: cd to the project",
                code=66,
            ) from error
        completes = bool(self.args.complete.value)
        try:
            found, has_tasks = find_project(here, completes=completes)
        except ConfigError as error:
            text = f"onebox[{error.code}]: {error.message}\n  next: {error.next}"
            raise Exit(text, code=error.code) from error
        self.root, self.is_project = found or here, found is not None
        self.config.set_project_location(str(self.root))
        self.namespace = ns
        if completes:
            self._complete_with_tasks(has_tasks)
        else:
            self._load_configuration()
            if has_tasks:
                self._note_use()
                self.namespace = self._project_tasks()
        super().parse_collection()

    def _complete_with_tasks(self, has_tasks: bool) -> None:
        """
        Complete with the tasks of tasks.py, if `onebox` has run them before.

        A key that completes a line must not run a program that was just cloned, or that
        another user has written. A mistake in tasks.py must not stop the completion of
        onebox's own tasks.
        """
        with with_bytecode():
            from onebox.store.used_folders import was_used

        if is_of_another_user(self.root) or not was_used(self.root, os.environ):
            return
        if not (self.root / _CONFIGURATION[-1]).exists():
            self._load_configuration()
        if has_tasks:
            with contextlib.suppress(Exception):
                self.namespace = self._project_tasks()

    def _load_configuration(self) -> None:
        """Load the project's configuration of Invoke, but not that of another user."""
        for name in _CONFIGURATION:
            file = self.root / name
            problem, advice = "", ""
            if is_foreign(file):
                problem = "belongs to another user"
                advice = "copy the project to a folder of your own, if you trust it"
            elif file.exists() and not file.is_file():
                problem, advice = "is no file", "remove it"
            if problem and not self.args.complete.value:
                note(
                    f"onebox: {printable(str(file))} {problem}, so it is not read\n"
                    f"  next: {advice}"
                )
            if problem:
                return
        self.config.load_project()

    def _note_use(self) -> None:
        with with_bytecode():
            from onebox.store.used_folders import note_use

        note_use(self.root, os.environ)

    def _project_tasks(self) -> Collection:
        """
        Return the tasks of the project's tasks.py, and onebox's own.

        Raises:
            Exit: tasks.py cannot be imported.
        """
        try:
            module, _ = FilesystemLoader(config=self.config, start=str(self.root)).load(
                "tasks"
            )
        except (Exit, OneboxError):
            raise
        except Exception as error:
            logging.getLogger("invoke").debug("tasks.py failed", exc_info=True)
            if isinstance(error, ImportError):
                problem = str(error)
                next = f"install what is missing for {sys.executable}"
                of_onebox = (error.name or "").partition(".")[0] == "onebox"
                if of_onebox or problem.startswith("cannot import name"):
                    next = "correct the import; onebox --debug --list shows more"
            else:
                text = error.msg if isinstance(error, SyntaxError) else error
                problem = f"{type(error).__name__}: {text}"
                next = "onebox --debug --list shows the traceback"
            place = place_of(error, self.root)
            if place:
                problem = f"{place}: {printable(' '.join(problem.split()))}"
            raise Exit(
                f"onebox[78]: tasks.py of {printable(str(self.root))} cannot be "
                f"imported: {problem}\n  next: {next}",
                code=78,
            ) from error
        return self._merged(module)

    def _merged(self, module: ModuleType) -> Collection:
        tasks = Collection.from_module(
            module,
            loaded_from=str(self.root),
            auto_dash_names=self.config.tasks.auto_dash_names,
        )
        if not any(isinstance(tasks[name], Stage) for name in tasks.task_names):
            return ns
        for name, task in ns.tasks.items():
            if name not in tasks.tasks and name not in tasks.collections:
                tasks.add_task(task, default=False)
        return tasks

    def parse_tasks(self) -> None:
        """Parse the tasks with their flags; take the command off the line first."""
        if self.args.complete.value:
            self._complete(str(self.core.remainder))
            raise Exit
        typed = self.argv[1:]
        words = self.core.unparsed
        remainder = typed[typed.index("--") :] if "--" in typed else []
        reader = self._reader()
        start = reader.command_start(words) if words else None
        if start is not None and words[start].rpartition(".")[2] in EARLIER_NAMES:
            start = None
        if start is None:
            self.core.remainder = Remainder(remainder[1:])
        else:
            before = typed[: max(len(typed) - len(remainder) - len(words), 0)]
            command = [*words[start:], *remainder]
            flags = reader.read(words[:start]).task.flags
            line = ["onebox", *before, *words[:start]]
            self.core.remainder = Remainder(
                command, late_flags.warning(line, command, flags)
            )
            del words[start:]
        try:
            super().parse_tasks()
        except WrongLine as error:
            unread = unread_tasks(self.root)
            if unread and reader.read(words).problem == "word":
                problem, _, hint = error.text.partition("\n")
                raise WrongLine(f"{problem}\n  {unread}\n{hint}") from error
            raise

    def parse_cleanup(self) -> None:
        """Print help and lists, as Invoke does."""
        name = self.args.help.value
        if isinstance(name, str) and name not in self.parser.contexts:
            with with_bytecode():
                from onebox.command_line import nearest

            near = nearest(name, list(self.parser.contexts))
            hint = "next: onebox --list"
            if near:
                hint = f"did you mean: onebox --help {near}"
            raise WrongLine(f'onebox[64]: there is no task "{name}"\n  {hint}')
        super().parse_cleanup()

    def task_list_opener(self, extra: str = "") -> str:
        """Return the title of a list of tasks."""
        return f"Tasks ({extra})" if extra else "Tasks"

    def print_help(self) -> None:
        """Print the tasks, then the flags of Invoke."""
        print_lines(["Usage: onebox [core flags] TASK [flags] [TASK [flags]] …", ""])
        self.list_tasks()
        print_lines(["Flags of a task: onebox --help TASK", "", "Core flags:", ""])
        self.print_columns(self.initial_context.help_tuples())

    def print_task_help(self, name: str) -> None:
        """Print the help of a task: its own flags, then those that all stages share."""
        task = self.collection[name]
        if not isinstance(task, Stage):
            super().print_task_help(name)
            return
        usage = f"Usage: onebox {name} [flags]"
        command = " [[--] COMMAND …]" if task.takes_command else ""
        text = (task.__doc__ or "").strip()
        print_lines([usage + command, "", *(line.strip() for line in text.split("\n"))])
        if task.takes_command:
            print_lines(["", *COMMAND_HELP])
        own, shared = _help_of_flags(self.parser.contexts[name])
        if own:
            print_lines(["", "Flags:", ""])
            self.print_columns(own)
        else:
            print_lines([""])
        print_lines(["Flags of every stage, for the whole command line:", ""])
        self.print_columns(shared)

    def execute(self) -> None:
        """Run the tasks; print a note if the folder is not a project."""
        if not self.is_project and any(task.name in _OF_A_BOX for task in self.tasks):
            note(
                f"onebox: there is no onebox.toml in {self.root} or above\n"
                "  next: onebox init, or cd to the project"
            )
        self.executes = True
        super().execute()

    def _reader(self) -> Reader:
        contexts = [
            (name, context)
            for context in self.collection.to_contexts()
            for name in (context.name or "", *context.aliases)
        ]
        return reader_of(contexts, self.initial_context)

    def _complete(self, line: str) -> None:
        with with_bytecode():
            from onebox.completion.candidates import candidates, split

        found = candidates(
            self._reader(), split(line), self._help_texts(), self._values
        )
        print_lines(f"{word}\t{text}" for word, text in found)

    def _values(self, flag: str) -> list[tuple[str, str]]:
        with with_bytecode():
            from onebox.completion.values import values_of

        return values_of(flag, self.root, os.environ)

    def _help_texts(self) -> Mapping[str, Mapping[str, str]]:
        texts: dict[str, dict[str, str]] = {}
        for context in [self.initial_context, *self.collection.to_contexts()]:
            name = context.name or ""
            flags = {
                flag: context.flags[flag].help or ""
                for flag in context.flag_names()
                if flag in context.flags
            }
            doc = (self.collection[name].__doc__ or "") if name else ""
            texts[name] = {**flags, "": doc.strip().partition("\n")[0]}
        return texts


def _explain(error: Exception) -> int:
    """Print an error of the time before the first task; return the exit code."""
    if isinstance(error, BrokenPipeError):
        discard_stdout()
        return 128 + signal.SIGPIPE
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        if error.filename is None:
            discard_stdout()
            note(f"onebox[74]: stdout cannot be written: {error.strerror}")
            return 74
        text = f"{error.filename} cannot be read: {error.strerror}"
    elif isinstance(error, ValueError):
        note(f"onebox[64]: the value of a flag is wrong: {text}\n  next: onebox --help")
        return 64
    else:
        text = f"Invoke's configuration cannot be read: {text}"
    note(f"onebox[78]: {text}\n  next: onebox --debug --list shows the traceback")
    return 78


def _help_of_flags(context: ParserContext) -> tuple[list[Any], list[Any]]:
    """Return the help of a stage's own flags, and that of the shared ones."""
    own: list[Any] = []
    shared: list[Any] = []
    for flag, argument in context.flags.items():
        part = shared if isinstance(argument, SharedArgument) else own
        part.append(context.help_for(flag))
    return own, shared


def main() -> None:
    """Run the command line of this process."""
    OneboxProgram().run()
