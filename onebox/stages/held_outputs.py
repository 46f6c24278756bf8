"""
Check that a job's outputs are on this machine; if not, keep the box.

A fetch uses these checks for the files that it had to leave on the box. A teardown
checks all outputs on the box.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import raw
from onebox.boxes import bring_up
from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    OneboxError,
    OutputsHeld,
    UsageError,
)
from onebox.jobs import notify, preemption, remote_job, run_record
from onebox.project_files import configured_outputs, output_roots
from onebox.providers.values import Box
from onebox.remote import ssh_hosts
from onebox.remote.answers import Changes
from onebox.stages import notebook_files
from onebox.store.paths import ssh_folder, state_dir
from onebox.transfer import fetch_outputs, verify_outputs

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.remote.job_answers import ExitRecord
    from onebox.transfer.remote_manifest import ChangesOutside

# A message names at most this many files outside of the outputs.
SHOWN = 3


def compare(context: BoxContext, folder: Path) -> verify_outputs.Verified:
    """Return how the outputs on the box differ from the files in *folder*."""
    known = notebook_files.fetched_before(context)
    compared: verify_outputs.Verified = context.call_resuming(
        lambda channel: verify_outputs.verify(
            channel,
            output_roots(context),
            folder,
            context.fetch_memory,
            into_project=folder == context.root,
            known=known,
        )
    )
    return compared


def check_box(
    context: BoxContext, box: Box, doing: Callable[[str], None] = lambda text: None
) -> None:
    """
    Check that the box can be removed without losing outputs.

    Args:
        doing: Called with a text that says what the check waits for.

    Raises:
        OutputsHeld: Outputs are not on this machine, or the box does not answer.

        UsageError: The job still runs.
    """
    if box.state == "stopped":
        _check_record(context, box)
        return
    try:
        _check_running_box(context, box, doing)
    except OneboxError:
        # If the box powers itself off during the check, its outputs can no longer be
        # read. The record then tells whether they were fetched.
        with suppress(OneboxError):
            current = preemption.wait_until_at_rest(context, box)
            if current is not None and current.state == "stopped":
                box = current
        if box.state != "stopped":
            raise
        _check_record(context, box)


def is_known_to_be_fetched(context: BoxContext, box: Box) -> bool:
    """
    Return whether all that a box has made is here, as far as it was recorded.

    The box is not asked. If a command or a shell of the user has run on it since its
    creation, or since the last fetch, the result is False.
    """
    record, mark = context.store.record, context.store.sessions.mark(box.id)
    if record.box != box.id or record.session or mark:
        return False
    if record.fetched:
        return True
    if record.job or mark is None:
        return False
    # A session of the user's own ssh is not recorded.
    environ = context.environ
    return not ssh_hosts.is_installed(ssh_folder(environ), state_dir(environ))


def _check_record(context: BoxContext, box: Box) -> None:
    """Raise OutputsHeld unless the record says that the box's outputs are fetched."""
    if is_known_to_be_fetched(context, box):
        _check_fetched_folder(context)
        return
    raise OutputsHeld(
        f"only the disk of {box.id} is left, and it is unknown whether its "
        "outputs are fetched; the disk stays",
        next="inv fetch --rescue teardown, or inv teardown --discard-outputs",
    )


def _check_running_box(
    context: BoxContext, box: Box, doing: Callable[[str], None]
) -> None:
    record = context.store.record
    if record.session:
        raise OutputsHeld(
            f"files of a notebook session on {box.id} are not fetched; the box stays",
            next="inv fetch teardown, or inv teardown --discard-outputs",
        )
    try:
        box = bring_up.wait_until_reachable(context, box, doing)
    except (BoxFailed, ConnectionLost) as error:
        raise _no_answer_error(box, error) from error
    try:
        latest = remote_job.latest(context)
        unused = latest is None and not record.has_unfetched_job(box.id)
        if unused and not _has_new_outputs(context):
            return
        if latest is not None and latest.runs:
            raise UsageError(
                f"job {latest.job} still runs on {context.title} ({box.id})",
                next="inv logs, inv cancel, or inv teardown --discard-outputs",
            )
        recorded = record.fetched_folder or record.job_outputs_folder
        folder = context.root / (recorded or context.outputs_folder)
        compared = compare(context, folder)
        missing = compared.missing
        if latest is not None:
            run_record.record_end(context, latest.job, latest.record)
            notify.learned(context, box, latest.job, latest.record)
        if not missing and latest is not None:
            remote_job.fetch_log(context, box, latest)
    except ConnectionLost as error:
        raise _no_answer_error(box, error) from error
    if missing:
        raise OutputsHeld(
            f"outputs on {box.id} are not fetched: {missing}; the box stays",
            next="inv fetch teardown, or inv teardown --discard-outputs",
        )
    ended = latest.record if latest is not None else None
    unnamed = unnamed_outputs_error(context, compared.changes_outside, ended)
    if unnamed is not None:
        raise unnamed


def _has_new_outputs(context: BoxContext) -> bool:
    """Return whether outputs on the box are new or changed since the push."""
    roots = [raw(root.rstrip("/")) for root in output_roots(context)]
    changes: Changes = context.call_resuming(
        lambda channel: Changes.parse(channel.request("changes", since=0))
    )
    named = len(changes.paths) + len(changes.in_home)
    return changes.count > named or any(
        root in (b".", path) or path.startswith(root + b"/")
        for path in changes.paths
        for root in roots
    )


def unnamed_outputs_error(
    context: BoxContext, left: ChangesOutside | None, ended: ExitRecord | None
) -> OutputsHeld | None:
    """
    Return an error if the job seems to have put its result outside of the outputs.

    That is likely if the job succeeded, the configured outputs have nothing new, and
    other files are new or changed since the push. The result is None if one of these
    conditions is not met, or if onebox.toml configures no outputs.
    """
    if ended is None or ended.code or not configured_outputs(context):
        return None
    if left is None or not left.without_outputs:
        return None
    return OutputsHeld(
        f"the job created or changed {formatting.count(left.count, 'file')} on the "
        f"box, but nothing in {formatting.first_names(output_roots(context))}: "
        f"{name_files(left)}",
        next="name them in [fetch] outputs, then inv fetch teardown; inv teardown "
        "--discard-outputs deletes them",
    )


def refused_links_error(fetched: fetch_outputs.Fetched) -> OutputsHeld | None:
    """Return an error if the fetch left out links that point out of the project."""
    if not fetched.refused:
        return None
    links = [
        f"{formatting.path(link)} → {formatting.path(target)}"
        for link, target in fetched.refused.items()
    ]
    return OutputsHeld(
        f"{formatting.count(len(links), 'link')} among the outputs to a place outside "
        f"of the project, which is not fetched: {formatting.first_names(links)}",
        next="inv fetch --unsafe-links creates them anyway; inv ssh to look",
    )


def refused_repositories_error(fetched: fetch_outputs.Fetched) -> OutputsHeld | None:
    """Return an error if the fetch left out repositories such as `.git`."""
    if not fetched.repositories:
        return None
    names = formatting.first_names(
        [formatting.path(path) for path in fetched.repositories]
    )
    return OutputsHeld(
        "not fetched, because version control runs programs that are configured there: "
        f"{names}",
        next="inv fetch --unsafe-git fetches them too; or remove them: inv ssh",
    )


def describe_left(context: BoxContext, left: ChangesOutside, *, removed: bool) -> str:
    """
    Return a warning about the job's files outside of the outputs.

    Args:
        removed: Whether this command line removes the box.
    """
    who = "the job" if context.store.record.job else "a command on the box"
    fate, then = "left on the box", ", then inv fetch"
    if removed:
        fate, then = "removed with the box", ""
    return (
        f"{formatting.count(left.count, 'file')} that {who} created or changed "
        f"outside of the outputs: {name_files(left)}: not fetched, and {fate}; to keep "
        f"such files, add them to [fetch] outputs{then}"
    )


def name_files(left: ChangesOutside) -> str:
    """
    Return a text that names the first few files outside of the outputs.

    The text has only the number of the other files.
    """
    shown = [formatting.path(path) for path in left.names[:SHOWN]]
    more = left.count - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def _no_answer_error(box: Box, error: OneboxError) -> OutputsHeld:
    return OutputsHeld(
        f"{box.id} does not answer ({error.message}), so it is unknown whether its "
        "outputs are fetched; the box stays",
        next="inv teardown later, or inv teardown --discard-outputs",
    )


def _check_fetched_folder(context: BoxContext) -> None:
    """Raise OutputsHeld if a local file has changed since it was fetched."""
    record = context.store.record
    if not record.fetched:
        return
    folder = context.root / (record.fetched_folder or context.outputs_folder)
    missing = verify_outputs.changed_here(folder, context.fetch_memory)
    if missing:
        raise OutputsHeld(
            f"outputs of {record.box} were fetched, but have changed since in "
            f"{folder}: {missing}; the box stays",
            next="inv fetch teardown, or inv teardown --discard-outputs",
        )
