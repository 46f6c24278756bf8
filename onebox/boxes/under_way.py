"""Find the boxes that other commands on this machine create, remove or use now."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.errors import OneboxError
from onebox.store.box_store import BoxStore, box_folders
from onebox.store.journal import Intent
from onebox.store.paths import state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext


@dataclass(frozen=True)
class UnderWay:
    """
    What another command does with a box.

    Attributes:
        project, name: The id of the project, and the box's `--name`.

        action: "create" or "delete"; "use" for everything else.

        box: The id of the box, "" if it is unknown.

        is_builder: Whether the box only builds an image.

        pid, command: The process and its command line.

        since: When the action began, in epoch seconds by this machine's clock.
    """

    project: str
    name: str
    action: str
    box: str
    is_builder: bool
    pid: int
    command: str
    since: float

    def describe(self, title: str) -> str:
        """Return a sentence; *title* is the project and the name of the box."""
        since = formatting.clock(self.since, time.time())
        by = f'by pid {self.pid} "{printable(self.command)}", since {since}'
        if self.action == "use":
            return f"{title} is used {by}; no box is listed yet"
        verb = {"create": "created", "delete": "removed"}[self.action]
        builder = " (builder)" * self.is_builder
        box = f" ({self.box})" if self.box else ""
        return f"{title}{builder}{box} is being {verb} {by}"


def of_project(context: BoxContext, listed: Collection[str]) -> list[UnderWay]:
    """
    Return what other commands do with boxes of this project, by name.

    A box that a command only uses is left out if its name is in *listed*.
    """
    found = _find(box_folders(context.store.directory.parent))
    return [one for one in found if one.action != "use" or one.name not in listed]


def everywhere(
    context: BoxContext, listed: Collection[tuple[str, str]]
) -> list[UnderWay]:
    """
    Return what other commands do with boxes of all projects.

    A box that a command only uses is left out if its project and name are in *listed*.
    """
    projects = (state_dir(context.environ) / "projects").glob("*")
    found = _find(folder for project in projects for folder in box_folders(project))
    return [
        one
        for one in found
        if one.action != "use" or (one.project, one.name) not in listed
    ]


def _find(folders: Iterable[Path]) -> list[UnderWay]:
    """Read the locks and journals in *folders*; those of this thread are left out."""
    found = []
    for folder in sorted(folders):
        store = BoxStore(folder)
        holder = None if store.locked else store.holder()
        if holder is None:
            continue
        try:
            intents = store.open_intents()
        except OneboxError:
            intents = []
        doing = [one for one in intents if one.action in ("create", "delete")]
        last: Intent | None = doing[-1] if doing else None
        found.append(
            UnderWay(
                project=folder.parent.name,
                name=folder.name,
                action="use" if last is None else last.action,
                box="" if last is None else last.box,
                is_builder=last is not None and last.kind == "builder",
                pid=holder.pid,
                command=holder.command,
                since=holder.since if last is None else last.at,
            )
        )
    return found
