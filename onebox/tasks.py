"""
Define the Invoke tasks in the order of the pipeline; `onebox.stages` does the work.

`from onebox import image, provision, push, run, fetch, teardown` adds them to a
project's tasks.py; `Collection(train, box=onebox.ns)` adds them as `box.run` etc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.exceptions import Exit

from onebox.plugin import Stage, context_of, remainder_of, stage_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from invoke.context import Context


def _stage(*needs: Stage, **options: Any) -> Callable[[Callable[..., Any]], Stage]:
    def decorate(body: Callable[..., Any]) -> Stage:
        return Stage(body, needs=needs, builtin=True, **options)

    return decorate


@_stage(
    help={
        "from-box": "Save the disk of the live box instead of building the recipe.",
        "as": "Name of the image that --from-box saves or --prune removes.",
        "list": "Print your images and their monthly cost.",
        "prune": "Remove images that a newer one replaces.",
        "all": "With --prune: in all of your projects.",
        "rebuild": "Build even if the recipe is unchanged.",
        "keep": "Keep the builder box if its set-up fails.",
        "yes": "Answer yes to all questions.",
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
    """Build the image with the job's environment; skip if its recipe is unchanged."""
    context, module = context_of(c), stage_module("image")
    if list:
        return module.show_list(context)
    if prune:
        return module.prune(context, as_, everywhere=all, yes=yes)
    if from_box:
        return module.save_from_box(context, as_, yes=yes)
    context.invocation.keep_builder = keep
    return module.perform(context, rebuild=rebuild)


@_stage(image, on_box=True)
def provision(c: Context) -> Any:
    """Create or reuse the box; it stays up until `inv teardown`."""
    return stage_module("provision").perform(context_of(c))


@_stage(provision, on_box=True, before_job=True)
def push(c: Context) -> Any:
    """Copy code and data to the box; delete there what was deleted here."""
    return stage_module("push").perform(context_of(c))


@_stage(
    push,
    help={
        "keep": "Keep the box up after the job.",
        "detach": "Start the job and return; `inv logs` follows it.",
        "command": "Shell command to run instead of [run] command.",
        "into": "Folder for the outputs, instead of the usual one.",
        "yes": "Answer yes to all questions.",
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
    """Run the job and fetch its outputs; `inv run -- COMMAND` runs another."""
    return stage_module("run").perform(
        context_of(c),
        remainder_of(c) or None,
        shell_command=command or None,
        detach=detach,
        yes=yes,
    )


@_stage(
    each_time=True,
    help={
        "into": "Folder for the outputs, instead of the usual one.",
        "partial": "Fetch even if the job still runs or its outcome is unknown.",
        "unsafe-links": "Also create links that point out of the project.",
        "unsafe-git": "Also fetch .git folders, although git runs programs they name.",
        "rescue": "Pay for a machine that reads the disk of a preempted box.",
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
    """Fetch the outputs, verified byte for byte."""
    context = context_of(c)
    with context.using_outputs_folder(into or context.job_outputs_folder):
        return stage_module("fetch").perform(
            context,
            partial=partial,
            unsafe_links=unsafe_links,
            unsafe_git=unsafe_git,
            rescue=rescue,
        )


@_stage(
    each_time=True,
    help={
        "discard-outputs": "Delete outputs that are not fetched.",
        "all": "Remove all boxes of this project.",
        "yes": "Answer yes to all questions.",
    },
)
def teardown(
    c: Context, discard_outputs: bool = False, all: bool = False, yes: bool = False
) -> Any:
    """Remove the box after its outputs are fetched, and verify that it is gone."""
    context, module = context_of(c), stage_module("teardown")
    if all:
        return module.perform_all(context, discard=discard_outputs, yes=yes)
    return module.perform(context, discard=discard_outputs, yes=yes)


@_stage(each_time=True)
def plan(c: Context) -> Any:
    """Print what `inv run` would do, and why; change nothing."""
    return stage_module("plan").show_run(context_of(c))


@_stage(each_time=True)
def status(c: Context) -> Any:
    """Print the boxes and jobs of this project."""
    return stage_module("status").perform(context_of(c))


@_stage(
    each_time=True,
    help={
        "tail": "Print only so many of the last lines, and what follows.",
        "since": "Print only the output of the last time, such as 10m or 2h.",
        "follow": "Wait for the end of a running job; if not, exit with 0.",
        "job": "Id of an earlier job, as `inv history` prints it.",
    },
)
def logs(
    c: Context, tail: str = "", since: str = "", follow: bool = True, job: str = ""
) -> Any:
    """Show the job's output, follow it live, and exit with its exit code."""
    return stage_module("logs").perform(
        context_of(c), tail=tail, since=since, follow=follow, job=job
    )


@_stage(each_time=True, help={"limit": "Print at most so many jobs."})
def history(c: Context, limit: str = "20") -> Any:
    """Print the jobs of this project, newest first, with their ends and costs."""
    return stage_module("history").perform(context_of(c), limit)


@_stage(
    each_time=True, help={"once": "Print once, as in a pipe, instead of every 2 s."}
)
def top(c: Context, once: bool = False) -> Any:
    """Show what box and job use now: CPU, memory, disk, GPUs; Ctrl-C ends it."""
    return stage_module("top").perform(context_of(c), once=once)


@_stage(each_time=True)
def cancel(c: Context) -> Any:
    """Stop the job: SIGTERM, a grace period, SIGKILL. The box stays up."""
    return stage_module("cancel").perform(context_of(c))


@_stage(each_time=True)
def ssh(c: Context) -> Any:
    """Open a shell on the box, or run a command: `inv ssh -- htop`."""
    code = stage_module("ssh").perform(context_of(c), remainder_of(c))
    if code:
        raise Exit(code=code)
    return None


@_stage(
    each_time=True,
    aliases=("sweep",),
    help={
        "yes": "Remove what has expired.",
        "print-cron": "Print a crontab line that runs `inv cleanup` every hour.",
    },
)
def cleanup(c: Context, yes: bool = False, print_cron: bool = False) -> Any:
    """List your boxes in every project and region; with --yes, remove expired ones."""
    context, module = context_of(c), stage_module("cleanup")
    if print_cron:
        return module.print_cron(context)
    return module.perform(context, yes=yes)


@_stage(
    each_time=True,
    help={"policy": "Print the least permissions onebox needs at the provider."},
)
def doctor(c: Context, policy: bool = False) -> Any:
    """Check everything that a run needs on this machine and at the provider."""
    context, module = context_of(c), stage_module("doctor")
    return module.print_policy(context) if policy else module.perform(context)


@_stage(each_time=True, help={"force": "Replace an existing onebox.toml."})
def init(c: Context, force: bool = False) -> Any:
    """Write a short onebox.toml to start from."""
    return stage_module("init").perform(context_of(c), force=force)


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
    history,
    top,
    cancel,
    ssh,
    cleanup,
    doctor,
    init,
)
