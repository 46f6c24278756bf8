"""
The screen: all that onebox says goes through it.

What onebox itself says goes to stderr; what a command is asked to print (a
plan, a status, a list) and the job's own bytes go to stdout, so that
`inv run > job.log` is the job's output and nothing else. On a terminal one live
line shows what happens; elsewhere each event is one line without control codes.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onebox import formatting
from onebox.command_hints import Hints
from onebox.errors import OneboxError
from onebox.ui.console import (
    PipeSafeConsole,
    broken_pipes_ignored,
    is_tty,
    poured,
    read_together,
)
from onebox.ui.progress import LiveLine, StageLine

NAME_WIDTH = 10
RESULT_WIDTH = 18
MARKS = {"done": "✓", "failed": "✗", "kept": "•", "warn": "!"}
PLAIN_MARKS = {"done": "ok", "failed": "FAILED", "kept": "-", "warn": "!"}
STYLES = {"done": "green", "failed": "bold red", "kept": "yellow", "warn": "yellow"}


class Screen:
    """Where onebox talks to its user; *hints* spells the commands that it names."""

    def __init__(self, environ: Mapping[str, str], hints: Hints | None = None) -> None:
        self.hints = hints or Hints()
        able = environ.get("TERM") not in ("dumb", "unknown")
        # Said outright, or FORCE_COLOR would put control codes into a pipe.
        err, out = able and is_tty(sys.stderr), able and is_tty(sys.stdout)
        self.err = PipeSafeConsole(stderr=True, highlight=False, force_terminal=err)
        self.out = PipeSafeConsole(highlight=False, force_terminal=out)
        self.live = err
        for stream in (sys.stdout, sys.stderr):
            # A name that the user's encoding lacks must not end the work.
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
        self.marks = MARKS if _says_unicode(self.err) else PLAIN_MARKS
        self.footer_shown = False
        self.line_open = False
        # Without a stdout (`>&-`), 1 may be any file of ours.
        self.closed = sys.stdout is None
        self._live = LiveLine(self.err if err else None)

    def headline(
        self,
        title: Sequence[str],
        more: Sequence[str],
        *,
        begun: bool = False,
        whole: bool = True,
    ) -> None:
        """
        Say what is about to happen, where, and what it may cost at most.

        Args:
            begun: Its first line stands already: these follow.

            whole: It ends with these lines.
        """
        first = "   ".join(part for part in title if part)
        self._say(Text.assemble(("        " if begun else "onebox  ", "bold"), first))
        for line in more:
            self._say(Text(f"        {self.hints.spell(line)}"))
        if whole:
            self._say(Text(""))

    @contextlib.contextmanager
    def about(self, name: str) -> Iterator[None]:
        """Speak of another box meanwhile; so does an error that comes of it."""
        usual, self.hints = self.hints, replace(self.hints, name=name)
        try:
            yield
        except OneboxError as error:
            error.running = self.hints.spell(error.running)
            error.next = self.hints.spell(error.next)
            raise
        finally:
            self.hints = usual

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageLine]:
        """Show a stage while it runs, and leave one line when it has ended."""
        began = time.monotonic()
        self.close_line()
        with self._live.line(f"{name:<{NAME_WIDTH}}", began) as line:
            try:
                yield line
            except BaseException:
                line.mark = "failed"
                line.result = line.result or formatting.seconds(
                    time.monotonic() - began
                )
                raise
            finally:
                self._live.stop()
                spent = formatting.seconds(time.monotonic() - began)
                self.line(name, line.mark, line.result or spent, line.detail)

    def line(self, name: str, mark: str, result: str, detail: str = "") -> None:
        """Print one finished line of the table of stages."""
        self._line(self.err, name, mark, result, self.hints.spell(detail))

    def plan_line(self, name: str, mark: str, result: str, detail: str) -> None:
        """Print one line of the plan, to stdout."""
        self._line(self.out, name, mark, result, detail)

    def check(self, name: str, mark: str, detail: str) -> None:
        """Print one line of what the doctor saw, to stdout."""
        text = f"{name:<16} {self.marks[mark]} {self.hints.spell(detail)}"
        self._print(self.out, Text(text, "" if mark == "done" else STYLES[mark]))

    def _line(
        self, console: PipeSafeConsole, name: str, mark: str, result: str, detail: str
    ) -> None:
        sign = self.marks[mark]
        if not console.is_terminal:
            text = f"{name:<{NAME_WIDTH}} {sign} {result}  {detail}".rstrip()
            self._print(console, Text(text))
            return
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=NAME_WIDTH)
        grid.add_column(min_width=1, no_wrap=True, style=STYLES[mark])
        grid.add_column(min_width=RESULT_WIDTH)
        grid.add_column(overflow="fold")
        grid.add_row(Text(name, "bold"), sign, Text(result), Text(detail, "dim"))
        self._print(console, grid)

    def note(self, text: str) -> None:
        """Say one thing worth knowing."""
        self.clear_footer()
        self._indented(Text(self.hints.spell(text)))

    def warn(self, text: str) -> None:
        """Say one thing that the user should not miss."""
        self.clear_footer()
        text = f"{self.marks['warn']} {self.hints.spell(text)}"
        self._indented(Text(text, STYLES["warn"]))

    def error(self, error: OneboxError) -> None:
        """Say what went wrong, what still runs and what to type next."""
        self.clear_footer()
        self._say(Text(f"onebox: {error.message}", STYLES["failed"]))
        if error.running:
            self._say(Text(f"        {self.hints.spell(error.running)}"))
        if error.next:
            self._say(Text(f"  next: {self.hints.spell(error.next)}"))

    def say(self, text: str = "") -> None:
        """Print a plain line of our own."""
        self.clear_footer()
        self._say(Text(self.hints.spell(text)))

    def print(self, text: str = "") -> None:
        """Print a line of what the command was asked for, to stdout."""
        self._print(self.out, Text(text))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table of what the command was asked for, to stdout."""
        if not self.out.is_terminal:
            for row in [head, *rows]:
                self._print(self.out, Text("\t".join(row)))
            return
        grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for title in head:
            grid.add_column(title, overflow="fold")
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        self._print(self.out, grid)

    @property
    def can_ask(self) -> bool:
        """Tell whether somebody sits at a terminal who could answer."""
        return bool(sys.stdin and sys.stdin.isatty() and self.live)

    def ask(self, question: str, wanted: str) -> bool:
        """Ask for a typed word; without a terminal the answer is no."""
        if not self.can_ask:
            return False
        self.clear_footer()
        with self._live.still():
            self._say(Text(question))
            try:
                return input("> ").strip() == wanted
            except EOFError:
                return False

    def output(self, data: bytes) -> None:
        """
        Pass on the job's own bytes, untouched.

        A reader that has gone away (`inv run | head`) sets *closed*: from then
        on nothing is written, and the job is not disturbed.
        """
        if self.closed or not data:
            return
        self.clear_footer()
        with broken_pipes_ignored():
            # What a user's task has printed before stays before.
            sys.stdout.flush()
        with self._live.still() as drawn:
            if not poured(1, data):
                self.closed, self.line_open = True, False
                return
            self.line_open = not data.endswith(b"\n")
            if drawn:
                self.close_line()

    def said(self, data: bytes) -> None:
        """
        Pass on what a set-up says, untouched: to stderr, it is no job's output.

        A line that is left open must be closed before anything else is printed.
        """
        self.clear_footer()
        # Without a stderr, 2 may be any file of ours.
        if sys.stderr is not None and not self.err.quiet:
            self.err.quiet = not poured(2, data)

    def footer(self, text: str) -> None:
        """Show how the job is doing, below its output; a terminal only."""
        if not self.live or (self.line_open and self.out.is_terminal):
            return
        columns = max(self.err.width - 1, 20)
        self._raw(f"\r\x1b[2K{_dim(text[:columns], self.err)}")
        self.footer_shown = True

    def clear_footer(self) -> None:
        """Take the footer away, so that a line can be printed in its place."""
        if self.footer_shown:
            self._raw("\r\x1b[2K")
            self.footer_shown = False

    def close_line(self) -> None:
        """Begin a new line if the job's last one was left open."""
        self.clear_footer()
        if self.line_open and sys.stderr is not None and read_together():
            self._raw("\n")
        self.line_open = False

    def output_gone(self, count: int) -> None:
        """Say, where they would stand, that bytes of the job's are not there."""
        self.close_line()
        self.say(
            f"[onebox: {formatting.byte_count(count)} of output are no longer there]"
        )

    def _indented(self, text: Text) -> None:
        if not self.live:
            self._say(Text.assemble(" " * (NAME_WIDTH + 1), text))
            return
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=NAME_WIDTH)
        grid.add_column()
        grid.add_row("", text)
        self._print(self.err, grid)

    def _say(self, text: Text) -> None:
        self._print(self.err, text)

    def _print(self, console: PipeSafeConsole, what: Text | Table) -> None:
        if console is self.err:
            self.close_line()
        with broken_pipes_ignored():
            if isinstance(what, Text) and not console.is_terminal:
                console.plain(what.plain)
            else:
                console.print(what)
        self.closed = self.closed or self.out.quiet

    def _raw(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, text.encode("utf-8", "replace"))


def _dim(text: str, console: Console) -> str:
    return text if console.no_color else f"\x1b[2m{text}\x1b[0m"


def _says_unicode(console: Console) -> bool:
    try:
        "".join(MARKS.values()).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
