"""Say that there is no box of a name, which other boxes there are, and what to type."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import under_way
from onebox.errors import OneboxError, UsageError
from onebox.providers.values import Box

if TYPE_CHECKING:
    from onebox.context import BoxContext

# What to type instead of a task that found no box; other tasks have `_ANY`.
_ANY = "inv provision creates a box; inv run creates one and runs the job"
_INSTEAD = {
    "cancel": "inv status shows the boxes and their jobs",
    "fetch": "inv run runs the job and fetches its outputs",
    "image": "inv provision creates a box",
    "logs": "inv run starts a job",
    "notebook": "inv notebook without --only creates a box",
    "push": "inv push without --only creates a box",
    "run": "inv run without --only creates a box",
}
# These tasks can use a box that is off: they start it, or print a log that is here.
_ON_STOPPED = ("fetch", "logs")
_WITH_COMMAND = ("exec", "ssh")


def message(context: BoxContext) -> str:
    """Return the sentence which says that there is no box of the requested name."""
    return f"there is no box {context.title}"


def error(context: BoxContext, purpose: str = "") -> UsageError:
    """
    Return the error of a task that found no box.

    It names the project's other boxes, a command that creates or removes the box at
    this moment, and the commands that help.

    Args:
        purpose: What the box was needed for, such as "to fetch from".
    """
    others = other_boxes(context)
    lines = [describe(context.title_of(box.tags.name), box) for box in others]
    here = [
        one
        for one in under_way.of_project(context, ())
        if one.name == context.settings.name
    ]
    lines += [one.describe(context.title) for one in here]
    soon = any(one.action != "delete" and not one.is_builder for one in here)
    return UsageError(
        f"{message(context)} {purpose}".rstrip(),
        running="\n".join(lines),
        next="\n".join(_next(context, others, soon=soon)),
    )


def several_error(context: BoxContext, names: list[str]) -> UsageError:
    """
    Return the error of `logs` if the latest job is a `map` on several boxes.

    Args:
        names: The names of these boxes, which may be gone.
    """
    listed = formatting.first_names(names, len(names))
    lines = [
        describe(context.title_of(box.tags.name), box)
        for box in other_boxes(context)
        if box.tags.name in names
    ]
    commands = [f"inv logs --name={name}" for name in names]
    return UsageError(
        f"{message(context)}; its latest map began on {listed}",
        running="\n".join(lines),
        next="\n".join([*commands, "inv logs --unit=N prints the output of a unit"]),
    )


def other_boxes(context: BoxContext) -> list[Box]:
    """
    Return the project's boxes of other names, by name, without builders.

    They are only a hint, so the list is empty if the provider does not answer.
    """
    with suppress(OneboxError):
        found = [
            box
            for box in context.provider.find(context.owner)
            if (box.tags.kind, box.tags.project) == ("box", context.project)
            and box.tags.name != context.settings.name
            and box.state != "gone"
        ]
        return sorted(found, key=lambda box: (box.tags.name, box.created))
    return []


def is_on(box: Box) -> bool:
    """Return whether a box runs or is about to."""
    return box.state in ("running", "starting")


def describe(title: str, box: Box, *, still: bool = False) -> str:
    """Return a sentence with the state, price and deadline of the box *title*."""
    if not is_on(box):
        return f"{title} is {box.state}; its disk is kept"
    off, price = formatting.off(box.deadline, time.time()), box.offer.hourly
    up = "still up" if still else "up"
    return f"{title} is {up}: {formatting.rate(price)}, {off}"


def _next(context: BoxContext, others: list[Box], *, soon: bool) -> list[str]:
    """
    Return the commands that help, the likeliest one first.

    Args:
        soon: Whether another command creates the requested box at this moment.
    """
    task = context.invocation.task
    usable = [box for box in others if is_on(box) or task in _ON_STOPPED]
    lines = [_on_other(context, box.tags.name) for box in usable] if task else []
    lines = list(dict.fromkeys(lines))
    if soon:
        lines.insert(0, "wait, then run the same command again")
    else:
        lines.append(_INSTEAD.get(task, _ANY))
    return [*lines, *earlier_jobs(context)]


def earlier_jobs(context: BoxContext) -> list[str]:
    """Return the command that lists the project's earlier jobs, if there are any."""
    if any((context.local_dir / "jobs").glob("*/log")):
        return ["inv history lists the earlier jobs"]
    return []


def _on_other(context: BoxContext, name: str) -> str:
    """Return the command that does on the box *name* what was to be done."""
    task, command = context.invocation.task, context.invocation.own_command
    words = f"inv {task} --name={name}"
    if task in _WITH_COMMAND and command:
        words += f" -- {formatting.path(command)}"
    return words
