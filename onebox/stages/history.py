"""Print the jobs of this project, newest first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import UsageError
from onebox.jobs import history
from onebox.jobs.history import History, HistoryEntry
from onebox.stages.status import is_for_one_name
from onebox.ui.table import Cell

if TYPE_CHECKING:
    from onebox.context import BoxContext

# From this width on, the table also has the machine type and the log.
WIDE = 120
HEAD = ("job", "started", "command", "size", "took", "ended", "cost")
WIDE_HEAD = (*HEAD[:4], "type", *HEAD[4:])
PIPE_HEAD = (
    "job",
    "started",
    "name",
    "command",
    "provider",
    "size",
    "type",
    "seconds",
    "exit",
    "ended",
    "cost",
    "log",
)


def perform(context: BoxContext, limit: str) -> History:
    """
    Print the jobs of this project, also of boxes that are gone.

    They are those of all box names, or of the one name that is asked for.

    If Python code has called onebox, they are returned without being printed.

    Args:
        limit: The text of `--limit`, a number of jobs; "0" means all.
    """
    most = formatting.whole_number(limit)
    if most is None:
        raise UsageError(
            f"--limit: expected a number of jobs, got {limit!r}",
            next=f"inv history --limit=20{' --json' * context.screen.json}",
        )
    name = context.settings.name if is_for_one_name(context) else None
    found = history.read(context, most or None, name)
    if context.invocation.from_python:
        return found
    if context.screen.json:
        project = {"project": context.settings.project}
        context.screen.print_json("history", {**project, **vars(found)})
    else:
        _print(context, found)
    return found


def _print(context: BoxContext, found: History) -> None:
    screen = context.screen
    if not found.entries:
        title = context.settings.project
        if is_for_one_name(context):
            title = context.title
        screen.print(f"{title}: no job has run yet")
        return
    if not screen.out.is_terminal:
        screen.table(PIPE_HEAD, [_pipe_row(entry) for entry in found.entries])
        return
    is_wide = screen.out.width >= WIDE
    now = time.time()
    # The command gets the room of all but the random end of the ids, if that is unique.
    ends = {entry.job[-4:] for entry in found.entries}
    begin = -4 if len(ends) == found.count else 0
    rows = [
        _row(entry, now, entry.job[begin:], is_wide=is_wide) for entry in found.entries
    ]
    screen.table(WIDE_HEAD if is_wide else HEAD, rows, shorten="command")
    screen.print()
    screen.print(_sum(found))
    folder = context.local_dir.name
    screen.print(
        f"logs: {folder}/jobs/JOB/log, or " + screen.hints.spell("inv logs --job=JOB")
    )


def _row(
    entry: HistoryEntry, now: float, short: str, *, is_wide: bool
) -> list[str | Cell]:
    started = "" if entry.started is None else formatting.clock(entry.started, now)
    mark = "done" if entry.outcome == "succeeded" else "failed"
    if entry.exit is None or entry.outcome in ("cancelled", "preempted"):
        mark = "kept"
    row: list[str | Cell] = [
        entry.job if is_wide else short,
        started,
        _one_line(entry.command),
        _one_line(entry.size),
        "-" if entry.seconds is None else formatting.seconds(entry.seconds),
        Cell(entry.outcome, mark),
        _cost(entry),
    ]
    if is_wide:
        row.insert(4, _one_line(entry.type) or "-")
    return row


def _pipe_row(entry: HistoryEntry) -> list[str]:
    """Return the cells of a row for programs: times in UTC, numbers without units."""
    started = ""
    if entry.started is not None:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.started))
    return [
        entry.job,
        started,
        _one_line(entry.name),
        _one_line(entry.command),
        _one_line(entry.provider),
        _one_line(entry.size),
        _one_line(entry.type),
        "" if entry.seconds is None else f"{entry.seconds:.1f}",
        "" if entry.exit is None else str(entry.exit),
        entry.outcome,
        "" if entry.cost_usd is None else f"{entry.cost_usd:.4f}",
        entry.log or "",
    ]


def _cost(entry: HistoryEntry) -> str:
    if entry.cost_usd is None:
        return "$?"
    return f"{formatting.money(entry.cost_usd)}{'+' * entry.cost_is_least}"


def _sum(found: History) -> str:
    shown = len(found.entries)
    some = f"{shown} of " if shown < found.count else ""
    cost = formatting.money(found.cost_usd)
    least = "at least " * found.cost_is_least
    jobs = formatting.count(found.count, "job")
    return f"{some}{jobs}, total cost {least}{cost}"


def _one_line(text: str | None) -> str:
    """Return a text, "" for None, without line breaks, tabs and control codes."""
    text = text or ""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
