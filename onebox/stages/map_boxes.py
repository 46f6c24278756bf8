"""Run the units of a sweep on several boxes: an ordinary `inv map` for each of them."""

from __future__ import annotations

import secrets as randomness
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import offers
from onebox.errors import JobFailed, OneboxError, Unsuitable, UsageError
from onebox.invocation import UnitFlags
from onebox.jobs import receipt
from onebox.settings.checks import InvalidValue, is_name
from onebox.signals import Interrupted
from onebox.stages import image, map
from onebox.stages.box_processes import BoxProcess, BoxProcesses
from onebox.units import job as unit_job
from onebox.units import part as unit_part
from onebox.units import report as unit_report
from onebox.units.part import Part

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.units.job import UnitJob

MOST_BOXES = 10
# Seconds between two looks at what the boxes have reported.
PAUSE = 1.0
# The name of the stage while the processes of the boxes run.
STAGE = "boxes"


def perform(context: BoxContext) -> None:
    """
    Deal the units to several boxes, and run `map` for each box in its own process.

    Nothing moves between the boxes: the units of a box that ends early are left, and
    `map --failed` runs them.

    Raises:
        JobFailed: A unit has failed.

        OneboxError: A box has not done its part for another reason; the error has the
            exit code of that box.
    """
    flags = context.invocation.units or UnitFlags()
    wanted = check(context, flags)
    # No box of this name is created, so there is none to tear down.
    context.invocation.job_requested = False
    units = context.chain.units
    if units is None:
        context.screen.print_stage("map", "done", "up to date", map.UP_TO_DATE)
        return
    count = min(wanted, len(units.numbers))
    cost = total_price(context, count)
    image.perform(context)
    boxes = formatting.count(count, "box", "boxes")
    context.screen.note(f"{units.amount} on {boxes} side by side{cost}")
    sweep = units.sweep or _new_id()
    units = context.chain.units = replace(units, sweep=sweep)
    with tempfile.TemporaryDirectory(prefix="onebox-") as folder:
        parts = {
            f"{context.settings.name}-{n}": Part(
                context.settings.name, sweep, numbers, str(Path(folder) / f"{n}.done")
            )
            for n, numbers in enumerate(unit_part.deal(units.numbers, count), 1)
        }
        codes = _run(context, flags, parts, Path(folder))
    _report(context, units, codes)


def check(context: BoxContext, flags: UnitFlags) -> int:
    """Return the number of boxes that were asked for. Raises UsageError."""
    count = formatting.whole_number(flags.boxes)
    if not count or count > MOST_BOXES:
        more = "; for more, use an engine such as Slurm or Ray" if count else ""
        raise UsageError(
            f"--boxes: expected a number from 1 to {MOST_BOXES}, got {flags.boxes!r}"
            f"{more}",
            next="inv map --boxes=4",
        )
    if context.environ.get(unit_part.VARIABLE):
        raise UsageError("--boxes: this process runs a part of the units already")
    try:
        is_name(f"{context.settings.name}-{count}")
    except InvalidValue as problem:
        raise UsageError(f"--boxes: {problem}", next="a shorter --name") from None
    return count


def _new_id() -> str:
    return time.strftime("%Y%m%d-%H%M%S-") + randomness.token_hex(2)


def total_price(context: BoxContext, count: int) -> str:
    """
    Return a phrase with the highest cost of all boxes.

    Raises:
        Unsuitable: It exceeds [limits] max_cost.
    """
    limits, offer = context.settings.limits, offers.find(context)[0]
    offers.check_price(context, offer)
    highest = None
    if offer.hourly is not None:
        highest = count * offer.hourly * limits.max_hours
    limit = limits.max_cost
    if limit is not None and highest is not None and highest > limit:
        raise Unsuitable(
            f"{count} boxes of {offer.type} could cost {formatting.money(highest)}, "
            f"more than [limits] max_cost = {formatting.money(limit)}",
            next="fewer --boxes, a smaller --vm, or fewer max_hours",
        )
    return f", at most {formatting.money(highest)} in total" if highest else ""


def _run(
    context: BoxContext, flags: UnitFlags, parts: dict[str, Part], folder: Path
) -> dict[str, int]:
    """Run the command line of each box; return its exit code by the box's name."""
    screen, began = context.screen, time.time()
    width = max(len(name) for name in parts)

    def say(name: str, line: bytes) -> None:
        if line.strip():
            screen.say(f"{name:{width}}  {line.decode('utf-8', 'replace')}")

    def output(name: str, line: bytes) -> None:
        screen.output(f"{name}: ".encode() + line + b"\n")

    processes = BoxProcesses(output, say)
    with context.chain.timed(STAGE):
        try:
            for name, part in parts.items():
                path = folder / name
                unit_part.save(path, part)
                environ = {**context.environ, unit_part.VARIABLE: str(path)}
                words = _words(context, flags, name)
                processes.start(BoxProcess(name, words, context.root, environ))
            while processes.run:
                processes.wait(PAUSE)
                screen.footer(_footer(parts, time.time() - began))
        except Interrupted as error:
            processes.detach(error)
            raise
    screen.clear_footer()
    return {box.name: box.wait() for box in processes.all}


def _words(context: BoxContext, flags: UnitFlags, name: str) -> list[str]:
    """Return the words of the command line that runs the part of one box."""
    settings = context.settings
    words = [context.screen.hints.tasks.get("map", "map"), f"--name={name}"]
    for path, value in (("vm", settings.vm), ("provider", settings.provider)):
        if settings.source(path) == f"--{path}":
            words.append(f"--{path}={value}")
    if settings.source("spot") in ("--spot", "--no-spot"):
        words.append(settings.source("spot"))
    profiles = [s.split()[1] for s in settings.sources.values() if s[:8] == "profile "]
    words += [f"--profile={profile}" for profile in profiles[:1]]
    words += [f"--over={text}" for text in flags.over]
    if flags.into:
        words.append(f"--into={context.outputs_folder}")
    if flags.line:
        words.append(f"--command={flags.line}")
    words += ["--keep"] * flags.keep + ["--yes"] * flags.yes
    return [*words, *(["--", *flags.words] if flags.words else [])]


def _footer(parts: dict[str, Part], spent: float) -> str:
    """Return the live line: time, cost, and what is done on each box."""
    found = {name: unit_part.progress_of(part) for name, part in parts.items()}
    texts = [f"map  {formatting.seconds(spent)}"]
    costs = [progress.cost for progress in found.values()]
    if any(costs):
        texts.append(formatting.money(sum(cost or 0 for cost in costs)))
    total = sum(len(part.numbers) for part in parts.values())
    texts.append(f"{sum(p.done for p in found.values()):,} of {total:,} done")
    for name, progress in found.items():
        failed = f" ({progress.failed:,} failed)" if progress.failed else ""
        of = len(parts[name].numbers)
        texts.append(f"{name}: {progress.done:,} of {of:,}{failed}")
    return "    ".join(texts)


def _report(context: BoxContext, units: UnitJob, codes: dict[str, int]) -> None:
    """
    Print how each box and the units have ended.

    Raises:
        JobFailed, OneboxError: See `perform`.
    """
    for name, code in codes.items():
        found = unit_job.latest(context.with_name(name))
        text = f"exit {code}"
        if found is not None and found[1].sweep == units.sweep:
            its = receipt.read(context.job_dir(found[0]) / receipt.FILE)
            if its is not None:
                text = (
                    f"{formatting.seconds(its.seconds)}, {formatting.money(its.cost)}"
                )
                text += f", exit {code}"
        context.screen.print_stage(name, "failed" if code else "done", text)
    counts = unit_report.write(context, units)
    others = {name: code for name, code in codes.items() if code not in (0, 1)}
    if others:
        names = formatting.first_names([f"{n} (exit {c})" for n, c in others.items()])
        error = OneboxError(
            f"not all boxes have done their part: {names}",
            next="inv status; inv map --failed runs what is not done",
        )
        error.code = max(others.values())
        raise error
    if counts.failed or any(codes.values()):
        raise JobFailed(1)
