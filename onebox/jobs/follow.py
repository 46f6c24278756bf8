"""Show a job while it runs, and describe how it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import suppress

from onebox import formatting
from onebox.context import BoxContext
from onebox.errors import Lost, OneboxError, Preempted
from onebox.jobs import checkpoints, job_limits, notify, ports, preemption, remote_job
from onebox.jobs.memory_advice import KILLED, memory_advice
from onebox.providers.values import Box
from onebox.remote.job_answers import (
    ExitRecord,
    Sample,
    describe_waiting,
    is_silent,
)
from onebox.units import progress as unit_progress

_CAUSES = {
    "cancel": "cancelled",
    "preempted": "the provider took the box back",
    "deadline": "the deadline was reached",
    "poweroff": "the box was powered off",
    "node-failed": "its node failed",
    "forgotten": "Slurm no longer knows what became of its tasks",
}


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
    Show a job's output until the job ends, and return its exit record.

    Meanwhile the job's checkpoints are pulled, and its ports are forwarded.

    Args:
        run: The id of the run to which this attempt belongs. "" means that it is the
            same as the job's id.

        attempt: The number of the attempt.

        shown: How many bytes of the output have been shown already.
    """
    screen = context.screen
    # The footer counts from this time until the start time of the job is recorded.
    began = time.time()
    attempt_text = f"attempt {attempt}" if attempt > 1 else ""
    log = remote_job.log_path(context, job_id)
    try:
        listens = "once the job listens there"
        with (
            ports.forwarded(context, box, ports.of_job(context), listens),
            checkpoints.pulling(context, box, run=run or job_id, job=job_id) as puller,
        ):
            waits_for = ""

            def show_sample(sample: Sample) -> None:
                nonlocal waits_for
                waits = not is_silent(sample.waiting)
                context.chain.job_waits = sample.waiting if waits else ""
                reason = sample.waiting.partition(",")[0]
                if reason and reason != waits_for:
                    waits_for = reason
                    screen.note(describe_waiting(sample.waiting))
                more = [attempt_text]
                if puller is not None:
                    puller.show_warnings()
                    more.append(puller.footer)
                screen.footer(_footer(context, box, sample, began, more))

            record = remote_job.follow(
                context,
                box,
                job_id,
                log,
                screen.output,
                show_sample,
                screen.output_gone,
                shown,
            )
    except (Lost, Preempted):
        notify.gave_up(context)
        screen.close_line()
        lasted = formatting.seconds(time.time() - context.store.record.job_started)
        how = preemption.preemption_reason(context, box)
        unknown = f"job {job_id}: its outcome is unknown"
        screen.print_stage(context.chain.task, "failed", lasted, how or unknown)
        raise
    screen.close_line()
    mark = "failed" if record.code else "done"
    if not record.code and record.cause not in ("exit", "cancel"):
        mark = "warn"
    screen.print_stage(
        context.chain.task, mark, formatting.seconds(record.seconds), describe(record)
    )
    advice = memory_advice(context, box, record)
    if advice:
        screen.warn(advice)
    _explain_deadline(context, record)
    if record.code:
        screen.note(f"its log: {remote_job.log_name(context, job_id)}")
    notify.claim(context, box, job_id)
    return record


def _explain_deadline(context: BoxContext, record: ExitRecord) -> None:
    """Tell of a job that a scheduler has ended which limit it was."""
    if record.cause != "deadline" or context.provider.powers_off:
        return
    seconds = context.settings.limits.max_hours * 3600
    # The provider may have to ask, and how the job ended is more important.
    with suppress(OneboxError):
        what, setting = context.provider.job_limit(seconds)
        context.screen.note(
            f"it was the time limit of the job: {what}; SIGTERM comes about a minute "
            "before it"
        )
        context.screen.note(
            f"next: another {setting}, for a new box, then inv {context.chain.task}"
        )


def outcome(record: ExitRecord) -> str:
    """Return whether a job succeeded, failed or was cancelled, in a few words."""
    if record.cause == "cancel":
        return f"cancelled{_survivors(record)}"
    if record.code:
        return f"failed, {describe(record)}"
    if record.cause == "exit":
        return f"succeeded{_survivors(record)}"
    return f"ended, {describe(record)}"


def describe(record: ExitRecord) -> str:
    """Return how a job ended, in a few words."""
    cause, code = record.cause, record.code
    text = f"exit {code}"
    if cause == "oom" and code == KILLED:
        text += f", killed: out of memory{_peak(record)}"
    elif cause == "oom":
        text += f", out of memory{_peak(record)}: one of its processes was killed"
    elif cause == "disk-full":
        text += ", the box's disk is full"
    elif cause == "signal":
        text += f", killed by {_signal_name(record.signal or code - 128)}"
    elif cause == "exit" and 128 < code < 128 + signal.NSIG:
        # A shell exits with 128 plus the number of the signal that killed its last
        # command.
        text += f" ({_signal_name(code - 128)})"
    elif cause != "exit":
        text += f", {_CAUSES.get(cause, cause)}"
    if record.units is not None:
        text += f": {unit_progress.ending(record.units)}"
    return text + _survivors(record)


def _survivors(record: ExitRecord) -> str:
    if not record.survivors:
        return ""
    names = formatting.first_names([*record.survivors])
    return f"; ended what it left running: {names}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _peak(record: ExitRecord) -> str:
    """
    Return a phrase with the job's peak memory and the process that used the most.

    A part that is unknown is left out.
    """
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
    """
    Return the line below the output: time, cost, the job's load, the texts in *more*.
    """
    started = context.store.record.job_started or began
    spent = max(time.time() - started, 0)
    task = "run" if sample.units is None else "map"
    if sample.waiting:
        detaches = "Ctrl-C detaches" if context.screen.live else ""
        texts = [f"{task}  {formatting.seconds(spent)}", f"waits: {sample.waiting}"]
        return "    ".join(filter(None, [*texts, detaches]))
    parts = [f"{task}  {formatting.seconds(spent)}"]
    if box.offer.hourly:
        parts.append(formatting.money(box.offer.hourly * spent / 3600))
    if sample.units is not None:
        parts += unit_progress.describe(sample.units)
    # These are the numbers of the job and not those of the machine, as in the receipt.
    cpus, memory = job_limits.of(context, box, sample.cpus, sample.memory_total)
    if sample.job_cpu is not None and cpus is not None:
        parts.append(f"{sample.job_cpu:.1f} of {cpus} cores")
    if sample.job_memory and memory:
        parts.append(formatting.bytes_of(sample.job_memory, memory))
    parts += [*more, "Ctrl-C detaches" if context.screen.live else ""]
    return "    ".join(part for part in parts if part)
