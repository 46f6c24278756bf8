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

    *files* are the inputs and outputs that it declares, such as "data/ → model.pkl".
    """

    name: str
    needs: tuple[StageNode, ...] = ()
    files: str = ""


def show(context: BoxContext, nodes: Sequence[StageNode]) -> None:
    """Print a tree for each stage that no other stage needs."""
    lines = [line for node in nodes for line in _lines(node, "", "")]
    width = max((len(text) for text, _ in lines), default=0)
    for text, files in lines:
        context.screen.print(f"{text:<{width}}  {files}".rstrip())
    if not lines:
        context.screen.print("no stage needs another one")


def _lines(node: StageNode, first: str, rest: str) -> Iterator[tuple[str, str]]:
    """Yield the tree below *node* as lines: the tree, and the stage's files."""
    yield first + node.name, node.files
    for number, need in enumerate(node.needs):
        last = number == len(node.needs) - 1
        yield from _lines(
            need,
            rest + ("└─ " if last else "├─ "),
            rest + ("   " if last else "│  "),
        )
