"""Find everything of this owner, in every project, and remove what has expired."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting, providers
from onebox.boxes import delete, under_way
from onebox.errors import OneboxError
from onebox.images import image_totals
from onebox.providers.base import Provider
from onebox.providers.values import Box, FreeObject
from onebox.remote import connection, keys
from onebox.remote.job_answers import JobStatus
from onebox.store.atomic_files import clear_drafts, private_dir
from onebox.store.identity import providers_used
from onebox.store.paths import config_dir, state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A box expires this many seconds after its deadline. By then it should have powered
# itself off, and its owner has had time to fetch the outputs.
AFTER_DEADLINE_SECONDS = 3600.0
# If the provider bills only the disk of a box that is off, such a box expires this many
# seconds after its deadline. A disk costs cents a day, a running box dollars an hour.
KEPT_DISK_SECONDS = 7 * 86400.0
# An expired box gets this many seconds to report whether a job still runs on it.
ANSWER_SECONDS = 15.0


@dataclass(frozen=True)
class _Verdict:
    """A box, whether it has *expired*, and the verdict's *text* for the table."""

    provider: Provider
    box: Box
    text: str
    expired: bool

    @property
    def age(self) -> float:
        """Return the seconds since the box was created."""
        return max(self.provider.now() - self.box.created, 0)

    @property
    def cost(self) -> float | None:
        """Return what the box has cost so far in USD, None if its price is unknown."""
        price = self.box.offer.hourly
        return None if price is None else price * self.age / 3600


def perform(context: BoxContext, *, yes: bool) -> None:
    """
    Print all boxes with age, cost and verdict; with *yes*, remove the expired ones.

    Resources that cost nothing, such as firewall rules, are printed too. With *yes*,
    those that no box uses are removed.

    The cleanup covers every region of every provider that this machine has used. A box
    that has not expired is removed only by `inv teardown` in its project. A box on
    which a job runs stays, even after its deadline.

    Raises:
        OneboxError: An expired box could not be removed, or a provider or region
            could not be queried.
    """
    if re.search(r"[ .]sweep(?= |$)", context.invocation.command):
        context.screen.note("sweep is an earlier name of: inv cleanup")
    verdicts, unreachable = _judge_boxes(context)
    free_resources = _find_free(context, unreachable)
    images = image_totals.find(context, _used_providers(context), unreachable)
    tags = [verdict.box.tags for verdict in verdicts]
    others = under_way.everywhere(context, [(one.project, one.name) for one in tags])
    if not context.screen.json:
        _print(context, verdicts)
        _print_free(context, free_resources)
        for one in others:
            context.screen.print(one.describe(f"{one.project}/{one.name}"))
        image_totals.show(context, images)
        if not (verdicts or free_resources or images or unreachable or others):
            context.screen.print("you have no boxes and no other resources")
    expired = [verdict for verdict in verdicts if verdict.expired]
    if verdicts and not expired:
        context.screen.say("nothing has expired; inv teardown removes a live box")
    elif expired and not yes:
        boxes = formatting.count(len(expired), "box", "boxes")
        context.screen.say(f"{boxes} expired; their outputs would be deleted too")
        context.screen.say("  next: inv cleanup --yes removes them")
    removed, failed = _remove(context, expired) if yes else ([], [])
    if yes:
        # The free resources are listed again, because the boxes that used them may be
        # gone now.
        removed += _remove_free(context, _find_free(context, []))
    elif any(not resource.why for _, resource in free_resources):
        context.screen.say("some resources cost nothing and are no longer used")
        context.screen.say("  next: inv cleanup --yes removes them too")
    if context.screen.json:
        fields = _fields(verdicts, free_resources, unreachable)
        fields.update({"removed": removed, "not_removed": failed, "under_way": others})
        fields["images"] = images
        context.screen.print_json("cleanup", fields)
    if failed:
        raise OneboxError(
            f"not removed: {formatting.first_names(failed)}", next="inv cleanup --yes"
        )
    if unreachable:
        raise OneboxError(
            f"not checked: {formatting.first_names(unreachable)}",
            next=f"inv doctor --provider={unreachable[0].split()[0]}",
        )


def print_cron(context: BoxContext) -> None:
    """Print a crontab line that runs the cleanup every hour."""
    hints = context.screen.hints
    module = "invoke" if hints.program == "inv" else hints.program
    program = shutil.which(hints.program)
    command = [program] if program else [sys.executable, "-m", module]
    log = private_dir(state_dir(context.environ)) / "cleanup.log"
    root, log_ = shlex.quote(str(context.root)), shlex.quote(str(log))
    task = hints.tasks.get("cleanup", "cleanup")
    # cron starts with an environment of its own.
    variables = [
        f"{name}={shlex.quote(value)} "
        for name, value in sorted(context.environ.items())
        if name.startswith("ONEBOX_") and "\n" not in value
    ]
    typed = f"{''.join(variables)}{shlex.join([*command, task, '--yes'])}"
    line = f"17 * * * * cd {root} && {typed} >>{log_} 2>&1"
    # In a crontab, an unescaped percent sign ends the command.
    context.screen.print(line.replace("%", r"\%"))
    context.screen.note("add it with: crontab -e; cloud credentials must be in a file")


def _judge_boxes(context: BoxContext) -> tuple[list[_Verdict], list[str]]:
    """
    Return a verdict for each box of this owner.

    The second result has a text for each provider or region that did not answer.
    """
    verdicts: list[_Verdict] = []
    unreachable: list[str] = []
    for name in _used_providers(context):
        try:
            provider = context.load_provider(name)
            boxes = provider.find(context.owner, everywhere=True)
        except OneboxError as error:
            unreachable.append(f"{name} ({error.message})")
            continue
        verdicts += [_judge(context, provider, box) for box in boxes]
        unreachable += [f"{name} {region}" for region in provider.unreachable_regions]
        for text in provider.unreadable.values():
            context.screen.warn(f"a box cannot be read, and is left out: {text}")
        for text in provider.undeletable:
            context.screen.warn(f"a deleted box could not be removed: {text}")
    return verdicts, unreachable


def _find_free(
    context: BoxContext, unreachable: list[str]
) -> list[tuple[Provider, FreeObject]]:
    """
    Return the resources that cost nothing, at every provider this machine has used.

    A provider that is in *unreachable* is skipped. A provider that does not answer is
    added to *unreachable*.
    """
    found: list[tuple[Provider, FreeObject]] = []
    for name in _used_providers(context):
        if any(entry.startswith(f"{name} (") for entry in unreachable):
            continue
        try:
            provider = context.load_provider(name)
            resources = provider.free_objects(context.owner, everywhere=True)
        except OneboxError as error:
            unreachable.append(f"{name} ({error.message})")
            continue
        found += [(provider, resource) for resource in resources]
    return found


def _print_free(
    context: BoxContext, free_resources: list[tuple[Provider, FreeObject]]
) -> None:
    rows = [
        (
            provider.name,
            resource.kind,
            resource.id,
            resource.place,
            resource.why or "unused",
        )
        for provider, resource in free_resources
    ]
    head = ("provider", "free of charge", "id", "place", "why it stays")
    if rows:
        context.screen.table(head, rows)


def _remove_free(
    context: BoxContext, free_resources: list[tuple[Provider, FreeObject]]
) -> list[str]:
    """Remove the free resources that no box uses, and return the removed ones."""
    removed = []
    for provider, resource in free_resources:
        if resource.why:
            continue
        title = f"{resource.kind} {resource.id}"
        problem = delete.remove_free(provider, context.owner, resource)
        if problem:
            context.screen.print_stage("cleanup", "kept", f"{title}: {problem}", "")
        else:
            context.screen.print_stage("cleanup", "done", "removed", title)
            removed.append(title)
    return removed


def _used_providers(context: BoxContext) -> list[str]:
    """
    Return the names of the providers that may have boxes of this owner.

    They are "local", the configured provider, and those used on this machine.
    """
    before = providers_used(state_dir(context.environ))
    used = {"local", context.settings.provider, *before}
    return [name for name in providers.PROVIDERS if name in used]


def _judge(context: BoxContext, provider: Provider, box: Box) -> _Verdict:
    now = provider.now()
    if not box.deadline:
        return _Verdict(provider, box, formatting.off(0, now), expired=False)
    off = box.state in ("stopped", "stopping") and provider.stopped_is_free
    end = box.deadline + (KEPT_DISK_SECONDS if off else AFTER_DEADLINE_SECONDS)
    if now > end:
        spared = _reason_to_spare(context, box, end) if box.state == "running" else ""
        return _Verdict(provider, box, spared or "expired", expired=not spared)
    if off:
        text = f"disk kept until {formatting.clock(end, now)}"
    else:
        text = f"off at {formatting.clock(box.deadline, now)}"
    return _Verdict(provider, box, text, expired=False)


def _reason_to_spare(context: BoxContext, box: Box, end: float) -> str:
    """
    Ask an expired box that still runs whether it must stay, and return the reason.

    It must stay if a job runs on it, or if it has not expired by its own clock. The
    result is "" if neither is true. It is also "" if the box does not answer, because a
    box that is silent this long after its deadline has no live job.
    """
    folder = private_dir(state_dir(context.environ) / "cleanup")
    clear_drafts(folder, ".*")
    # The box is asked over an ssh connection of its own, with its own folder: another
    # command may be using the project's connection, and another cleanup may run.
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as own_folder:
        ssh_key_file = keys.ssh_key_file(config_dir(context.environ))
        ssh = connection.SSHConnection(box, Path(own_folder), ssh_key_file)
        try:
            with ssh.open_separate_channel(within=ANSWER_SECONDS) as channel:
                channel.begin("job", job=None)
                answer = channel.finish(within=ANSWER_SECONDS)
                if JobStatus.parse(answer).state == "running":
                    return "past its deadline, but a job runs"
        except OneboxError:
            return ""
        if time.time() + ssh.clock_ahead <= end:
            return f"not expired: {formatting.clock_differs(ssh.clock_ahead)} the box's"
        return ""


@dataclass(frozen=True)
class ListedFreeObject:
    """
    A `FreeObject` as `--json` prints it.

    *used* is whether it must stay, *why* the reason of that.
    """

    provider: str
    kind: str
    id: str
    place: str | None
    used: bool
    why: str


def _fields(
    verdicts: list[_Verdict],
    free_resources: list[tuple[Provider, FreeObject]],
    unreachable: list[str],
) -> dict[str, object]:
    """Return what was found as `--json` prints it; times are in epoch seconds."""
    boxes = [
        {
            "provider": verdict.provider.name,
            "project": verdict.box.tags.project,
            "name": verdict.box.tags.name,
            "id": verdict.box.id,
            "type": verdict.box.offer.type,
            "place": verdict.box.place or None,
            "state": verdict.box.state,
            "created": verdict.box.created,
            "deadline": verdict.box.deadline,
            "hourly_usd": verdict.box.offer.hourly,
            "cost_usd": verdict.cost,
            "expired": verdict.expired,
            "verdict": verdict.text,
        }
        for verdict in verdicts
    ]
    free = [
        ListedFreeObject(
            provider=provider.name,
            kind=resource.kind,
            id=resource.id,
            place=resource.place or None,
            used=bool(resource.why),
            why=resource.why,
        )
        for provider, resource in free_resources
    ]
    return {"boxes": boxes, "free": free, "unreachable": unreachable}


def _print(context: BoxContext, verdicts: list[_Verdict]) -> None:
    rows = [
        (
            verdict.provider.name,
            f"{verdict.box.tags.project}/{verdict.box.tags.name}",
            verdict.box.id,
            verdict.box.place,
            verdict.box.state,
            formatting.seconds(verdict.age),
            formatting.money(verdict.cost),
            verdict.text,
        )
        for verdict in verdicts
    ]
    head = ("provider", "box of", "id", "place", "state", "age", "cost so far")
    if rows:
        context.screen.table((*head, "verdict"), rows)


def _remove(
    context: BoxContext, expired: list[_Verdict]
) -> tuple[list[str], list[str]]:
    """
    Remove each box that a second check still finds expired.

    Returns:
        The ids of the removed boxes, and a text with the id and the error for each box
        that could not be removed.
    """
    removed, failed = [], []
    for verdict in expired:
        provider, box_id = verdict.provider, verdict.box.id
        try:
            box = provider.get(box_id, verdict.box.place)
            if box is None:
                continue
            # The box is judged again, because it may have changed since the table was
            # printed.
            current = _judge(context, provider, box)
            if not current.expired:
                context.screen.print_stage("cleanup", "kept", current.text, box_id)
                continue
            provider.delete(box)
            delete.wait_until_gone(provider, box_id, box.place)
        except OneboxError as error:
            failed.append(f"{box_id}: {error.message}")
            continue
        context.screen.print_stage("cleanup", "done", "removed", box_id)
        removed.append(box_id)
    return removed, failed
