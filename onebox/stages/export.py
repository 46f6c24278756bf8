"""Write a file that runs the job elsewhere, without onebox."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import InputError, UsageError
from onebox.exports import skypilot, slurm
from onebox.stages import run
from onebox.store.atomic_files import write_atomically
from onebox.transfer import backups
from onebox.transfer.select import Selection, select
from onebox.units import plan as unit_plan
from onebox.units.plan import UnitPlan

if TYPE_CHECKING:
    from onebox.context import BoxContext

# The file's usual name, for each tool.
FILES = {"skypilot": "task.yaml", "slurm": "job.sbatch"}
_STDOUT = "-"


def perform(
    context: BoxContext, to: str, file: str, *, units: bool, force: bool
) -> None:
    """
    Write the file, or print it.

    Args:
        to: The tool that the file is for.

        file: The file, relative to the working folder; "-" is stdout, and "" the usual
            file in the project.

        units: Export the units of [map] although [run] command is set.

        force: Replace an existing file, of which a copy is kept.

    Raises:
        ConfigError: There is nothing to run.

        UsageError: The file exists, or *to* is no tool, or has no counterpart of the
            size.
    """
    if to not in FILES:
        tools = " or ".join(FILES)
        raise UsageError(
            f"--to: expected {tools}, got {to!r}"
            if to
            else f"--to is missing: {tools}",
            next="\n".join(f"inv export --to={tool}" for tool in FILES),
        )
    path = Path(file).absolute() if file else context.root / FILES[to]
    if file != _STDOUT:
        _check(path, to, file, force=force)
    text = _text(context, to, FILES[to] if file == _STDOUT else path.name, units)
    if file == _STDOUT:
        context.screen.output(text.encode())
        return
    kept = backups.keep_copy(path, text)
    write_atomically(path, text.encode(), mode=0o644)
    name = formatting.path(file or path.name)
    context.screen.print_stage(
        "export", "done", "written", f"{name}: its first lines say how to run it"
    )
    if kept:
        context.screen.note(f"the {path.name} before is now {kept}")
    if to == "slurm" and len(text.encode()) > slurm.MOST_BYTES:
        context.screen.warn(
            f"{name} has more than 4 MB, which sbatch refuses on most clusters"
        )


def _check(path: Path, to: str, file: str, *, force: bool) -> None:
    """Raise UsageError if the file cannot be written, or is not to be replaced."""
    name = formatting.path(file or path.name)
    if not path.parent.is_dir():
        raise UsageError(
            f"--file: {name} is in a folder that does not exist",
            next=f"inv export --to={to} --file={FILES[to]}",
        )
    if not os.path.lexists(path):
        return
    line = (
        f"inv export --to={to}{f' --file={shlex.quote(file)}' if file else ''} --force"
    )
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise UsageError(
            f"--file: {name} is no file", next=f"inv export --to={to} --file=-"
        )
    if not force:
        raise UsageError(f"{path} exists already", next=f"{line} to replace it")


def _text(context: BoxContext, to: str, name: str, units: bool) -> str:
    settings, plan, command = context.settings, None, ""
    if units or (settings.map.command and not settings.run.command):
        plan = _plan(context)
    else:
        command = run.configured_command(context)
    if to == "slurm":
        return slurm.script(settings, name, command, plan)
    return skypilot.task(settings, name, command, plan, _ignored(context))


def _plan(context: BoxContext) -> UnitPlan:
    settings = context.settings
    return unit_plan.make(
        settings.map,
        context.root,
        reserved=(*settings.run.env, *settings.run.secrets),
        source=settings.source,
    )


def _ignored(context: BoxContext) -> Iterator[str]:
    """Yield the paths of [push] data of which git ignores something."""
    for name in context.settings.push.local_data:
        path = os.path.normpath(name)
        if path == ".":
            continue
        with suppress(InputError):
            code = select(context.root, (path,), (), ())
            data = select(context.root, (), (path,), ())
            if _files(data) - _files(code):
                yield path


def _files(selection: Selection) -> set[bytes]:
    return {entry.path for entry in selection.entries if entry.kind != "d"}
