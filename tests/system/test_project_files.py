"""The folders that outputs were fetched into, as they are recorded."""

from __future__ import annotations

from onebox.context import BoxContext
from onebox.invocation import Invocation
from onebox.project_files import FOLDERS, note_folder, noted_folders
from tests.conftest import Project


def test_a_line_cut_short_by_a_crash_loses_no_other_folder(project: Project) -> None:
    """The folders before and after the damaged line are still known as outputs."""
    context = BoxContext.open(
        str(project.root), project.environ, {}, Invocation("inv", ())
    )
    context.fetch_memory.mkdir(parents=True)
    note_folder(context, project.root / "first")
    record = context.fetch_memory / FOLDERS
    with record.open("a") as file:
        file.write('"damag')
    note_folder(context, project.root / "last")

    assert {"first", "last"} <= set(noted_folders(context))
