"""Watch a job while it runs, and say how it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import Lost, Preempted
from onebox.jobs import checkpoints, client, preemption
from onebox.providers.base import Box
from onebox.remote.answers import ExitRecord, Sample

if TYPE_CHECKING:
    from onebox.context import BoxContext


def watch(
    context: BoxContext,
    box: Box,
    job_id: str,
    *,
    run: str = "",
    attempt: int = 1,
    shown: int = 0,
) -> ExitRecord:
    """
    Show a job's output from where the local log ends; return its record.

    Its checkpoints come here meanwhile.

    Args:
        run: The first job of the run that this one is an attempt of.

        shown: How much of its output has been shown already.
    """
    screen = context.screen
    # The first moment of the job is the line's; the rest is the job's own.
    began = time.time()
    tried = f"attempt {attempt}" if attempt > 1 else ""
    log = client.log_path(context, job_id)
    try:
        with checkpoints.coming_home(
            context, box, run=run or job_id, job=job_id
        ) as visitor:

            def sample(now: Sample) -> None:
                more = [tried]
                if visitor is not None:
                    visitor.speak()
                    more.append(visitor.footer)
                screen.footer(_footer(context, box, now, began, more))

            record = client.follow(
                context,
                box,
                job_id,
                log,
                screen.output,
                sample,
                screen.output_gone,
                shown,
            )
    except (Lost, Preempted):
        screen.close_line()
        lasted = formatting.seconds(time.time() - context.store.record.job_started)
        how = preemption.taken(context, box)
        unknown = f"job {job_id}: how it ended is not known"
        screen.line("run", "failed", lasted, how or unknown)
        raise
    screen.close_line()
    spent = formatting.seconds(record.seconds)
    mark = "done" if not record.code else "failed"
    screen.line("run", mark, spent, describe(record))
    if record.code:
        screen.note(f"its log: {client.log_place(context, job_id)}")
    return record


def describe(record: ExitRecord) -> str:
    """Say how a job ended, in a few words."""
    cause, code = record.cause, record.code
    text = f"exit {code}"
    if cause == "oom":
        text += f", killed: out of memory{_peak(record)}"
    elif cause == "disk-full":
        text += ", the box's disk is full"
    elif cause == "signal":
        text += f", killed by {_name(record.signal or code - 128)}"
    elif cause == "exit" and 128 < code < 128 + signal.NSIG:
        # A shell says so when a command in it was killed.
        text += f" ({_name(code - 128)})"
    elif cause != "exit":
        text += f", {_CAUSES.get(cause, cause)}"
    if record.survivors:
        text += f"; ended what it left running: {formatting.some([*record.survivors])}"
    return text


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_CAUSES = {
    "cancel": "cancelled",
    "preempted": "the provider took the box back",
    "deadline": "the deadline had come",
    "poweroff": "the box was powered off",
}


def _peak(record: ExitRecord) -> str:
    text = (
        f" at {formatting.byte_count(record.memory_peak)}" if record.memory_peak else ""
    )
    return f"{text} ({record.memory_largest})" if record.memory_largest else text


def _footer(
    context: BoxContext,
    box: Box,
    sample: Sample,
    began: float,
    more: Sequence[str] = (),
) -> str:
    started = context.store.record.job_started or began
    spent = max(time.time() - started, 0)
    parts = [f"run  {formatting.seconds(spent)}"]
    if box.offer.hourly:
        parts.append(formatting.money(box.offer.hourly * spent / 3600))
    if sample.cpu is not None and sample.cpus is not None:
        parts.append(f"{sample.cpu:.1f} of {sample.cpus} cores")
    if sample.memory and sample.memory_total:
        total = formatting.byte_count(sample.memory_total)
        parts.append(f"{formatting.byte_count(sample.memory)} of {total}")
    parts += [*more, "Ctrl-C detaches"]
    return "    ".join(part for part in parts if part)
