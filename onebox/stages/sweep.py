"""Find everything of this owner, in every project, and remove what has expired."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting, providers
from onebox.boxes import lifecycle
from onebox.errors import OneboxError
from onebox.providers.base import Box, FreeThing, Provider
from onebox.remote import connection, keys
from onebox.remote.answers import JobStatus
from onebox.store.atomic_files import clear_drafts, private_dir
from onebox.store.box_store import config_dir, providers_used, state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A box is removed only this long after its deadline: by then it has had every
# chance to power itself off, and its owner to fetch.
AFTER_DEADLINE_SECONDS = 3600.0
# Of a box that is off only the disk is paid for, cents a day where an hour of the
# box is dollars: what the job has left on it is kept so long.
KEPT_DISK_SECONDS = 7 * 86400.0
# A job that still runs although the deadline is over is asked for so long.
ANSWER_SECONDS = 15.0


@dataclass
class _Found:
    provider: Provider
    box: Box
    verdict: str
    expired: bool


def perform(context: BoxContext, *, yes: bool) -> None:
    """
    Print what there is, with age, cost and verdict; with *yes*, remove the expired.

    What costs nothing is listed as well, and goes once no box uses it.

    It looks in every region of every provider that this machine has used. What
    is not expired is `teardown`'s to remove, in its own project. A box on which a
    job still runs is left alone, whatever its deadline says.

    Raises:
        OneboxError: Something expired is left, or a provider could not be asked.
    """
    found, silent = _look(context)
    free = _free(context, silent)
    if found:
        _print(context, found)
    if free:
        _print_free(context, free)
    if not (found or free or silent):
        context.screen.print("nothing of yours is there")
    expired = [one for one in found if one.expired]
    if found and not expired:
        context.screen.say("nothing has expired; inv teardown removes a live box")
    elif expired and not yes:
        boxes = formatting.count(len(expired), "box", "boxes")
        context.screen.say(f"{boxes} expired; outputs on them go too")
        context.screen.say("  next: inv sweep --yes removes them")
    failed = _remove(context, expired) if yes else []
    if yes:
        # Anew: what a box has used until now may go.
        _remove_free(context, _free(context, []))
    elif any(not thing.why for _, thing in free):
        context.screen.say("some of it costs nothing and is of no use any more")
        context.screen.say("  next: inv sweep --yes removes that as well")
    if failed:
        raise OneboxError(
            f"not removed: {formatting.some(failed)}", next="inv sweep --yes once more"
        )
    if silent:
        raise OneboxError(
            f"not looked at: {formatting.some(silent)}", next="inv doctor --provider=…"
        )


def print_cron(context: BoxContext) -> None:
    """Print a line for crontab that sweeps every hour, whatever this machine does."""
    inv = shutil.which("inv") or f"{sys.executable} -m invoke"
    log = state_dir(context.environ) / "sweep.log"
    root, log_ = shlex.quote(str(context.root)), shlex.quote(str(log))
    # A percent sign ends a crontab's command.
    line = f"17 * * * * cd {root} && {inv} sweep --yes >>{log_} 2>&1"
    context.screen.print(line.replace("%", r"\%"))
    context.screen.note("add it with: crontab -e; cloud credentials must be in a file")


def _look(context: BoxContext) -> tuple[list[_Found], list[str]]:
    found, silent = [], []
    for name in _used(context):
        try:
            provider = context.provider_called(name)
            boxes = provider.find(context.owner, everywhere=True)
        except OneboxError as error:
            silent.append(f"{name} ({error.message})")
            continue
        found += [_judge(context, provider, box) for box in boxes]
        silent += [f"{name} {region}" for region in provider.unreachable_regions]
    return found, silent


def _free(context: BoxContext, silent: list[str]) -> list[tuple[Provider, FreeThing]]:
    """Return what costs nothing, at every provider that was ever used."""
    found: list[tuple[Provider, FreeThing]] = []
    for name in _used(context):
        # One that cannot be asked has been told of with its boxes.
        if any(one.startswith(f"{name} (") for one in silent):
            continue
        try:
            provider = context.provider_called(name)
            things = provider.free_things(context.owner, everywhere=True)
        except OneboxError as error:
            silent.append(f"{name} ({error.message})")
            continue
        found += [(provider, thing) for thing in things]
    return found


def _print_free(context: BoxContext, found: list[tuple[Provider, FreeThing]]) -> None:
    rows = [
        (provider.name, thing.kind, thing.id, thing.place, thing.why or "of no use")
        for provider, thing in found
    ]
    head = ("provider", "free of charge", "id", "place", "why it stays")
    context.screen.table(head, rows)


def _remove_free(context: BoxContext, found: list[tuple[Provider, FreeThing]]) -> None:
    for provider, thing in found:
        if thing.why:
            continue
        what = f"{thing.kind} {thing.id}"
        why = lifecycle.remove_free(provider, context.owner, thing)
        if why:
            context.screen.line("sweep", "kept", f"{what}: {why}", "")
        else:
            context.screen.line("sweep", "done", "removed", what)


def _used(context: BoxContext) -> list[str]:
    """Return the configured provider, and all that a box was ever made at."""
    before = providers_used(state_dir(context.environ))
    used = {"local", context.settings.provider, *before}
    return [name for name in providers.PROVIDERS if name in used]


def _judge(context: BoxContext, provider: Provider, box: Box) -> _Found:
    now = provider.now()
    off = box.state in ("stopped", "stopping") and provider.stopped_is_free
    end = box.deadline + (KEPT_DISK_SECONDS if off else AFTER_DEADLINE_SECONDS)
    if now > end:
        spared = _spared(context, box, end) if box.state == "running" else ""
        if spared:
            return _Found(provider, box, spared, False)
        return _Found(provider, box, "expired", True)
    if off:
        return _Found(
            provider, box, f"disk kept until {formatting.clock(end, now)}", False
        )
    return _Found(provider, box, f"off at {formatting.clock(box.deadline, now)}", False)


def _spared(context: BoxContext, box: Box, end: float) -> str:
    """Ask a running box why it must not go: for its job, or by its own clock."""
    folder = private_dir(state_dir(context.environ) / "sweep")
    clear_drafts(folder, ".*")
    # A door and a connection of our own: another command may be using the
    # project's, and another sweep may ask at the same time.
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as own:
        identity = keys.identity(config_dir(context.environ))
        ssh = connection.SSHConnection(box, Path(own), identity)
        try:
            with ssh.another(within=ANSWER_SECONDS) as channel:
                channel.begin("job", job=None)
                answer = channel.finish(within=ANSWER_SECONDS)
                if JobStatus.parse(answer).state == "running":
                    return "over its deadline, but a job runs"
        except OneboxError:
            # So long after its deadline, a box that does not answer is no live job's.
            return ""
        if time.time() + ssh.ahead <= end:
            return f"not over yet: {formatting.clock_differs(ssh.ahead)} the box's"
        return ""


def _print(context: BoxContext, found: list[_Found]) -> None:
    rows = []
    for one in found:
        box, age = one.box, max(one.provider.now() - one.box.created, 0)
        price = box.offer.hourly
        rows.append(
            (
                one.provider.name,
                f"{box.tags.project}/{box.tags.name}",
                box.id,
                box.place,
                box.state,
                formatting.seconds(age),
                formatting.money(None if price is None else price * age / 3600),
                one.verdict,
            )
        )
    head = ("provider", "box of", "id", "place", "state", "age", "cost so far")
    context.screen.table((*head, "verdict"), rows)


def _remove(context: BoxContext, expired: list[_Found]) -> list[str]:
    """Remove each, after a second look: it may have changed since the first one."""
    failed = []
    for one in expired:
        try:
            box = one.provider.get(one.box.id, one.box.place)
            if box is None:
                continue
            again = _judge(context, one.provider, box)
            if not again.expired:
                context.screen.line("sweep", "kept", again.verdict, box.id)
                continue
            one.provider.delete(box)
            lifecycle.see_gone(one.provider, box.id, box.place)
        except OneboxError as error:
            failed.append(f"{one.box.id}: {error.message}")
            continue
        context.screen.line("sweep", "done", "removed", box.id)
    return failed
