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

    from onebox.context import Session
    from onebox.remote.answers import ExitRecord
    from onebox.transfer.remote_manifest import Left
    from onebox.ui.progress import StageLine


# How many names of files that are not outputs are shown.
SHOWN = 3


def reason(session: Session) -> str | None:
    """Say what of the outputs is not here, or None."""
    box = session.box
    if box is None:
        return None
    if box.state != "running":
        return f"{box.id} is {box.state}"
    return compare(session, session.into).missing


def compare(session: Session, into: Path) -> fetch_outputs.Verified:
    """Compare the outputs on the box with what was fetched into a folder."""
    compared: fetch_outputs.Verified = session.resuming(
        lambda link: fetch_outputs.verify(
            link,
            roots(session),
            into,
            session.memory,
            beside=into == session.root,
        )
    )
    return compared


def perform(
    session: Session,
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
    session.lock()
    box = session.box
    if box is None:
        return _done_by_run(session)
    stopped = box.state == "stopped"
    with (
        power.off_again(session, box),
        session.timed("fetch"),
        session.screen.stage("fetch") as line,
    ):
        if stopped:
            if box.disk_only and not rescue:
                raise UsageError(_only_the_disk(box), next="inv fetch --rescue")
            line.doing(f"starting {box.id} for its outputs")
            box = power.start(session, box)
        else:
            box = bring_up.ready(session, box, line.doing)
        if started_by != "run" and not partial:
            ended = _job_has_ended(session, box)
        line.doing("asking the box what there is")
        receipt.outdate(session, session.notebook.record.job)
        try:
            done: fetch_outputs.Fetched = session.resuming(
                lambda link: fetch_outputs.fetch(
                    link,
                    roots(session),
                    session.into,
                    session.memory,
                    line.progress,
                    unsafe_links=unsafe_links,
                    unsafe_git=unsafe_git,
                    beside=session.into == session.root,
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
        held = None if partial else left_alone(session, done.left, ended)
        if held is not None:
            _say(session, line, done, partial)
            raise held
        if not partial:
            session.remember(
                fetched=done.digest or "nothing", into=session.noted(session.into)
            )
            session.fetched, session.fetched_into = done, session.into
            output_folders.note(session, session.into)
            if started_by != "run":
                receipt.copy_beside(session, session.notebook.record.job)
        _say(session, line, done, partial)
    if stopped and rescue:
        _end_rescue(session, box)
    elif stopped and started_by == "fetch" and "teardown" not in session.line.named:
        power.rest(session, box)
    _say_apart(session, done)
    _say_kept(session, done)
    return done


def left_alone(
    session: Session, left: Left | None, ended: ExitRecord | None
) -> OutputsHeld | None:
    """
    Return the error that keeps the box, if the job's result is outside of its outputs.

    That is so if the job ended well, its outputs hold nothing new, and other files are
    new or changed since the push. If onebox.toml says that there are no outputs, none
    are expected.
    """
    if ended is None or ended.code or not asked_for(session):
        return None
    if left is None or not left.alone:
        return None
    return OutputsHeld(
        f"the job created or changed {formatting.count(left.count, 'file')} on the box, but "
        f"nothing in {formatting.some(roots(session))}: {_names(left)}",
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
        f"{formatting.count(len(listed), 'link')} among the outputs to a place out of the "
        f"project, so the target is not here: {formatting.some(listed)}",
        next="inv fetch --unsafe-links takes them as they are; inv ssh to look",
    )


def _say_apart(session: Session, done: fetch_outputs.Fetched) -> None:
    """Name what the job has left that has not come."""
    if done.left is not None:
        session.screen.warn(
            f"{formatting.count(done.left.count, 'file')} that the job created or changed "
            f"outside of the outputs: {_names(done.left)}"
        )
    if done.dangling:
        names = formatting.some([formatting.path(link) for link in done.dangling])
        session.screen.warn(f"links to nothing, left out: {names}")


def _say_kept(session: Session, done: fetch_outputs.Fetched) -> None:
    """Say which files were in the way, and the names that they have now."""
    theirs: dict[str, list[str]] = {}
    for path, kept in done.kept:
        other = done.theirs.get(path)
        if other is not None:
            name = f"{formatting.path(path)} is now {formatting.path(kept)}"
            theirs.setdefault(other, []).append(name)
        else:
            session.screen.warn(
                f"{formatting.path(path)} had been changed here: yours is now "
                f"{formatting.path(kept)}"
            )
    for other, names in theirs.items():
        session.screen.warn(
            f"outputs of {session.settings.project}/{other} were here and are kept: "
            f"{formatting.some(names)} ([fetch] outputs_to keeps them apart)"
        )


def _repositories_held(done: fetch_outputs.Fetched) -> OutputsHeld:
    listed = formatting.some([formatting.path(path) for path in done.repositories])
    return OutputsHeld(
        f"not fetched, because version control runs programs that it configures: "
        f"{listed}",
        next="inv fetch --unsafe-git brings them too; or remove them: inv ssh",
    )


def _done_by_run(session: Session) -> fetch_outputs.Fetched:
    # `inv run fetch teardown`: the chain of `run` has ended the box by now.
    done = session.fetched
    if done is None:
        raise UsageError(
            f"there is no box {session.title} to fetch from",
            running=session.siblings(),
            next="inv status",
        )
    usual = session.into == session.usual_into
    into = session.fetched_into if usual else session.into
    missing = fetch_outputs.changed_here(into, session.memory)
    if missing:
        raise UsageError(
            f"{session.title} is gone, and these are not in {into}: {missing}",
            next="inv run --keep, then inv fetch",
        )
    session.screen.line("fetch", "done", "up to date", "run has brought the outputs")
    return done


def _say(
    session: Session, line: StageLine, done: fetch_outputs.Fetched, partial: bool
) -> None:
    there = [path for path in roots(session) if path not in done.missing]
    where = " ".join(_shown(session, path) for path in there)
    missing = [p for p in session.settings.fetch.outputs if p in done.missing]
    if not roots(session):
        line.end("nothing to do", "no [fetch] outputs are configured")
    elif not done.files:
        empty = formatting.some(missing) or where
        line.end("", f"no outputs: {empty} is empty", mark="warn")
    else:
        amount = (
            f"{formatting.count(done.files, 'file')}, {formatting.size(done.bytes)}"
        )
        state = "as they are now" if partial else "verified"
        extra = f" (no {formatting.some(missing)})" if missing else ""
        line.end("", f"{amount}, {state} → {where}{extra}")


def _only_the_disk(box: Box) -> str:
    size = box.size
    dear = size.hourly if size.on_demand is None else size.hourly_on_demand
    return (
        f"of {box.id} only the disk is left: reading it takes another machine, "
        f"{box.size.type} at up to {formatting.rate(dear)}, for as long as it takes"
    )


def _end_rescue(session: Session, box: Box) -> None:
    """Say how the job ended, and have the machine off again: its disk stays."""
    latest = client.latest(session)
    session.hang_up()
    session.provider.stop(box)
    session.look_again()
    if latest is not None and (latest.cause or "poweroff") in run_history.TAKEN:
        session.screen.warn(
            f"job {latest.job} did not end by itself: this is what the disk held of it"
        )
    session.screen.note(f"{box.id} is off again: inv teardown removes its disk")


def _shown(session: Session, path: str) -> str:
    if session.root in (session.into, *session.into.parents):
        place = (session.into / path).relative_to(session.root)
        return f"{place}{'/' * path.endswith('/')}"
    return f"{session.into}/{path}"


def _job_has_ended(session: Session, box: Box) -> ExitRecord | None:
    latest = client.latest(session)
    if latest is None:
        return None
    if latest.runs:
        raise UsageError(
            f"job {latest.job} still runs, so its outputs may change",
            next="inv logs waits for it; inv fetch --partial takes them as they are",
        )
    run_history.seen(session, latest.job, latest.record)
    client.bring_log(session, box, latest)
    return latest.record
