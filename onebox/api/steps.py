"""The functions of `onebox.api` that run jobs, and the steps of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from onebox import pipeline_tasks, tasks
from onebox.api.calls import (
    call,
    command_line,
    path_text,
    switches,
    with_short_traceback,
)
from onebox.jobs.receipt import OutputCount, Receipt


@with_short_traceback
def run(
    command: str | Sequence[str | os.PathLike[str]] | None = None,
    *,
    vm: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    spot: bool | None = None,
    project: str | os.PathLike[str] | None = None,
    keep: bool = False,
    detach: bool = False,
    queue: bool = False,
    into: str | os.PathLike[str] | None = None,
    output: Callable[[bytes], None] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Receipt | None:
    """
    Run a job on a box, fetch its outputs, and return its receipt.

    Args:
        command: A line for the shell, or a list of words. By default it is the command
            of [run] in onebox.toml.

        vm: Size of the box: a name from onebox.toml, or the provider's own type.

        provider: Where to create the box: "local" or a cloud.

        name: Name of the box, for a project with several boxes.

        spot: Whether to use spot capacity, which the provider may take back.

        project: The project folder; by default the nearest one, see `onebox.api`.

        keep: Keep the box up after the job.

        detach: Start the job and return None; `logs` follows it.

        queue: If the box is busy, wait until it is the turn of this run.

        into: Folder for the outputs, instead of the usual one.

        output: Called with each part of the job's output, instead of printing it. If it
            raises an error, the job continues, and the error is raised at the end.

        settings: Further settings by name, such as {"limits.max_hours": 2}.

    Returns:
        The receipt. If `when = "changed"` in [run] skips the job, it is the receipt of
        the job that has made the outputs. None if *detach* is set.

    Raises:
        JobFailed: The job's exit code is not 0; its log and its outputs are fetched.

        OneboxError: Another failure. Its text has what still runs, and what to do.

        KeyboardInterrupt: The call was interrupted; a job that has started continues.
    """
    flags = {"vm": vm, "provider": provider, "name": name, "spot": spot}
    line, words = command_line(command)
    switches(keep=keep, detach=detach, queue=queue)
    with call("run", project, flags, settings, output, words, line) as c:
        receipt: Receipt | None = pipeline_tasks.run(
            c,
            command=line,
            keep=keep,
            detach=detach,
            queue=queue,
            yes=True,
            into=path_text("into", into),
        )
    return receipt


@with_short_traceback
def map(
    command: str | Sequence[str | os.PathLike[str]] | None = None,
    *,
    over: Mapping[str, Iterable[object]] | None = None,
    failed: bool = False,
    limit: int | None = None,
    boxes: int | None = None,
    vm: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    spot: bool | None = None,
    project: str | os.PathLike[str] | None = None,
    keep: bool = False,
    detach: bool = False,
    queue: bool = False,
    into: str | os.PathLike[str] | None = None,
    output: Callable[[bytes], None] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Receipt | tuple[Receipt, ...] | None:
    """
    Run a command once for each set of parameters, many at once; return the receipt.

    Args:
        command: A line for the shell, or a list of words, with placeholders such as
            {seed}. By default it is the command of [map] in onebox.toml.

        over: The values of each parameter by its name, such as {"seed": range(1, 51)};
            they replace those of [map] with the same name.

        failed: Run only the units that are not done.

        limit: Run at most so many units.

        boxes: Deal the units to so many boxes, at most 10, which run side by side.

        vm, provider, name, spot, project, keep, detach, queue, into, output, settings:
            See `run`.

    Returns:
        The receipt; its `units` are how many are done. With several *boxes*, a tuple
        with the receipt of each. None if *detach* is set, or if all units are done.

    Raises:
        JobFailed: A unit has failed; the outputs of all units are fetched.

        OneboxError: Another failure. Its text has what still runs, and what to do.

        KeyboardInterrupt: The call was interrupted; a job that has started continues.
    """
    flags = {"vm": vm, "provider": provider, "name": name, "spot": spot}
    line, words = command_line(command)
    switches(failed=failed, keep=keep, detach=detach, queue=queue)
    with call("map", project, flags, settings, output, words, line) as c:
        receipt: Receipt | tuple[Receipt, ...] | None = pipeline_tasks.map_(
            c,
            over=over,
            failed=failed,
            limit="" if limit is None else str(limit),
            boxes="" if boxes is None else str(boxes),
            command=line,
            keep=keep,
            detach=detach,
            queue=queue,
            into=path_text("into", into),
        )
    return receipt


# Each function names its parameters, although they repeat: `help()` and editors show
# them.
@with_short_traceback
def provision(
    *,
    vm: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    spot: bool | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> str:
    """
    Create or reuse the box, and return its id; it stays up until `teardown`.

    For the parameters, see `run`. Raises OneboxError.
    """
    flags = {"vm": vm, "provider": provider, "name": name, "spot": spot}
    with call("provision", project, flags, settings) as c:
        return str(pipeline_tasks.provision(c).id)


@with_short_traceback
def push(
    *,
    vm: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    spot: bool | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> None:
    """
    Copy code and data to the box; create the box if there is none.

    For the parameters, see `run`. Raises OneboxError.
    """
    flags = {"vm": vm, "provider": provider, "name": name, "spot": spot}
    with call("push", project, flags, settings) as c:
        pipeline_tasks.push(c)


@with_short_traceback
def fetch(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    into: str | os.PathLike[str] | None = None,
    partial: bool = False,
    rescue: bool = False,
    settings: Mapping[str, object] | None = None,
) -> OutputCount:
    """
    Fetch the outputs, verified byte for byte; return the number of files and bytes.

    Args:
        name, provider, project, settings: See `run`.

        into: Folder for the outputs, instead of the usual one.

        partial: Fetch even if the job still runs or its outcome is unknown.

        rescue: Pay for a machine that reads the disk of a preempted box.

    Raises:
        OutputsHeld: Some outputs were not fetched, so the box is kept.

        OneboxError: Another failure.
    """
    flags = {"provider": provider, "name": name}
    switches(partial=partial, rescue=rescue)
    with call("fetch", project, flags, settings) as c:
        fetched = pipeline_tasks.fetch(
            c,
            into=path_text("into", into),
            partial=partial,
            rescue=rescue,
        )
        return OutputCount(fetched.files, fetched.bytes)


@with_short_traceback
def teardown(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    discard_outputs: bool = False,
    all: bool = False,
    settings: Mapping[str, object] | None = None,
) -> None:
    """
    Remove the box after its outputs are fetched, and verify that it is gone.

    Args:
        name, provider, project, settings: See `run`.

        discard_outputs: Delete outputs that are not fetched, without a question.

        all: Remove all boxes of this project.

    Raises:
        OutputsHeld: Some outputs were not fetched, so the box is kept.

        OneboxError: Another failure.
    """
    flags = {"provider": provider, "name": name}
    switches(discard_outputs=discard_outputs, all=all)
    with call("teardown", project, flags, settings) as c:
        pipeline_tasks.teardown(c, discard_outputs=discard_outputs, all=all, yes=True)


@with_short_traceback
def logs(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    output: Callable[[bytes], None] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Receipt | None:
    """
    Show the job's output, follow it until the job ends, and return its receipt.

    For the parameters, see `run`. The outputs are not fetched. The receipt is None if
    it is missing or damaged.

    Raises:
        JobFailed: The job's exit code is not 0.

        OneboxError: Another failure.

        KeyboardInterrupt: The call was interrupted; the job continues.
    """
    flags = {"provider": provider, "name": name}
    with call("logs", project, flags, settings, output) as c:
        receipt: Receipt | None = tasks.logs(c)
    return receipt


@with_short_traceback
def cancel(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> None:
    """
    Stop the job: SIGTERM, a grace period, SIGKILL. The box stays up.

    For the parameters, see `run`. Raises OneboxError.
    """
    flags = {"provider": provider, "name": name}
    with call("cancel", project, flags, settings) as c:
        tasks.cancel(c)
