"""
Print messages, requested output and the job's output.

Messages go to stderr. Requested output (a plan, a status, a list) and the job's own
bytes go to stdout, so that after `inv run > job.log` the file contains only the job's
output. On a terminal one live line shows the progress. Elsewhere each event is one line
without control codes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from rich.table import Table
from rich.text import Text

from onebox import formatting
from onebox.command_hints import Hints
from onebox.errors import OneboxError
from onebox.ui import layout
from onebox.ui.byte_stream import ByteStream, shown_together
from onebox.ui.console import PipeSafeConsole, broken_pipes_ignored, consoles, is_tty
from onebox.ui.heartbeat import Heartbeat
from onebox.ui.json_document import document
from onebox.ui.layout import CHECK_WIDTH, NAME_WIDTH
from onebox.ui.progress import LiveLine, StageLine
from onebox.ui.table import STYLES, Cell, refreshed, table_of


class Screen:
    """
    Prints everything that the user sees.

    Args:
        hints: Spells the `inv` commands in messages as the user must type them.

        output: Called with each part of the job's output; None means stdout.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        hints: Hints | None = None,
        output: Callable[[bytes], None] | None = None,
    ) -> None:
        self.hints = hints or Hints()
        self.out, self.err = consoles(environ)
        # Two threads cannot share the live line of a terminal.
        self.live = self.err.is_terminal and (
            threading.current_thread() is threading.main_thread()
        )
        self.marks = layout.marks_for(self.err)
        self._footer_height = 0
        self.json = self.document_printed = False
        self.line_open = False
        self._taker = output
        self._stdout, self._stderr = ByteStream("stdout"), ByteStream("stderr")
        self.closed = False
        self._heartbeat = Heartbeat(self.say)
        self._live = LiveLine(
            self.err if self.live else None, self._heartbeat if not self.live else None
        )

    def headline(
        self,
        title: Sequence[str],
        more: Sequence[str],
        *,
        continued: bool = False,
        complete: bool = True,
    ) -> None:
        """
        Print the headline of a box: what it is, and below that what it can cost.

        Args:
            continued: Whether the beginning of the headline is already printed.

            complete: Whether the headline ends here, with an empty line.
        """
        first = "   ".join(part for part in title if part)
        self._say(
            Text.assemble(("        " if continued else "onebox  ", "bold"), first)
        )
        for line in more:
            self._say(Text(f"        {self.hints.spell(line)}"))
        if complete:
            self._say(Text(""))

    @contextlib.contextmanager
    def about(self, name: str) -> Iterator[None]:
        """
        Add `--name` with the box name *name* to the commands in messages of the body.

        Errors that the body raises are changed in the same way.
        """
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
    def stage(self, name: str, *, kept: bool = True) -> Iterator[StageLine]:
        """Show a stage while the body runs; if *kept*, then print its result."""
        began = time.monotonic()
        self.close_line()
        with self._live.line(f"{name:<{NAME_WIDTH}}", began) as line:
            try:
                yield line
            except BaseException as error:
                # A signal that came when the stage had ended did not stop it.
                if isinstance(error, Exception) or not line.ended:
                    line.mark = "failed"
                raise
            finally:
                self._live.stop()
                spent = formatting.seconds(time.monotonic() - began)
                if kept:
                    self.print_stage(name, line.mark, line.result or spent, line.detail)

    def print_stage(self, name: str, mark: str, result: str, detail: str = "") -> None:
        """Print the line that shows the result of a finished stage."""
        self._line(self.err, name, mark, result, self.hints.spell(detail))

    def plan_line(self, name: str, mark: str, result: str, detail: str) -> None:
        """Print one line of the plan, to stdout."""
        self._line(self.out, name, mark, result, self.hints.spell(detail))

    def plan_headline(self, title: Sequence[str], more: Sequence[str]) -> None:
        """Print the headline of a plan to stdout, with an empty line at its end."""
        first = "   ".join(part for part in title if part)
        self._print_hanging(self.out, Text.assemble(("onebox  ", "bold"), first))
        for line in more:
            self.plan_detail(line)
        self.print()

    def plan_detail(self, text: str) -> None:
        """Print a line below one of the plan, to stdout."""
        self.print(f"        {self.hints.spell(text)}")

    def check(self, name: str, mark: str, detail: str) -> None:
        """
        Print the result of one check of `inv doctor`, to stdout.

        Each line of *detail* is one on the screen. With *name* and *mark* "", the text
        continues the check before it.
        """
        for line in self.hints.spell(detail).split("\n"):
            sign = Text(self.marks.get(mark, " "), STYLES.get(mark, ""))
            if self.out.is_terminal:
                row = (Text(name, "bold"), sign, Text(line))
                self._print(self.out, layout.columns((CHECK_WIDTH, 1), row))
            else:
                self._print(self.out, Text(f"{name:<{CHECK_WIDTH}} {sign} {line}"))
            name = mark = ""

    def _line(
        self, console: PipeSafeConsole, name: str, mark: str, result: str, detail: str
    ) -> None:
        sign = self.marks[mark]
        if not console.is_terminal:
            text = f"{name:<{NAME_WIDTH}} {sign} {result}  {detail}".rstrip()
            self._print(console, Text(text))
            return
        row = layout.stage_row(
            name, mark, Text(sign, STYLES[mark]), result, detail, console.width
        )
        self._print(console, row)

    def note(self, text: str) -> None:
        """Print a note."""
        self.clear_footer()
        self._indented(Text(self.hints.spell(text)))

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.clear_footer()
        # Only the mark is yellow: a whole text in yellow is hard to read on white.
        mark = (self.marks["warn"], STYLES["warn"])
        self._indented(Text.assemble(mark, f" {self.hints.spell(text)}"))

    def error(self, error: OneboxError) -> None:
        """
        Print an error, what is still running, and the command to type next.

        The number in its first line is the exit code; docs/exit-codes.md explains it.
        """
        self.clear_footer()
        running, next = self.hints.spell(error.running), self.hints.spell(error.next)
        if self.json and not self.document_printed:
            fields = {
                "kind": type(error).__name__,
                "message": error.message,
                "running": running,
                "next": next,
                "exit": error.code,
            }
            self.print_json("error", {"error": fields})
        self._say(Text(f"onebox[{error.code}]: {error.message}", STYLES["failed"]))
        for line in running.splitlines():
            self._say(Text(f"        {line.strip()}"))
        for n, line in enumerate(next.splitlines()):
            self._say(Text(f"{'        ' if n else '  next: '}{line}"))

    def say(self, text: str = "", begin: int = 0) -> None:
        """Print a line without colour to stderr; *begin* is as in `layout.hanging`."""
        self.clear_footer()
        self._say(Text(self.hints.spell(text)), begin)

    def print(self, text: str = "") -> None:
        """Print a line of requested output, to stdout."""
        self._print_hanging(self.out, Text(text))

    def print_json(self, kind: str, fields: Mapping[str, object]) -> None:
        """Print the one document of a command with `--json`, to stdout."""
        self.document_printed = True
        self.close_line()
        with broken_pipes_ignored():
            self.out.plain(document(kind, fields))

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str | Cell]],
        *,
        shorten: str = "",
    ) -> None:
        """
        Print a table of requested output, to stdout.

        Args:
            shorten: The title of the column whose texts are cut if the table does not
                fit the terminal. "" means that texts continue on the next line.
        """
        if not self.out.is_terminal:
            for row in [head, *rows]:
                cells = (cell if isinstance(cell, str) else cell.text for cell in row)
                self._print(self.out, Text("\t".join(cells)))
            return
        self._print(self.out, table_of(head, rows, self.out.width, shorten))

    @contextlib.contextmanager
    def refreshed_table(
        self,
    ) -> Iterator[Callable[[str, Sequence[str], Sequence[Sequence[str]]], None]]:
        """
        Yield a function that prints a title and a table, to stdout.

        It takes the title, the heads of the columns and the rows. On a terminal, each
        call replaces what the previous one has printed.
        """
        if self.out.is_terminal:
            with refreshed(self.out) as show:
                yield show
        else:
            yield lambda title, head, rows: self.table(head, rows)

    @property
    def problem(self) -> str:
        """Return why stdout cannot be written; "" if it can, or its reader is gone."""
        return self.out.problem or self._stdout.problem

    @property
    def can_ask(self) -> bool:
        """Return whether a user at a terminal can answer a question."""
        return self.live and is_tty(sys.stdin)

    def ask(self, question: str, expected: str) -> bool:
        """
        Print a question, and return whether the user types the expected word.

        Without a terminal, nothing is printed and the result is False.
        """
        if not self.can_ask:
            return False
        self.clear_footer()
        with self._live.paused():
            self._say(Text(question))
            try:
                return input("> ").strip() == expected
            except EOFError:
                return False

    def output(self, data: bytes) -> None:
        """
        Write the job's own bytes to stdout, unchanged.

        If the reader closes the pipe (`inv run | head`), `closed` is set and nothing
        more is written. The job continues.
        """
        if self.closed or not data:
            return
        if self._taker is not None:
            self._taker(data)
            return
        if sys.stdout is None:
            # Stdout was closed on purpose (`>&-`), and the log has the output.
            return
        self.clear_footer()
        with broken_pipes_ignored():
            # A user's task may have printed text that is still buffered. It must come
            # before the job's bytes.
            sys.stdout.flush()
        if shown_together(self._stdout, self._stderr):
            self._heartbeat.reset()
        with self._live.paused() as drawn:
            if not self._stdout.write(data):
                self.closed, self.line_open = True, False
                return
            self.line_open = not data.endswith(b"\n")
            if drawn:
                self.close_line()

    def setup_output(self, data: bytes) -> None:
        """
        Write the output of a set-up script to stderr, unchanged.

        If *data* ends in the middle of a line, the caller must end that line before
        anything else is printed.
        """
        self.clear_footer()
        # If stderr is closed, descriptor 2 may belong to any other file.
        self._heartbeat.reset()
        if sys.stderr is not None and not self.err.quiet:
            self.err.quiet = not self._stderr.write(data)

    def footer(self, text: str) -> None:
        """
        Show *text*, of one line or several, below the job's output.

        Without a terminal it is printed if there was no other line for some time.
        """
        if not self.live:
            self._heartbeat.beat("; ".join(text.splitlines()))
        if not self.live or (self.line_open and self.out.is_terminal):
            return
        lines = layout.footer_lines(text, self.err)
        self._raw(layout.removed(self._footer_height) + "\r\n".join(lines))
        self._footer_height = len(lines)

    def clear_footer(self) -> None:
        """Remove the footer, so that a line can be printed in its place."""
        if self._footer_height:
            self._raw(layout.removed(self._footer_height))
            self._footer_height = 0

    def close_line(self) -> None:
        """Start a new line if the job's output did not end with a newline."""
        self.clear_footer()
        if self.line_open and shown_together(self._stdout, self._stderr):
            self._stderr.write(b"\n")
        self.line_open = False

    def bell(self) -> None:
        """Ring the bell of the terminal."""
        if self.live:
            self._raw("\a")

    def output_gone(self, count: int) -> None:
        """Print, in place of the job's output, how many bytes of it were dropped."""
        self.close_line()
        self.say(f"[onebox: {formatting.byte_count(count)} of output were dropped]")

    def _indented(self, text: Text) -> None:
        if not self.live:
            self._say(Text.assemble(" " * (NAME_WIDTH + 1), text))
            return
        self._print(self.err, layout.columns((NAME_WIDTH,), ("", text)))

    def _say(self, text: Text, begin: int = 0) -> None:
        self._print_hanging(self.err, text, begin)

    def _print_hanging(self, to: PipeSafeConsole, text: Text, begin: int = 0) -> None:
        """Print a line; on a terminal, the rest of a long one is indented."""
        self._print(to, layout.hanging(text, begin) if to.is_terminal else text)

    def _print(self, console: PipeSafeConsole, content: Text | Table) -> None:
        if console is self.err:
            self.close_line()
            self._heartbeat.reset()
        with broken_pipes_ignored():
            if isinstance(content, Text) and not console.is_terminal:
                console.plain(content.plain)
            else:
                console.print(content)
        self.closed = self.closed or self.out.quiet

    def _raw(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, text.encode("utf-8", "replace"))
