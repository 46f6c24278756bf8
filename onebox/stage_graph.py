"""Find which stage of the user's tasks.py needs which, for `inv plan --graph`."""

from __future__ import annotations

from typing import Any

from onebox.invoke_internals import all_tasks
from onebox.plugin import Stage, stage_module


def stage_graph() -> list[Any]:
    """
    Return a `StageNode` for each stage that needs others and that no other one needs.

    The list is empty if Invoke's executor has not called the stage.
    """
    node_class = stage_module("graph").StageNode
    typed = all_tasks()
    stages = [task for task in typed if isinstance(task, Stage)]

    def node(stage: Stage) -> Any:
        needs = tuple(node(need) for need in stage.needs)
        name = typed.get(stage, stage.name)
        return node_class(name, needs, stage.inputs, stage.outputs)

    needed = {need.body for stage in stages for need in stage.needs}
    return [
        node(stage)
        for stage in stages
        if stage.body not in needed and (stage.needs or stage.declares_files)
    ]
