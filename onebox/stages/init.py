"""Write the onebox.toml that a project starts with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import config
from onebox.errors import UsageError
from onebox.store.atomic_files import write_atomically

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext, *, force: bool = False) -> None:
    """
    Write onebox.toml, and add the folder of logs and receipts to .gitignore.

    Raises:
        UsageError: onebox.toml exists, and *force* is not set.
    """
    path = context.root / "onebox.toml"
    if path.exists() and not force:
        raise UsageError(f"{path} exists already", next="inv init --force")
    text = config.template(context.settings.provider)
    write_atomically(path, text.encode(), mode=0o644)
    context.screen.line("init", "done", "written", "onebox.toml")
    ignore = context.root / ".gitignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.exists() else []
    if ".onebox/" not in lines:
        text = "".join(f"{line}\n" for line in [*lines, ".onebox/"])
        write_atomically(ignore, text.encode(), mode=0o644)
        context.screen.line("init", "done", "written", ".gitignore: .onebox/")
    # The template's [run] command is `python job.py`.
    has_job = (context.root / "job.py").exists()
    context.screen.note(f"next: {'' if has_job else '[run] command, then '}inv run")
