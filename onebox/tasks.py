"""
Define the Invoke tasks in the order of the pipeline; `onebox.stages` does the work.

`from onebox import image, provision, push, run, fetch, teardown` adds them to a
project's tasks.py; `Collection(train, box=onebox.ns)` adds them as `box.run` etc.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.exceptions import Exit

from onebox.line_contexts import load_module
from onebox.parser import remainder_of
from onebox.plugin import Stage, context_of, stage_graph, stage_module

JSON_HELP = "Print one JSON document."

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        "json": JSON_HELP,
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
    json: bool = False,
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
    takes_command=True,
    help={
        "keep": "Keep the box up after the job.",
        "detach": "Start the job and return; `inv logs` follows it.",
        "queue": "If the box is busy, wait in this terminal for your turn, then run. "
        "A closed terminal loses its turn.",
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
    queue: bool = False,
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


@_stage(
    each_time=True,
    read_only=True,
    takes_command=True,
    help={
        "command": "Shell command to plan instead of [run] command.",
        "graph": "Print which stage needs which, your own stages included.",
        "json": JSON_HELP,
    },
)
def plan(c: Context, command: str = "", graph: bool = False, json: bool = False) -> Any:
    """Print what `inv run` would do, cost and refuse, and why; change nothing."""
    if graph:
        return stage_module("graph").show(context_of(c), stage_graph())
    line = load_module("formatting").shell_line(remainder_of(c)) or command
    return stage_module("plan").show_run(context_of(c), line)


@_stage(
    each_time=True,
    read_only=True,
    help={"limit": "Print at most this many offers; 0 prints all.", "json": JSON_HELP},
)
def offers(c: Context, limit: str = "15", json: bool = False) -> Any:
    """Print the machine types that fit --vm, with their prices, best first."""
    return stage_module("offers").perform(context_of(c), limit)


@_stage(each_time=True, read_only=True, help={"json": JSON_HELP})
def status(c: Context, json: bool = False) -> Any:
    """Print the boxes and jobs of this project."""
    return stage_module("status").perform(context_of(c))


@_stage(
    each_time=True,
    read_only=True,
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


@_stage(
    each_time=True,
    read_only=True,
    help={"limit": "Print at most so many jobs; 0 prints all.", "json": JSON_HELP},
)
def history(c: Context, limit: str = "20", json: bool = False) -> Any:
    """Print the jobs of this project, newest first, with their ends and costs."""
    return stage_module("history").perform(context_of(c), limit)


@_stage(
    each_time=True,
    read_only=True,
    help={"once": "Print once, as in a pipe, instead of every 2 s."},
)
def top(c: Context, once: bool = False) -> Any:
    """Show what box and job use now: CPU, memory, disk, GPUs; Ctrl-C ends it."""
    return stage_module("top").perform(context_of(c), once=once)


@_stage(each_time=True)
def cancel(c: Context) -> Any:
    """Stop the job: SIGTERM, a grace period, SIGKILL. The box stays up."""
    return stage_module("cancel").perform(context_of(c))


@_stage(
    each_time=True,
    takes_command=True,
    iterable=["forward"],
    help={
        "forward": "Forward this port of the box to here; 8080:80 for another port.",
        "install": "Let your own ssh and VS Code reach boxes: ssh onebox-PROJECT.",
        "uninstall": "Take the line of --install out of your ssh configuration.",
    },
)
def ssh(
    c: Context,
    forward: Sequence[str] | None = None,
    install: bool = False,
    uninstall: bool = False,
) -> Any:
    """Open a shell on the box, or run a command: `inv ssh -- htop`."""
    context, module = context_of(c), stage_module("ssh")
    if install:
        return module.install(context)
    if uninstall:
        return module.uninstall(context)
    code = module.perform(context, remainder_of(c), forward or ())
    if code:
        raise Exit(code=code)
    return None


@_stage(push, each_time=True)
def notebook(c: Context) -> Any:
    """Run Jupyter on the box until Ctrl-C, and fetch the notebooks."""
    return stage_module("notebook").perform(context_of(c))


@_stage(
    name="exec",
    each_time=True,
    takes_command=True,
    help={"command": "Shell command to run, such as 'a && b'."},
)
def exec_(c: Context, command: str = "") -> Any:
    """Run a command beside the job, in its environment: `inv exec -- nvidia-smi`."""
    code = stage_module("exec").perform(context_of(c), remainder_of(c), command or None)
    if code:
        raise Exit(code=code)
    return None


@_stage(
    each_time=True,
    read_only=True,
    help={
        "yes": "Remove what has expired.",
        "json": JSON_HELP,
        "print-cron": "Print a crontab line that runs `inv cleanup` every hour.",
    },
)
def cleanup(
    c: Context, yes: bool = False, print_cron: bool = False, json: bool = False
) -> Any:
    """List your boxes in every project and region; with --yes, remove expired ones."""
    context, module = context_of(c), stage_module("cleanup")
    if print_cron:
        return module.print_cron(context)
    return module.perform(context, yes=yes)


@_stage(
    each_time=True,
    read_only=True,
    help={
        "policy": "Print the least permissions onebox needs at the provider.",
        "settings": "Print the settings in force, and where each one comes from.",
        "json": JSON_HELP,
    },
)
def doctor(
    c: Context, policy: bool = False, settings: bool = False, json: bool = False
) -> Any:
    """Check everything that a run needs on this machine and at the provider."""
    context, module = context_of(c), stage_module("doctor")
    if settings:
        return module.print_settings(context)
    return module.print_policy(context) if policy else module.perform(context)


@_stage(
    each_time=True,
    help={
        "force": "Replace an existing onebox.toml, which is kept as onebox.toml~.",
        "example": "Print every setting with its default; write nothing.",
    },
)
def init(c: Context, force: bool = False, example: bool = False) -> Any:
    """Look around in the project, and write an onebox.toml that fits it."""
    context, module = context_of(c), stage_module("init")
    if example:
        return module.print_example(context)
    return module.perform(context, force=force)


ns = Collection(
    image,
    provision,
    push,
    run,
    fetch,
    teardown,
    plan,
    offers,
    status,
    logs,
    history,
    top,
    cancel,
    ssh,
    exec_,
    notebook,
    cleanup,
    doctor,
    init,
)


def collection(config_file: str) -> Collection:
    """
    Return a collection of all tasks that use *config_file* instead of onebox.toml.

    A project can so have two boxes under two namespaces:

        ns = Collection(...)
        ns.add_collection(onebox.collection("gpu.toml"), name="gpu")

    `inv gpu.run` then uses gpu.toml. Its box is called `gpu`, as the file is, unless
    the file sets `name`.

    Args:
        config_file: The path of the file, relative to the project's folder.
    """
    copies: dict[Any, Stage] = {}
    # A stage comes after the stages that it needs.
    for task in ns.tasks.values():
        copies[task] = copy.copy(task)
        copies[task].config_file = config_file
        copies[task].needs = tuple(copies[need] for need in copies[task].needs)
    return Collection(*copies.values())
