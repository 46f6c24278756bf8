"""Print the stages of a project as trees: each stage above the stages it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebox.context import BoxContext


@dataclass(frozen=True)
class StageNode:
    """
    One stage: the *name* that a user types, and the *needs* it runs after.

    *inputs* and *outputs* are the files that it declares.
    """

    name: str
    needs: tuple[StageNode, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def describe_files(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """
    Return the declared files of a stage as text.

    >>> describe_files(["a.csv", "b/"], ["model"])
    'a.csv, b/ → model'
    """
    return " → ".join(", ".join(names) for names in (inputs, outputs) if names)


def show(context: BoxContext, nodes: Sequence[StageNode]) -> None:
    """Print a tree for each stage that no other stage needs; with `--json`, a list."""
    if context.screen.json:
        stages = {stage.name: stage for node in nodes for stage in _stages(node)}
        fields = [
            {**vars(stage), "needs": [need.name for need in stage.needs]}
            for stage in stages.values()
        ]
        context.screen.print_json("graph", {"stages": fields})
        return
    lines = [line for node in nodes for line in _lines(node, "", "")]
    width = max((len(text) for text, _ in lines), default=0)
    for text, files in lines:
        context.screen.print(f"{text:<{width}}  {files}".rstrip())
    if not lines:
        context.screen.print("no stage needs another one")


def _stages(node: StageNode) -> Iterator[StageNode]:
    """Yield *node* and the stages that it needs, each after those it needs itself."""
    for need in node.needs:
        yield from _stages(need)
    yield node


def _lines(node: StageNode, first: str, rest: str) -> Iterator[tuple[str, str]]:
    """Yield the tree below *node* as lines: the tree, and the stage's files."""
    yield first + node.name, describe_files(node.inputs, node.outputs)
    for number, need in enumerate(node.needs):
        last = number == len(node.needs) - 1
        yield from _lines(
            need,
            rest + ("└─ " if last else "├─ "),
            rest + ("   " if last else "│  "),
        )
