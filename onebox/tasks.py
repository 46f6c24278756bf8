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
from onebox.pipeline_tasks import (
    JSON_HELP,
    builtin_stage,
    fetch,
    image,
    map_,
    provision,
    push,
    run,
    teardown,
)
from onebox.plugin import Stage, context_of, stage_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invoke.context import Context


@builtin_stage(
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
        nodes = load_module("stage_graph").stage_graph()
        return stage_module("graph").show(context_of(c), nodes)
    if context_of(c).invocation.plans_map:
        return None
    line = load_module("formatting").shell_line(remainder_of(c)) or command
    return stage_module("plan").show_run(context_of(c), line)


@builtin_stage(
    each_time=True,
    read_only=True,
    help={"limit": "Print at most this many offers; 0 prints all.", "json": JSON_HELP},
)
def offers(c: Context, limit: str = "15", json: bool = False) -> Any:
    """Print the machine types that fit --vm, with their prices, best first."""
    return stage_module("offers").perform(context_of(c), limit)


@builtin_stage(each_time=True, read_only=True, help={"json": JSON_HELP})
def status(c: Context, json: bool = False) -> Any:
    """Print the boxes and jobs of this project."""
    return stage_module("status").perform(context_of(c))


@builtin_stage(
    each_time=True,
    read_only=True,
    help={
        "tail": "Print only so many of the last lines, and what follows.",
        "since": "Print only the output of the last time, such as 10m or 2h.",
        "follow": "Wait for the end of a running job; if not, exit with 0.",
        "job": "Id of an earlier job, as `inv history` prints it.",
        "unit": "Show the output of this unit of `inv map`.",
    },
)
def logs(
    c: Context,
    tail: str = "",
    since: str = "",
    follow: bool = True,
    job: str = "",
    unit: str = "",
) -> Any:
    """Show the job's output, follow it live, and exit with its exit code."""
    if unit:
        return stage_module("unit_log").perform(
            context_of(c), unit, tail=tail, follow=follow, job=job
        )
    return stage_module("logs").perform(
        context_of(c), tail=tail, since=since, follow=follow, job=job
    )


@builtin_stage(
    each_time=True,
    read_only=True,
    help={"limit": "Print at most so many jobs; 0 prints all.", "json": JSON_HELP},
)
def history(c: Context, limit: str = "20", json: bool = False) -> Any:
    """Print the jobs of this project, newest first, with their ends and costs."""
    return stage_module("history").perform(context_of(c), limit)


@builtin_stage(
    each_time=True,
    read_only=True,
    help={"once": "Print once, as in a pipe, instead of every 2 s."},
)
def top(c: Context, once: bool = False) -> Any:
    """Show what box and job use now: CPU, memory, disk, GPUs; Ctrl-C ends it."""
    return stage_module("top").perform(context_of(c), once=once)


@builtin_stage(each_time=True)
def cancel(c: Context) -> Any:
    """Stop the job: SIGTERM, a grace period, SIGKILL. The box stays up."""
    return stage_module("cancel").perform(context_of(c))


@builtin_stage(
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


@builtin_stage(push, each_time=True)
def notebook(c: Context) -> Any:
    """Run Jupyter on the box until Ctrl-C, and fetch the notebooks."""
    return stage_module("notebook").perform(context_of(c))


@builtin_stage(
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


@builtin_stage(
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


@builtin_stage(
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


@builtin_stage(
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


@builtin_stage(
    each_time=True,
    help={
        "to": "What the file is for: skypilot or slurm.",
        "file": "Another name for the file; - prints it.",
        "units": "Export the units of [map], although [run] command is set.",
        "force": "Replace an existing file, which is kept as name~.",
    },
)
def export(
    c: Context, to: str = "", file: str = "", units: bool = False, force: bool = False
) -> Any:
    """Write a file that runs the same job on Slurm or SkyPilot, without onebox."""
    return stage_module("export").perform(
        context_of(c), to, file, units=units, force=force
    )


ns = Collection(
    image,
    provision,
    push,
    run,
    map_,
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
    export,
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
