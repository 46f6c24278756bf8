"""Write the onebox.toml that a project starts with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox.errors import UsageError
from onebox.providers import CLOUDS
from onebox.store.atomic_files import write_atomically

if TYPE_CHECKING:
    from onebox.context import BoxContext

_LOCAL = f"# This machine, to rehearse a run on a cloud: {', '.join(CLOUDS)}."
_CLOUD = "# Or local, to rehearse a run on this machine at no cost."

_TEMPLATE = """\
# onebox: one job on one big machine. onebox.toml.example shows every setting.
{note}
provider = "{provider}"
vm = "medium"                  # small, medium, large, xlarge; `inv plan` has prices

[image]
setup = ""                     # a script that installs what the job needs

[run]
command = "python job.py"

[fetch]
outputs = ["results/"]         # the job's outputs that are copied back

[limits]
max_hours = 8                  # the deadline: the box powers itself off
"""


def perform(context: BoxContext, *, force: bool = False) -> None:
    """
    Write onebox.toml, and add the folder of logs and receipts to .gitignore.

    Raises:
        UsageError: onebox.toml exists already, and *force* is not set.
    """
    path = context.root / "onebox.toml"
    if path.exists() and not force:
        raise UsageError(f"{path} exists already", next="inv init --force")
    text = template(context.settings.provider)
    write_atomically(path, text.encode(), mode=0o644)
    context.screen.print_stage("init", "done", "written", "onebox.toml")
    ignore = context.root / ".gitignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.exists() else []
    if ".onebox/" not in lines:
        text = "".join(f"{line}\n" for line in [*lines, ".onebox/"])
        write_atomically(ignore, text.encode(), mode=0o644)
        context.screen.print_stage("init", "done", "written", ".gitignore: .onebox/")
    has_job = (context.root / "job.py").exists()
    context.screen.note(f"next: {'' if has_job else '[run] command, then '}inv run")


def template(provider: str) -> str:
    """Return a short onebox.toml for a new project."""
    note = _CLOUD if provider in CLOUDS else _LOCAL
    return _TEMPLATE.format(provider=provider, note=note)
