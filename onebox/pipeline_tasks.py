"""
Define the Invoke tasks of the pipeline, from `image` to `teardown`.

`onebox.tasks` has the other tasks, and the collection of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onebox.parser import remainder_of
from onebox.plugin import Stage, context_of, stage_module

JSON_HELP = "Print one JSON document."

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from invoke.context import Context


def builtin_stage(
    *needs: Stage, **options: Any
) -> Callable[[Callable[..., Any]], Stage]:
    """Return a decorator that makes one of onebox's own stages."""

    def decorate(body: Callable[..., Any]) -> Stage:
        return Stage(body, needs=needs, builtin=True, **options)

    return decorate


@builtin_stage(
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


@builtin_stage(image, on_box=True)
def provision(c: Context) -> Any:
    """Create or reuse the box; it stays up until `inv teardown`."""
    return stage_module("provision").perform(context_of(c))


@builtin_stage(provision, on_box=True, before_job=True)
def push(c: Context) -> Any:
    """Copy code and data to the box; delete there what was deleted here."""
    return stage_module("push").perform(context_of(c))


@builtin_stage(
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


@builtin_stage(
    push,
    name="map",
    takes_command=True,
    iterable=["over"],
    help={
        "over": "A parameter and its values: seed=1..50 or alpha=0.1,1,10; repeatable.",
        "failed": "Run only the units that are not done.",
        "again": "Run all units, also those of a sweep that is not complete.",
        "limit": "Run at most so many units, for a first try.",
        "boxes": "Deal the units to so many boxes, at most 10, which run side by side.",
        "keep": "Keep the box up after the units.",
        "detach": "Start the units and return; `inv logs` follows them.",
        "queue": "If the box is busy, wait in this terminal for your turn, then run.",
        "command": "Shell command of a unit instead of [map] command.",
        "into": "Folder for the outputs, instead of the usual one.",
        "yes": "Answer yes to all questions.",
    },
)
def map_(
    c: Context,
    over: Sequence[str] | None = None,
    failed: bool = False,
    again: bool = False,
    limit: str = "",
    boxes: str = "",
    command: str = "",
    keep: bool = False,
    detach: bool = False,
    queue: bool = False,
    yes: bool = False,
    into: str = "",
) -> Any:
    """Run the command of [map] once for each set of parameters, many at once."""
    return stage_module("map").perform(context_of(c), detach=detach, yes=yes)


@builtin_stage(
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


@builtin_stage(
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
