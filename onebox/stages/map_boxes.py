"""Run the units of a call of `map` on several boxes, each with an ordinary run."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.errors import JobFailed, OneboxError, StateError, UsageError
from onebox.invocation import UnitFlags
from onebox.jobs import job_environment, job_ids, receipt
from onebox.project_files import select_project
from onebox.settings.checks import InvalidValue, is_name
from onebox.settings.handover import to_document
from onebox.settings.layers import Value
from onebox.settings.map_table import MOST_BOXES
from onebox.signals import Interrupted, signals_as_exceptions
from onebox.stages import (
    boxes_report,
    deal,
    earlier_boxes,
    image,
    push,
    queue,
    run,
    sweep,
)
from onebox.stages.box_processes import BoxProcess, BoxProcesses
from onebox.units import job as unit_job

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.jobs.receipt import Receipt
    from onebox.store.box_store import BoxStore
    from onebox.units.job import UnitJob

# Seconds between two updates of the live lines.
PAUSE = 0.5
# The name of the stage while the processes of the boxes run.
STAGE = "boxes"


def wanted(context: BoxContext) -> int:
    """
    Return on how many boxes the units shall run.

    Raises:
        UsageError: It is no such number.
    """
    flags = context.invocation.units or UnitFlags()
    if not flags.boxes:
        boxes = context.settings.map.boxes
        # On a cluster all units are one job, which needs no more than one box.
        return boxes if boxes == 1 or context.provider.powers_off else 1
    count = formatting.whole_number(flags.boxes)
    if not count or count > MOST_BOXES:
        more = ""
        if count:
            more = "; what needs more needs an engine, such as Slurm or Ray"
        raise UsageError(
            f"--boxes: expected a number from 1 to {MOST_BOXES}, got {flags.boxes!r}"
            f"{more}",
            next="inv map --boxes=4",
        )
    if count > 1 and not context.provider.powers_off:
        raise UsageError(
            f"--boxes: on {context.provider.name} all units are one job",
            next="the same line without --boxes",
        )
    return count


def check(context: BoxContext, *, detach: bool = False) -> None:
    """
    Raise UsageError if the line cannot run on several boxes.

    A flag of the line is refused beside `--boxes` before; here, [map] may have them.
    """
    source = "--boxes"
    if not (context.invocation.units or UnitFlags()).boxes:
        source = f"{context.settings.source('map.boxes')}: [map] boxes"
    for given, flag in (
        (context.invocation.only, "--only"),
        (context.invocation.queue, "--queue"),
        (detach, "--detach"),
    ):
        if given:
            raise UsageError(
                f"{source}: several boxes do not go with {flag}",
                next=f"inv map --boxes=1 {flag}, or inv map without {flag}",
            )
    try:
        is_name(deal.name(context, wanted(context)))
    except InvalidValue as problem:
        raise UsageError(f"{source}: {problem}", next="a shorter --name") from None


def prepare(context: BoxContext) -> None:
    """
    Find the units that run, after the boxes of an earlier call have been emptied.

    Raises:
        Busy: Such a box still runs its units.

        OneboxError: This machine can tell that the units will not start.
    """
    check(context)
    job_environment.secret_values(context)
    queue.lock_or_refuse(context)
    earlier_boxes.collect(context, own=True)
    sweep.choose(context, fetches=False)


def perform(
    context: BoxContext, units: UnitJob, *, yes: bool = False
) -> tuple[Receipt, ...]:
    """
    Deal the units, run each box in a process of its own, and report all of them.

    Nothing moves between the boxes: the units of a box whose run fails are left, and
    the next `map` runs them.

    Returns:
        The receipt of each box.

    Raises:
        JobFailed: A unit is not done.

        OneboxError: A box has not ended as it should; its exit code is that of its run.
    """
    # No box has the name of this context, unless a task of the user has created one.
    context.invocation.job_requested = context.invocation.created_box
    dealt = deal.to_boxes(context, units, wanted(context))
    deal.refuse_existing(context, dealt)
    cost = deal.cost(context, dealt)
    run.check_script(context)
    select_project(context)
    cost.announce(context)
    if image.reason(context) is not None:
        # Otherwise each box would build it.
        image.perform(context)
    for note in sweep.notes(context, units):
        context.screen.note(note)
    call = job_ids.new(context)
    files = push.digest(context)
    units = replace(unit_job.begun(context, units, call, files), boxes=dealt)
    stores = {name: context.with_name(name).store for name, _ in dealt}
    try:
        for name, store in stores.items():
            store.lock(context.invocation.command, context.title_of(name))
        # It is stored before anything runs: whatever happens, the next `map` finds it.
        unit_job.save(context, call, units)
        codes = _run(context, units, call, stores, yes=yes)
    finally:
        for store in stores.values():
            store.unlock()
    return _end(context, units, call, codes)


def _run(
    context: BoxContext,
    units: UnitJob,
    call: str,
    stores: Mapping[str, BoxStore],
    *,
    yes: bool,
) -> dict[str, int]:
    """Run the process of each box to its end; return their exit codes."""
    screen, lines = context.screen, boxes_report.LiveLines(units)
    width = max(len(name) for name, _ in units.boxes)

    def output(name: str, line: bytes) -> None:
        screen.output(f"{name:{width}}  ".encode() + line + b"\n")

    def message(name: str, line: bytes) -> None:
        if line.strip():
            text = f"{name:{width}}  {line.decode('utf-8', 'replace')}"
            screen.say(text, width + 2)

    processes = BoxProcesses(output, message, lines.update)

    def last_words() -> str:
        processes.send(signal.SIGINT)
        return "\n        ".join(boxes_report.left(context, units))

    exits = not context.invocation.from_python
    with context.chain.timed(STAGE), signals_as_exceptions(last_words, exits=exits):
        try:
            for name, _ in units.boxes:
                document = _document(context, units, call, name, yes=yes)
                lock = stores[name].lock_descriptor
                box = BoxProcess(name, document, lock, context.root, context.environ)
                processes.start(box)
                # The process holds it from now on.
                stores[name].unlock()
            while processes.run:
                processes.wait(PAUSE)
                screen.footer(lines.text(live=screen.live))
        except Interrupted as error:
            screen.close_line()
            screen.say("detaching from all boxes; Ctrl-C again exits at once")
            processes.interrupt(error.number)
            context.chain.left = tuple(boxes_report.left(context, units))
            raise
        except BaseException:
            # An error of this process, such as a full disk: the jobs continue.
            processes.interrupt(signal.SIGINT)
            raise
    screen.close_line()
    return processes.exit_codes()


def _document(
    context: BoxContext, units: UnitJob, call: str, name: str, *, yes: bool
) -> Mapping[str, Any]:
    """Return what the process of a box has to know."""
    settings, invocation = context.settings, context.invocation
    own = dict(units.boxes)[name]
    part = replace(units, numbers=own, boxes=(), part_of=call)
    changes = {"name": Value("name", name, "--boxes")}
    limit, path = settings.limits.max_cost, "limits.max_cost"
    if limit is not None:
        # All boxes together stay below the limit, whatever type each of them gets.
        count = len(units.boxes)
        source = f"{settings.source(path)}, for 1 of {formatting.count(count, 'box')}"
        share = Value(path, limit / count, source, "[limits] max_cost")
        changes[path] = share
    return {
        "root": str(context.root),
        "settings": to_document(settings, changes),
        "outputs": str(context.outputs_folder),
        "units": unit_job.to_document(part),
        "tasks": dict(context.screen.hints.tasks),
        "program": context.screen.hints.program,
        "python": invocation.from_python,
        "project": invocation.project,
        "command": invocation.command,
        "keep": invocation.keep,
        "yes": yes,
    }


def _end(
    context: BoxContext, units: UnitJob, call: str, codes: Mapping[str, int]
) -> tuple[Receipt, ...]:
    """Report how all has ended; see `perform`."""
    jobs = unit_job.parts(context, call)
    parts = [unit_job.load(context, job) for job in jobs.values()]
    if any(part and part.inputs != units.inputs for part in parts):
        # A file has changed before the last box had it.
        units = replace(units, inputs=unit_job.MIXED)
    receipts = {
        name: found
        for name, _ in units.boxes
        if (job := jobs.get(name)) is not None
        if (found := receipt.read(context.job_dir(job) / receipt.FILE)) is not None
    }
    missing = boxes_report.print_all(context, units, codes, receipts)
    try:
        # The user knows now how the units have ended.
        unit_job.save(context, call, replace(units, ended=True))
    except StateError as unwritten:
        # How the boxes have ended is more important. The next `map` goes on.
        context.screen.warn(f"the end of this call: {unwritten.message}")
    others = {name: code for name, code in codes.items() if code not in (0, 1)}
    if others:
        named = [f"{name} (exit {code})" for name, code in others.items()]
        error = OneboxError(
            f"not every box has done its part: {formatting.first_names(named, 10)}",
            next="inv status shows what is left; inv map --failed runs what is not "
            "done",
        )
        error.code = next(iter(others.values()))
        raise error
    if missing or any(codes.values()):
        raise JobFailed(1)
    return tuple(receipts.values())
