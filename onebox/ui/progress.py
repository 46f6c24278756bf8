"""Show the stage that is running as a live line on a terminal."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.constrain import Constrain
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from onebox import formatting
from onebox.signals import signals_delayed
from onebox.ui.console import broken_pipes_ignored
from onebox.ui.heartbeat import Heartbeat


@dataclass
class StageLine:
    """
    The line of the running stage; call `end` to set its result.

    Attributes:
        doing: Shows what the stage does, without a bar.

        progress: Shows a transfer; see `transfer.progress.Progress`.

        saved: Shows how much of a disk is saved; see `SaveProgress`.
    """

    doing: Callable[[str], None]
    progress: Callable[[int, int, int, int], None]
    saved: Callable[[float, int], None]
    mark: str = "done"
    result: str = ""
    detail: str = ""
    ended: bool = False

    def end(self, result: str = "", detail: str = "", mark: str = "done") -> None:
        """
        Set the text of the finished line.

        If *result* is "", the line shows the time that the stage took.
        """
        self.result, self.detail, self.mark = result, detail, mark
        self.ended = True


class _TotalBar(BarColumn):
    """A bar that is shown only if the total is known."""

    # rich prints what `render` returns; its own type names the bar only.
    def render(self, task: Task) -> ProgressBar | Text:  # type: ignore[override]
        """Return the bar, or nothing: an empty bar would look like a full one."""
        known = task.total and task.fields["bar"]
        return super().render(task) if known else Text("")


# A text of a live line with its rank: the highest rank is left out first.
Part = tuple[int, str]


class _Bar(Progress):
    """
    A progress bar that updates its elapsed time at each refresh.

    Attributes:
        line_width: The most columns that the line may have.

        text_width: The columns for time, bar and text.
    """

    began = 0.0
    line_width = text_width = 77
    bar_width = 8

    def get_renderables(self) -> Iterator[Constrain]:
        for task in self.tasks:
            spent = task.fields["spent"] = _spent(self.began)
            taken = len(spent) + (self.bar_width if task.fields["bar"] else 0)
            text = _fitting(task.fields["parts"], self.text_width - taken)
            task.description = text
        yield Constrain(self.make_tasks_table(self.tasks), self.line_width)


class LiveLine:
    """
    A line on a console that changes while a stage runs.

    Args:
        console: None if there is no terminal. A long stage then prints a line from time
            to time, by *heartbeat*.
    """

    def __init__(
        self, console: Console | None, heartbeat: Heartbeat | None = None
    ) -> None:
        self._console, self._heartbeat = console, heartbeat
        self._bar: Progress | None = None

    @contextlib.contextmanager
    def line(self, name: str, began: float) -> Iterator[StageLine]:
        """Yield the line that a stage updates; it is removed at the end."""
        if self._console is None:
            with self._beating(name, began) as line:
                yield line
            return
        width = self._console.width
        bar_width = 16 if width >= 100 else 8 if width >= 60 else 0
        bar = _Bar(
            TextColumn(f"[bold]{name}", markup=True),
            SpinnerColumn("line", style="bold"),
            TextColumn("{task.fields[spent]}"),
            _TotalBar(bar_width=bar_width),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        bar.began, bar.bar_width = began, bar_width
        # A terminal prints ^C after the line. In the last column, it would begin a new
        # line, and the bar could not be removed.
        bar.line_width = max(width - len("^C") - 1, 1)
        # Name, spinner, time and bar are followed by a space each.
        bar.text_width = bar.line_width - len(name) - 1 - 2 - 1 - 1
        task = bar.add_task("", total=None, spent="", bar=False, parts=())
        self._bar = bar

        def doing(text: str) -> None:
            bar.update(task, parts=((0, text),), bar=False)

        def progress(files: int, of_files: int, done: int, total: int) -> None:
            spent = max(time.monotonic() - began, 0.001)
            parts = _transfer(files, of_files, done, total, spent)
            total = max(total, 1)
            shown = bool(bar_width)
            bar.update(task, completed=done, total=total, parts=parts, bar=shown)

        estimate = _Estimate()

        def saved(fraction: float, total: int) -> None:
            if math.isnan(fraction):
                return
            fraction = min(max(fraction, 0.0), 1.0)
            left = estimate.left(fraction, time.monotonic())
            parts = _saved(fraction, total, left)
            # The spinner disappears when the total is reached, but the cloud may still
            # need some time then.
            done = min(fraction, 0.999)
            shown = bool(bar_width)
            bar.update(task, completed=done, total=1, parts=parts, bar=shown)

        try:
            with _drawing():
                bar.start()
            yield StageLine(doing, progress, saved)
        finally:
            self.stop()

    @contextlib.contextmanager
    def _beating(self, name: str, began: float) -> Iterator[StageLine]:
        """Yield a line whose text is printed from time to time."""
        shown, estimate = [""], _Estimate()

        def doing(text: str) -> None:
            shown[0] = text

        def progress(files: int, of_files: int, done: int, total: int) -> None:
            spent = max(time.monotonic() - began, 0.001)
            parts = _transfer(files, of_files, done, total, spent)
            shown[0] = _fitting(parts)

        def saved(fraction: float, total: int) -> None:
            if not math.isnan(fraction):
                left = estimate.left(fraction, time.monotonic())
                shown[0] = _fitting(_saved(fraction, total, left))

        def text() -> str:
            return f"{name} - {_spent(began).strip()}  {shown[0]}".rstrip()

        line = StageLine(doing, progress, saved)
        if self._heartbeat is None:
            yield line
            return
        with self._heartbeat.beating(text):
            yield line

    @contextlib.contextmanager
    def paused(self) -> Iterator[bool]:
        """
        Remove the line during the body, which prints or reads input.

        Yields:
            Whether there was a line. If so, the line is drawn again after the body.
        """
        bar = self._bar
        if bar is None:
            yield False
            return
        with _drawing():
            bar.stop()
        yield True
        with _drawing():
            bar.start()

    def stop(self) -> None:
        """Remove the line."""
        if self._bar is not None:
            with _drawing():
                bar, self._bar = self._bar, None
                bar.stop()


class _Estimate:
    """
    The time until a fraction is 1, from how fast it has grown.

    If the fraction becomes smaller, the estimate begins again.
    """

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._latest = 0.0

    def left(self, fraction: float, now: float) -> float | None:
        """Return the seconds that are left, None if they are not known yet."""
        if self._first is None or fraction < self._latest:
            self._first = (fraction, now)
        self._latest = fraction
        grown, spent = fraction - self._first[0], now - self._first[1]
        if grown <= 0 or spent <= 0.5 or fraction >= 1:
            return None
        return spent * (1 - fraction) / grown


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """
    Delay signals while drawing starts or stops.

    rich hides the cursor when it starts drawing, and shows it again when it stops. An
    interruption could leave the cursor hidden.
    """
    with signals_delayed(), broken_pipes_ignored():
        yield


def _transfer(
    files: int, of_files: int, done: int, total: int, spent: float
) -> list[Part]:
    rate = done / spent
    parts = [
        (3, f"{files:,}/{of_files:,} files"),
        (0, f"{formatting.byte_count(done)}/{formatting.byte_count(total)}"),
    ]
    if done and spent > 0.5:
        parts.append((2, f"{formatting.byte_count(rate)}/s"))
        if rate > 0 and total > done:
            parts.append((1, f"{formatting.seconds((total - done) / rate)} left"))
    return parts


def _saved(fraction: float, total: int, left: float | None) -> list[Part]:
    parts = [(0, f"{math.floor(fraction * 100)}% saved")]
    if total > 0:
        done = formatting.byte_count(fraction * total)
        parts.append((2, f"{done}/{formatting.byte_count(total)}"))
    if left is not None:
        parts.append((1, f"{formatting.seconds(left)} left"))
    return parts


def _fitting(parts: Sequence[Part], width: int | None = None) -> str:
    """
    Return the texts of the most important parts that fit into *width* columns.

    >>> _fitting([(2, "1/2 files"), (0, "5 kB"), (1, "3 s left")], 15)
    '5 kB  3 s left'
    """
    for rank in sorted((rank for rank, _ in parts), reverse=True):
        text = "  ".join(text for other, text in parts if other <= rank)
        if width is None or len(text) <= width:
            return text
    text = parts[0][1] if len(parts) == 1 else ""
    return f"{text[: width - 1]}…" if text and width and width > 1 else ""


def _spent(began: float) -> str:
    return f"{formatting.seconds(time.monotonic() - began):<8}"
