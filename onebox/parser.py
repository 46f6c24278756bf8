"""
Explain mistakes in command lines; this module wraps Invoke's parser.

`inv` runs Invoke's own program, which prints the text of a `ParseError` and exits with
1. Its messages do not suggest a correct line, and name a Python class in place of an
unknown flag. Invoke has no hook for them, so `Parser.parse_argv` is wrapped when onebox
is imported. Lines without a stage are parsed and reported as Invoke does.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit, ParseError
from invoke.parser.parser import Parser

from onebox import early_interrupt
from onebox.command_hints import program_name
from onebox.errors import ConfigError
from onebox.flags import EXAMPLES, SHARED_FLAGS, FlagStore, SharedArgument
from onebox.invoke_internals import share_contexts
from onebox.providers import with_bytecode
from onebox.ui.plain import print_lines

if TYPE_CHECKING:
    from invoke.context import Context
    from invoke.parser.context import ParserContext
    from invoke.parser.parser import ParseResult

    from onebox.command_line import Reader
    from onebox.line_values import Given, Known, Mistake

# Names that tasks had in earlier versions, such as in crontab lines.
EARLIER_NAMES = {"sweep": "cleanup"}


class Remainder(str):
    """
    The words after `--` as Invoke passes them on: one string, joined with spaces.

    Attributes:
        words: The words as they were typed.

        warning: A warning about these words, "" if there is none.
    """

    words: tuple[str, ...]
    warning: str

    def __new__(cls, words: Iterable[str], warning: str = "") -> Remainder:
        """Join *words*, and keep them."""
        words = tuple(words)
        remainder = super().__new__(cls, " ".join(words))
        remainder.words, remainder.warning = words, warning
        return remainder


class WrongLine(ParseError, Exit):
    """
    A mistake in the command line, which Invoke prints; the exit code is 64.

    It is a ParseError because Invoke's completion expects one, and an Exit because that
    has an exit code.
    """

    def __init__(self, text: str, context: ParserContext | None = None) -> None:
        ParseError.__init__(self, text, context)
        Exit.__init__(self, None, code=64)
        self.text = text

    def __str__(self) -> str:
        """Return the text that Invoke prints."""
        return self.text


@contextmanager
def error_documents() -> Iterator[None]:
    """
    Print an error of the body as a JSON document too, if the line has `--json`.

    For errors before a stage runs; those of stages are printed by the screen.
    """
    try:
        yield
    except Exit as error:
        text = error.text if isinstance(error, WrongLine) else error.message
        typed = sys.argv[1:]
        typed = typed[: typed.index("--")] if "--" in typed else typed
        if text and any(word.partition("=")[0] == "--json" for word in typed):
            print_lines([_document(text, error.code)])
        raise


def _document(text: str, code: int) -> str:
    """Return an error, whose lines Invoke prints, as a JSON document."""
    with with_bytecode():
        from onebox.ui.json_document import document

    first, _, hint = text.partition("\n")
    fields = {
        "kind": "ConfigError" if code == ConfigError.code else "UsageError",
        "message": first.partition("]: ")[2],
        "running": "",
        "next": hint.strip().partition(": ")[2],
        "exit": code,
    }
    return document("error", {"error": fields})


def remainder_of(c: Context) -> list[str]:
    """
    Return the words after `--`, each as it was typed.

    Invoke joins the words with spaces, which loses the quoting. The words are
    therefore read from `sys.argv` if they match what Invoke parsed.
    """
    if isinstance(c.remainder, Remainder):
        return list(c.remainder.words)
    if "--" in sys.argv:
        words = sys.argv[sys.argv.index("--") + 1 :]
        if " ".join(words) == c.remainder:
            return words
    try:
        return shlex.split(c.remainder)
    except ValueError as error:
        raise Exit(f"onebox[64]: after --: {error}", code=64) from error


def warnings_of(c: Context) -> tuple[str, ...]:
    """Return the warnings about the command on the line that *c* belongs to."""
    warning = getattr(c.remainder, "warning", "")
    return (warning,) if warning else ()


def reader_of(
    contexts: Iterable[tuple[str, ParserContext]], core: ParserContext | None
) -> Reader:
    """
    Return a reader of lines with these tasks.

    Args:
        contexts: What Invoke's parser knows about each task, by all of its names.

        core: What it knows about Invoke's own flags.
    """
    with with_bytecode():
        from onebox.command_line import Reader
        from onebox.line_values import Known

    tasks = {name: _known(context) for name, context in contexts}
    own = _known(core) if core is not None else Known("", {})
    return Reader(tasks, own, EXAMPLES)


def _known(context: ParserContext) -> Known:
    from onebox.line_values import Known

    arguments = set(context.args.values())
    stage = next((a.stage for a in arguments if isinstance(a, SharedArgument)), None)
    flags: dict[str, bool | None] = dict.fromkeys(context.inverse_flags, False)
    for flag in context.flag_names():
        if flag in context.flags:
            argument = context.flags[flag]
            flags[flag] = None if argument.optional else bool(argument.takes_value)
    return Known(
        context.name or "",
        flags,
        positionals=len(context.missing_positional_args),
        is_stage=stage is not None,
        takes_command=getattr(stage, "takes_command", False),
        read_only=getattr(stage, "read_only", False),
        is_plan=stage is not None and stage.builtin and stage.name == "plan",
        is_map=stage is not None and stage.builtin and stage.name == "map",
    )


def wrong_line(
    mistake: Mistake, before: Sequence[str] = (), command: Sequence[str] | None = None
) -> str:
    """
    Return the message about a mistake.

    Args:
        before: The words of the line before those that *mistake* is about.

        command: The command after the line, if it is not what follows `--`.
    """
    program = program_name()
    after = _after_dashes() if command is None else (command and ["--", *command])
    text = f"onebox[64]: {mistake.problem}"
    if mistake.line is not None:
        lines = " or ".join(
            shlex.join([program, *before, *line, *after])
            for line in (mistake.line, *mistake.other_lines)
        )
        return f"{text}\n  did you mean: {lines}"
    hint = mistake.advice or (mistake.next and f"{program} {mistake.next}")
    return f"{text}\n  next: {hint}" if hint else text


def is_program(word: str) -> bool:
    """Return whether a word names a program of this machine, or a file here."""
    return shutil.which(word) is not None or os.path.isfile(word)  # noqa: PTH113 - pathlib costs time


def _after_dashes() -> list[str]:
    """Return the part of the typed line from `--` on."""
    return sys.argv[sys.argv.index("--") :] if "--" in sys.argv else []


def _as_typed(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Return the typed words that Invoke has parsed already, and those of *words*.

    Invoke has parsed its own flags before the first task. If it did not know the first
    word and that is a flag, it has split it: `-vm` into `-v` and `-m`.
    """
    typed = sys.argv[1:]
    if "--" in typed:
        typed = typed[: typed.index("--")]
    for place, word in enumerate(typed):
        rest = typed[place + 1 :]
        parts = [f"-{letter}" for letter in word[1:]]
        if word.startswith("-") and [*parts, *rest] == list(words):
            return typed[:place], typed[place:]
        if [word, *rest] == list(words):
            return typed[:place], typed[place:]
    return [], list(words)


if hasattr(Parser, "parse_argv"):
    _parse_argv = Parser.parse_argv


@error_documents()
def _parse(self: Parser, argv: list[str]) -> ParseResult:
    """Parse a line as Invoke does; explain a mistake that concerns a stage."""
    if not self.contexts:
        if program_name() == "onebox":
            _refuse_wrong_value(self, reader_of([], self.initial), argv, [])
        return _parse_argv(self, argv)
    share_contexts(self.contexts)
    result = _parse_tasks(self, argv)
    if not _begins_with_stage(result):
        early_interrupt.end()
    return result


def _begins_with_stage(result: ParseResult) -> bool:
    """Return whether no code of the user runs before a stage or a list."""
    # Invoke's own flags are a context without a name.
    for context in result:
        if context.name:
            for argument in context.args.values():
                if isinstance(argument, SharedArgument):
                    return not argument.stage.pre
            return False
    # Without a task, the user's default task runs, unless the line asks for a list.
    return not {"-h", "--help", "-l", "--list"}.isdisjoint(sys.argv)


def _parse_tasks(self: Parser, argv: list[str]) -> ParseResult:
    if not argv or not _has_stage(self):
        return _parse_argv(self, argv)
    reader = reader_of(self.contexts.items(), self.initial)
    before, words = _as_typed(argv)
    reading = reader.read(words)
    if reading.problem == "word":
        _use_present_name(reader, words, reading.index)
        reading = reader.read(words)
    _refuse_wrong_value(self, reader, words, before)
    # Invoke accepts these lines, with another meaning: `--into --dry` as a folder
    # called "--dry", and `-dry` as `-d -r y`. Both would run the job.
    accepted = reading.problem == "value" or (
        reading.problem == "flag" and not words[reading.index].startswith("--")
    )
    if accepted and reading.task.is_stage:
        explained = _explained(self, reader, words, before)
        if explained is not None:
            raise explained
    try:
        parsed = _parse_argv(self, words)
    except ParseError as error:
        explained = _explained(self, reader, words, before)
        if explained is None:
            raise
        raise explained from error
    with with_bytecode():
        from onebox.contradictions import refuse

    refuse(parsed, reader, words, before, _typed_after(words))
    _refuse_change_after_plan(self, reader, words, before)
    return parsed


def _refuse_wrong_value(
    parser: Parser, reader: Reader, words: list[str], before: list[str]
) -> None:
    """Raise WrongLine if a flag's value is no number, or if it has two values."""
    with with_bytecode():
        from onebox.flag_mistakes import wrong_value

    def argument_of(given: Given) -> Any:
        name: Any = given.task.name
        for context in (parser.contexts.get(name), parser.initial):
            if context is not None and given.flag in context.flags:
                return context.flags[given.flag]
        return None

    mistake = wrong_value(words, reader.read(words).given, argument_of)
    if mistake and (mistake.about_stage or program_name() == "onebox"):
        FlagStore.clear()
        raise WrongLine(wrong_line(mistake, before, _typed_after(words)))


def _refuse_change_after_plan(
    parser: Parser, reader: Reader, words: list[str], before: list[str]
) -> None:
    """
    Refuse a line with `plan` and a stage that changes something.

    Raises:
        WrongLine: The text has a line for each of the two.
    """
    if {"--dry", "-R"}.intersection(before):
        return
    with with_bytecode():
        from onebox.plan_line import explain_plan

    shared = {f"--{name}" for name in (*SHARED_FLAGS, "no-spot")}
    changing, lines = explain_plan(reader, words, _typed_after(words), shared)
    if changing:
        FlagStore.clear()
        program = program_name()
        typed = "\n        ".join(shlex.join([program, *before, *one]) for one in lines)
        raise WrongLine(
            f"onebox[64]: plan changes nothing, so {' and '.join(changing)} cannot be "
            f"on the same line\n  next: {typed}",
            parser.contexts.get(reader.read(words).task.name),
        )


def _typed_after(words: Sequence[str]) -> list[str]:
    """Return the command that was typed after *words*, without its dashes."""
    typed = sys.argv[1:]
    for start in range(len(typed) - len(words) + 1):
        end = start + len(words)
        if typed[start:end] == list(words):
            return typed[end + 1 :] if typed[end : end + 1] == ["--"] else typed[end:]
    return []


def _has_stage(parser: Parser) -> bool:
    return any(
        isinstance(argument, SharedArgument)
        for context in parser.contexts.values()
        for argument in context.args.values()
    )


def _use_present_name(reader: Reader, words: list[str], index: int) -> None:
    """Replace an earlier name of a task, at *index*, by the present name."""
    namespace, dot, name = words[index].rpartition(".")
    present = f"{namespace}{dot}{EARLIER_NAMES.get(name)}"
    if present in reader.tasks:
        words[index] = present


def _explained(
    parser: Parser, reader: Reader, words: list[str], before: list[str]
) -> WrongLine | None:
    """Return the exception for a mistake in a line; None to keep Invoke's own."""
    reading = reader.read(words)
    mistake = reader.explain(words, reading, is_program)
    if mistake is None or not (mistake.about_stage or program_name() == "onebox"):
        return None
    FlagStore.clear()
    if reading.problem == "flag" and mistake.line is None and mistake.next:
        from onebox.flag_mistakes import with_setting

        mistake = with_setting(mistake, words[reading.index])
    name: Any = reading.task.name
    context = parser.contexts.get(name)
    return WrongLine(wrong_line(mistake, before), context)


def install() -> None:
    """Wrap Invoke's parser; an Invoke without this method keeps its own messages."""
    if hasattr(Parser, "parse_argv"):
        Parser.parse_argv = _parse  # type: ignore[method-assign] # Invoke has no hook


install()
