"""
The tasks: thin, in the order of the pipeline.

`from onebox import image, provision, push, run, fetch, teardown` makes them a
project's own; `Collection(train, box=onebox.ns)` gives them a namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.exceptions import Exit

from onebox.plugin import Stage, load, remainder_of, session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from invoke.context import Context


def _stage(*needs: Stage, **options: Any) -> Callable[[Callable[..., Any]], Stage]:
    def made(body: Callable[..., Any]) -> Stage:
        return Stage(body, needs=needs, own=True, **options)

    return made


@_stage(
    help={
        "from-box": "Save the live box's disk instead of running the recipe.",
        "as": "Name of the image that --from-box saves, or that --prune removes.",
        "list": "Print the images there are, and what they cost.",
        "prune": "Remove the images that nothing asks for any more.",
        "all": "Prune in all of your projects.",
        "rebuild": "Build even if the recipe is unchanged.",
        "keep": "Leave the builder box up if its set-up fails.",
        "yes": "Answer yes to questions.",
    }
)
def image(
    c: Context,
    from_box: bool = False,
    as_: str = "",
    list: bool = False,
    prune: bool = False,
    all: bool = False,
    rebuild: bool = False,
    keep: bool = False,
    yes: bool = False,
) -> Any:
    """Package the job's environment; nothing to do if its recipe is unchanged."""
    context, stages = session_of(c), load("image")
    if list:
        return stages.show_list(context)
    if prune:
        return stages.prune(context, as_, everywhere=all, yes=yes)
    if from_box:
        return stages.save_from_box(context, as_, yes=yes)
    context.line.keep_builder = keep
    return stages.perform(context, rebuild=rebuild)


@_stage(image, on_box=True)
def provision(c: Context) -> Any:
    """Have a box of this size, made from this image; it stays until teardown."""
    return load("provision").perform(session_of(c))


@_stage(provision, on_box=True, before_job=True)
def push(c: Context) -> Any:
    """Have code and data on the box, exactly as they are here."""
    return load("push").perform(session_of(c))


@_stage(
    push,
    help={
        "keep": "Leave the box up when the chain is through.",
        "detach": "Start the job and return; `inv logs` comes back to it.",
        "command": "A shell line to run instead of [run] command.",
        "into": "Folder to put the outputs in, instead of the usual one.",
        "yes": "Answer yes to questions.",
    },
)
def run(
    c: Context,
    command: str = "",
    keep: bool = False,
    detach: bool = False,
    yes: bool = False,
    into: str = "",
) -> Any:
    """Run the job on a box: the whole chain, or `inv run -- any command`."""
    return load("run").perform(
        session_of(c), _words(c), line=command or None, detach=detach, yes=yes
    )


@_stage(
    each_time=True,
    help={
        "into": "Folder to put the outputs in, instead of the usual one.",
        "partial": "Fetch although the job still runs, or its fate is unknown.",
        "unsafe-links": "Also make links that lead out of the project.",
        "unsafe-git": "Also bring .git folders, whose programs git would run here.",
        "rescue": "Pay for a machine to read the disk of a box that was taken.",
    },
)
def fetch(
    c: Context,
    into: str = "",
    partial: bool = False,
    unsafe_links: bool = False,
    unsafe_git: bool = False,
    rescue: bool = False,
) -> Any:
    """Have the outputs here, verified byte for byte."""
    context = session_of(c)
    told = context.store.record.job_into
    with context.fetching_into(into or (str(context.root / told) if told else "")):
        return load("fetch").perform(
            context,
            partial=partial,
            unsafe_links=unsafe_links,
            unsafe_git=unsafe_git,
            rescue=rescue,
        )


@_stage(
    each_time=True,
    help={
        "discard-outputs": "Give up outputs that are not here.",
        "all": "All boxes of this project, whatever their name.",
        "yes": "Do not ask.",
    },
)
def teardown(
    c: Context, discard_outputs: bool = False, all: bool = False, yes: bool = False
) -> Any:
    """Remove the box, once its outputs are here, and prove that it is gone."""
    context, stages = session_of(c), load("teardown")
    if all:
        return stages.perform_all(context, discard=discard_outputs, yes=yes)
    return stages.perform(context, discard=discard_outputs, yes=yes)


@_stage(each_time=True)
def plan(c: Context) -> Any:
    """Say what `inv run` would do, and why; change nothing."""
    return load("plan").whole(session_of(c))


@_stage(each_time=True)
def status(c: Context) -> Any:
    """Print the boxes and jobs of this project."""
    return load("status").perform(session_of(c))


@_stage(each_time=True)
def logs(c: Context) -> Any:
    """Come back to the job: its output so far, then live; its exit code is ours."""
    return load("logs").perform(session_of(c))


@_stage(each_time=True)
def cancel(c: Context) -> Any:
    """Stop the job: TERM, some time to save, KILL. The box stays."""
    return load("cancel").perform(session_of(c))


@_stage(each_time=True)
def ssh(c: Context) -> Any:
    """Open a shell on the box, or run a command: `inv ssh -- htop`."""
    code = load("ssh").perform(session_of(c), _words(c))
    if code:
        raise Exit(code=code)
    return None


@_stage(
    each_time=True,
    help={
        "yes": "Remove what has expired.",
        "print-cron": "Print a line for crontab that sweeps every hour.",
    },
)
def sweep(c: Context, yes: bool = False, print_cron: bool = False) -> Any:
    """Print everything of this owner, in every project; remove what has expired."""
    context, stages = session_of(c), load("sweep")
    if print_cron:
        return stages.print_cron(context)
    return stages.perform(context, yes=yes)


@_stage(
    each_time=True,
    help={"policy": "Print the least permissions that the provider needs."},
)
def doctor(c: Context, policy: bool = False) -> Any:
    """Look for whatever would keep a run from working here."""
    context, stages = session_of(c), load("doctor")
    return stages.print_policy(context) if policy else stages.perform(context)


@_stage(each_time=True, help={"force": "Replace the onebox.toml that is there."})
def init(c: Context, force: bool = False) -> Any:
    """Write a short onebox.toml to start from."""
    return load("init").perform(session_of(c), force=force)


def _words(c: Context) -> Sequence[str] | None:
    return remainder_of(c) or None


ns = Collection(
    image,
    provision,
    push,
    run,
    fetch,
    teardown,
    plan,
    status,
    logs,
    cancel,
    ssh,
    sweep,
    doctor,
    init,
)
