"""Have the outputs here, verified byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up, power
from onebox.errors import OutputsHeld, UsageError
from onebox.jobs import client, output_folders, receipt, run_history
from onebox.jobs.output_paths import asked_for, roots
from onebox.providers.base import Box
from onebox.transfer import fetch_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from onebox.context import BoxContext
    from onebox.remote.answers import ExitRecord
    from onebox.transfer.remote_manifest import Left
    from onebox.ui.progress import StageLine


# How many names of files that are not outputs are shown.
SHOWN = 3


def reason(context: BoxContext) -> str | None:
    """Say what of the outputs is not here, or None."""
    box = context.box
    if box is None:
        return None
    if box.state != "running":
        return f"{box.id} is {box.state}"
    return compare(context, context.into).missing


def compare(context: BoxContext, into: Path) -> fetch_outputs.Verified:
    """Compare the outputs on the box with what was fetched into a folder."""
    compared: fetch_outputs.Verified = context.resuming(
        lambda channel: fetch_outputs.verify(
            channel,
            roots(context),
            into,
            context.memory,
            beside=into == context.root,
        )
    )
    return compared


def perform(
    context: BoxContext,
    *,
    started_by: str = "fetch",
    partial: bool = False,
    unsafe_links: bool = False,
    unsafe_git: bool = False,
    rescue: bool = False,
    ended: ExitRecord | None = None,
) -> fetch_outputs.Fetched:
    """
    Bring the outputs here, or say that they are.

    Args:
        started_by: The stage that wants it: one that is "run" has seen its job end,
            and "teardown" has the box at its end.

        ended: How the job ended that has left them; the box is asked unless
            *started_by* is "run".

        rescue: Pay for another machine, where only the disk of the box is left.

        partial: Fetch although the job still runs, or nobody knows how it ended.

        unsafe_links: Make links that lead out of the project, too.

        unsafe_git: Bring the repositories among the outputs, too.

    Raises:
        OutputsHeld: Not all could be brought and verified: the box is kept.
    """
    context.lock()
    box = context.box
    if box is None:
        return _done_by_run(context)
    stopped = box.state == "stopped"
    with (
        power.off_again(context, box),
        context.timed("fetch"),
        context.screen.stage("fetch") as line,
    ):
        if stopped:
            if box.disk_only and not rescue:
                raise UsageError(_only_the_disk(box), next="inv fetch --rescue")
            line.doing(f"starting {box.id} for its outputs")
            box = power.start(context, box)
        else:
            box = bring_up.ready(context, box, line.doing)
        if started_by != "run" and not partial:
            ended = _job_has_ended(context, box)
        line.doing("asking the box what there is")
        receipt.outdate(context, context.store.record.job)
        try:
            done: fetch_outputs.Fetched = context.resuming(
                lambda channel: fetch_outputs.fetch(
                    channel,
                    roots(context),
                    context.into,
                    context.memory,
                    line.progress,
                    unsafe_links=unsafe_links,
                    unsafe_git=unsafe_git,
                    beside=context.into == context.root,
                    beyond="" if partial else "always",
                )
            )
        except OutputsHeld as error:
            error.next = error.next or (
                "mend it, then inv fetch; inv fetch --into=DIR puts them elsewhere"
            )
            raise
        if done.refused:
            line.end("", f"{formatting.count(done.files, 'file')} here", mark="failed")
            raise _refused_links(done)
        if done.repositories:
            line.end("", f"{formatting.count(done.files, 'file')} here", mark="failed")
            raise _repositories_held(done)
        held = None if partial else left_alone(context, done.left, ended)
        if held is not None:
            _say(context, line, done, partial)
            raise held
        if not partial:
            context.remember(
                fetched=done.digest or "nothing", into=context.noted(context.into)
            )
            context.fetched, context.fetched_into = done, context.into
            output_folders.note(context, context.into)
            if started_by != "run":
                receipt.copy_beside(context, context.store.record.job)
        _say(context, line, done, partial)
    if stopped and rescue:
        _end_rescue(context, box)
    elif stopped and started_by == "fetch" and "teardown" not in context.line.named:
        power.rest(context, box)
    _say_apart(context, done)
    _say_kept(context, done)
    return done


def left_alone(
    context: BoxContext, left: Left | None, ended: ExitRecord | None
) -> OutputsHeld | None:
    """
    Return the error that keeps the box, if the job's result is outside of its outputs.

    That is so if the job ended well, its outputs hold nothing new, and other files are
    new or changed since the push. If onebox.toml says that there are no outputs, none
    are expected.
    """
    if ended is None or ended.code or not asked_for(context):
        return None
    if left is None or not left.alone:
        return None
    return OutputsHeld(
        f"the job created or changed {formatting.count(left.count, 'file')} on the "
        "box, but "
        f"nothing in {formatting.some(roots(context))}: {_names(left)}",
        next="name them in [fetch] outputs, then inv fetch teardown; inv teardown "
        "--discard-outputs gives them up",
    )


def _names(left: Left) -> str:
    shown = [formatting.path(path) for path in left.names[:SHOWN]]
    more = left.count - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def _refused_links(done: fetch_outputs.Fetched) -> OutputsHeld:
    listed = [
        f"{formatting.path(link)} → {formatting.path(target)}"
        for link, target in done.refused.items()
    ]
    return OutputsHeld(
        f"{formatting.count(len(listed), 'link')} among the outputs to a place out of "
        "the "
        f"project, so the target is not here: {formatting.some(listed)}",
        next="inv fetch --unsafe-links takes them as they are; inv ssh to look",
    )


def _say_apart(context: BoxContext, done: fetch_outputs.Fetched) -> None:
    """Name what the job has left that has not come."""
    if done.left is not None:
        context.screen.warn(
            f"{formatting.count(done.left.count, 'file')} that the job created or "
            "changed "
            f"outside of the outputs: {_names(done.left)}"
        )
    if done.dangling:
        names = formatting.some([formatting.path(link) for link in done.dangling])
        context.screen.warn(f"links to nothing, left out: {names}")


def _say_kept(context: BoxContext, done: fetch_outputs.Fetched) -> None:
    """Say which files were in the way, and the names that they have now."""
    theirs: dict[str, list[str]] = {}
    for path, kept in done.kept:
        other = done.theirs.get(path)
        if other is not None:
            name = f"{formatting.path(path)} is now {formatting.path(kept)}"
            theirs.setdefault(other, []).append(name)
        else:
            context.screen.warn(
                f"{formatting.path(path)} had been changed here: yours is now "
                f"{formatting.path(kept)}"
            )
    for other, names in theirs.items():
        context.screen.warn(
            f"outputs of {context.settings.project}/{other} were here and are kept: "
            f"{formatting.some(names)} ([fetch] outputs_to keeps them apart)"
        )


def _repositories_held(done: fetch_outputs.Fetched) -> OutputsHeld:
    listed = formatting.some([formatting.path(path) for path in done.repositories])
    return OutputsHeld(
        f"not fetched, because version control runs programs that it configures: "
        f"{listed}",
        next="inv fetch --unsafe-git brings them too; or remove them: inv ssh",
    )


def _done_by_run(context: BoxContext) -> fetch_outputs.Fetched:
    # `inv run fetch teardown`: the chain of `run` has ended the box by now.
    done = context.fetched
    if done is None:
        raise UsageError(
            f"there is no box {context.title} to fetch from",
            running=context.siblings(),
            next="inv status",
        )
    usual = context.into == context.usual_into
    into = context.fetched_into if usual else context.into
    missing = fetch_outputs.changed_here(into, context.memory)
    if missing:
        raise UsageError(
            f"{context.title} is gone, and these are not in {into}: {missing}",
            next="inv run --keep, then inv fetch",
        )
    context.screen.line("fetch", "done", "up to date", "run has brought the outputs")
    return done


def _say(
    context: BoxContext, line: StageLine, done: fetch_outputs.Fetched, partial: bool
) -> None:
    there = [path for path in roots(context) if path not in done.missing]
    where = " ".join(_shown(context, path) for path in there)
    missing = [p for p in context.settings.fetch.outputs if p in done.missing]
    if not roots(context):
        line.end("nothing to do", "no [fetch] outputs are configured")
    elif not done.files:
        empty = formatting.some(missing) or where
        line.end("", f"no outputs: {empty} is empty", mark="warn")
    else:
        files = formatting.count(done.files, "file")
        amount = f"{files}, {formatting.byte_count(done.bytes)}"
        state = "as they are now" if partial else "verified"
        extra = f" (no {formatting.some(missing)})" if missing else ""
        line.end("", f"{amount}, {state} → {where}{extra}")


def _only_the_disk(box: Box) -> str:
    size = box.offer
    dear = size.hourly if size.on_demand is None else size.hourly_on_demand
    return (
        f"of {box.id} only the disk is left: reading it takes another machine, "
        f"{box.offer.type} at up to {formatting.rate(dear)}, for as long as it takes"
    )


def _end_rescue(context: BoxContext, box: Box) -> None:
    """Say how the job ended, and have the machine off again: its disk stays."""
    latest = client.latest(context)
    context.close()
    context.provider.stop(box)
    context.look_again()
    if latest is not None and (latest.cause or "poweroff") in run_history.TAKEN:
        context.screen.warn(
            f"job {latest.job} did not end by itself: this is what the disk held of it"
        )
    context.screen.note(f"{box.id} is off again: inv teardown removes its disk")


def _shown(context: BoxContext, path: str) -> str:
    if context.root in (context.into, *context.into.parents):
        place = (context.into / path).relative_to(context.root)
        return f"{place}{'/' * path.endswith('/')}"
    return f"{context.into}/{path}"


def _job_has_ended(context: BoxContext, box: Box) -> ExitRecord | None:
    latest = client.latest(context)
    if latest is None:
        return None
    if latest.runs:
        raise UsageError(
            f"job {latest.job} still runs, so its outputs may change",
            next="inv logs waits for it; inv fetch --partial takes them as they are",
        )
    run_history.seen(context, latest.job, latest.record)
    client.bring_log(context, box, latest)
    return latest.record
