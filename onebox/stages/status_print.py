"""Print what `inv status` has found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.jobs import finished_jobs
from onebox.stages.status_values import BoxJob, BoxStatus
from onebox.ui.table import Cell

if TYPE_CHECKING:
    from onebox.context import BoxContext

HEAD = ("name", "state", "type", "price", "job", "powers off", "outputs", "command")
# The columns that a narrow terminal lacks, the first one first, so that this many
# characters of the command fit. `inv status --name=…` prints all.
LEFT_OUT = ("type", "state")
COMMAND_WIDTH = 20


def print_last_job(context: BoxContext, *, one_name: bool) -> None:
    """Print how the last job ended, because there is no box."""
    own_name = context.settings.name
    title = context.title if one_name else context.settings.project
    context.screen.print(f"{title}: no box is up")
    finished = finished_jobs.latest(context, whatever_name=not one_name)
    if finished is not None:
        name = finished.receipt.box.name if finished.receipt else ""
        on = f" on {context.title_of(name)}" if name not in ("", own_name) else ""
        context.screen.print(f"    last job {finished.job}{on}: {finished.ending}")
        if finished.receipt is not None and finished.receipt.advice:
            context.screen.print(f"    {finished.receipt.advice}")


def print_table(context: BoxContext, found: list[BoxStatus]) -> None:
    """Print several boxes as a table, to a terminal."""
    now = time.time()
    rows: list[list[str | Cell]] = [
        [
            _name(status),
            Cell(status.state, "done" if status.state == "running" else "kept"),
            status.type or "",
            formatting.rate(status.hourly_usd),
            Cell(status.job.text, _mark(status.job)),
            _deadline(status, now),
            _outputs_cell(status),
            printable(status.job.command or ""),
        ]
        for status in found
    ]
    kept = _columns(rows, context.screen.out.width)
    context.screen.table(
        [HEAD[n] for n in kept],
        [[row[n] for n in kept] for row in rows],
        shorten="command",
    )


def _columns(rows: Sequence[Sequence[str | Cell]], width: int) -> list[int]:
    """Return the indices of the columns for a terminal of this width."""
    kept = list(range(len(HEAD)))
    texts = [
        list(HEAD),
        *([c.text if isinstance(c, Cell) else c for c in row] for row in rows),
    ]
    widths = [max(len(row[n]) + 2 for row in texts) for n in kept]
    command = min(widths.pop(), COMMAND_WIDTH)
    for title in LEFT_OUT:
        if sum(widths[n] for n in kept[:-1]) + command > width:
            kept.remove(HEAD.index(title))
    return kept


def _name(status: BoxStatus) -> str:
    return f"{status.name} (builder)" if status.is_builder else status.name


def _mark(job: BoxJob) -> str:
    return {"succeeded": "done", "failed": "failed"}.get(job.state, "kept")


def _outputs_cell(status: BoxStatus) -> Cell:
    text = status.outputs or "-"
    return Cell(text, {"fetched": "done", "not fetched": "warn"}.get(text, ""))


def _deadline(status: BoxStatus, now: float) -> str:
    if status.deadline is None:
        return "-" if status.state == "running" else "is off"
    return formatting.when(status.deadline, now)


def print_details(context: BoxContext, status: BoxStatus) -> None:
    """Print one box and its latest job."""
    now, screen = time.time(), context.screen
    age = formatting.seconds(max(now - (status.created or now), 0))
    title = context.title_of(status.name) + " (builder)" * status.is_builder
    details = [f"{status.size}: {status.type}", formatting.rate(status.hourly_usd)]
    if status.deadline is not None:
        details += [f"up {age}", formatting.off(status.deadline, now)]
    elif status.state == "running":
        details += [f"created {age} ago", formatting.off(0, now)]
    else:
        details += [f"created {age} ago", "its disk is kept"]
    if status.identity:
        details.append(f"identity {status.identity}")
    screen.print("   ".join([title, status.id, status.state]))
    screen.print(f"    {'   '.join(details)}")
    job = " ".join(filter(None, [status.job.id, status.job.text]))
    outputs = f"   outputs {status.outputs}" if status.outputs else ""
    elsewhere = ""
    if status.job.engine_id:
        elsewhere = f"   in {status.provider.capitalize()}: {status.job.engine_id}"
    screen.print(f"    job {job}{elsewhere}{outputs}")
    if status.job.command:
        screen.print(f"    command: {printable(status.job.command)}")
    if status.job.advice:
        screen.print(f"    {status.job.advice}")
