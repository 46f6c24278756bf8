"""Find, before anything is created, what this machine alone can tell would go wrong."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import InputError, OneboxError, StateError, UsageError
from onebox.images import stale_lock
from onebox.project_files import configured_outputs
from onebox.settings import file_problems
from onebox.settings.quoting import show
from onebox.stages import data
from onebox.store.atomic_files import private_dir
from onebox.store.paths import holds, local_root, state_dir
from onebox.transfer.ledger import LastFetch

if TYPE_CHECKING:
    from onebox.context import BoxContext

# The project's own folder of onebox, and the name of the folder of the local boxes.
LOCAL = ".onebox"
BOXES = "local boxes"


def problems(context: BoxContext) -> Iterator[tuple[str, OneboxError]]:
    """
    Yield the errors of `check`, each with the table of onebox.toml that it concerns.

    For onebox's own folders, `LOCAL`, `BOXES` or "state" stands for the table.
    """
    for path, error in file_problems(context.settings, context.root):
        yield path.partition(".")[0], error
    stale = stale_lock.problem(context.root, context.settings.image.requirements)
    if stale is not None:
        yield "image", stale
    try:
        data.check(context)
    except OneboxError as error:
        yield "push", error
    outputs = _outputs_problem(context)
    outputs = outputs or _read_only_problem(context)
    if outputs is not None:
        yield "fetch", outputs
    try:
        _check_local_dir(context)
    except OneboxError as error:
        yield LOCAL, error
    folders = [("state", "onebox's state", "ONEBOX_STATE", state_dir(context.environ))]
    if context.provider_name == "local":
        root = local_root(context.environ)
        folders.append((BOXES, "a local box", "ONEBOX_LOCAL_ROOT", root))
    for name, what, variable, folder in folders:
        unusable = unwritable(folder)
        if unusable is not None:
            problem = f"{what} cannot be written to {folder}: {unusable.strerror}"
            advice = f"fix the permissions, or set {variable} to another folder"
            yield name, StateError(problem, next=advice)


def check(context: BoxContext) -> None:
    """
    Raise the first error that this machine alone can find.

    Raises:
        InputError: A path that onebox.toml names is missing or of the wrong kind,
            uv.lock is older than pyproject.toml, or a folder for outputs cannot be
            written.

        StateError: onebox cannot write into one of its own folders.

        UsageError: The line has a notebook, which a cluster does not have.
    """
    for _, error in problems(context):
        raise error
    if context.invocation.task == "notebook" and not context.provider.powers_off:
        raise UsageError(
            f"there is no notebook on {context.provider.name}: it would not run on a "
            "node of the cluster",
            next="the cluster's own JupyterHub, or --provider=local",
        )


def describe_links(context: BoxContext) -> str:
    """
    Return a warning about a link out of the project in the place of an output folder.

    A fetch never writes through it, because a project that was cloned may bring a link
    that leads anywhere. Return "" without such a link.
    """
    # `Path.resolve` raises an error for a link that leads to itself.
    project = Path(os.path.realpath(context.root))
    for output in configured_outputs(context):
        path = context.outputs_folder / output.rstrip("/")
        inside = [
            each
            for each in reversed((path, *path.parents))
            if context.outputs_folder in each.parents
        ]
        link = next((each for each in inside if each.is_symlink()), None)
        if link is not None and not holds(project, Path(os.path.realpath(link))):
            name = formatting.path(os.path.relpath(link, context.root))
            return (
                f"{name} is a link, which no output is written through: it will be "
                f"kept as {name}~, beside a folder {name}; --into=DIR puts the outputs "
                "elsewhere"
            )
    return ""


def unwritable(folder: Path) -> OSError | None:
    """Return why onebox cannot create its *folder* or write into it, else None."""
    try:
        with tempfile.TemporaryFile(dir=private_dir(folder)):
            return None
    except OSError as error:
        return error


def _outputs_problem(context: BoxContext) -> OneboxError | None:
    """Return an error if a file is in the way of the folder for the outputs."""
    folder = context.outputs_folder
    blocking = _file_at_or_above(folder)
    if blocking is None:
        return None
    return InputError(
        f"{_setting_of_folder(context)}: {show(str(folder))} cannot be created, "
        f"because {show(str(blocking))} is not a folder",
        next="name another folder, or move the file away",
    )


def _setting_of_folder(context: BoxContext) -> str:
    """Return the flag or the setting that names the folder for the outputs."""
    if context.outputs_folder != context.default_outputs_folder:
        return "--into"
    source = context.settings.source("fetch.outputs_to")
    return f"{source}: [fetch] outputs_to"


def _read_only_problem(context: BoxContext) -> OneboxError | None:
    """Return an error if a fetch could not write where it puts the outputs."""
    into = context.outputs_folder
    for name in ("outputs", "checkpoints"):
        source = context.settings.source(f"fetch.{name}")
        for output in getattr(context.settings.fetch, name):
            place = _nearest_folder(into, into / output)
            # A fetch can write into a folder that an earlier one has made read-only,
            # because the job had.
            sealed = place == into / output and _is_sealed(context, output)
            if not (_writable(place) or sealed):
                return _read_only(place, f"{source}: [fetch] {name}")
    # A folder on another disk also receives the files while they are transferred.
    place = _nearest_folder(into, into)
    memory = _nearest_folder(context.local_dir, context.local_dir)
    staged = place.stat().st_dev != memory.stat().st_dev
    if (staged or place != into) and not _writable(place):
        return _read_only(place, _setting_of_folder(context))
    return None


def _read_only(folder: Path, setting: str) -> InputError:
    place = setting.removeprefix("default: ")
    path = formatting.path(str(folder))
    return InputError(
        f"{place}: {path} cannot be written, so the outputs could not be fetched",
        next="make it writable, or name another folder with --into",
    )


def _nearest_folder(into: Path, path: Path) -> Path:
    """
    Return the nearest folder at or above *path* that exists.

    Below *into*, a link is no folder, because a fetch replaces it.
    """
    while not path.is_dir() or (into in path.parents and path.is_symlink()):
        path = path.parent
    return path


def _is_sealed(context: BoxContext, output: str) -> bool:
    """Return whether a fetch has made the folder of an output read-only."""
    return any(
        LastFetch(memory).has_sealed(context.outputs_folder, output.rstrip("/"))
        for memory in context.fetch_memory.parent.glob("*")
    )


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _check_local_dir(context: BoxContext) -> None:
    """Raise StateError if the logs and receipts of jobs cannot be kept here."""
    for folder in (context.local_dir / "jobs", context.fetch_memory):
        blocking = _file_at_or_above(folder)
        if blocking is not None:
            raise StateError(
                f"{blocking} is not a folder, and onebox keeps logs and receipts there",
                next="move it away, then run the same command again",
            )
    folder = context.local_dir
    place = folder if folder.exists() else context.root
    if not _writable(place):
        raise StateError(
            f"{formatting.path(str(place))} cannot be written, and onebox keeps logs "
            "and receipts there",
            next="make it writable, or copy the project to a folder of yours",
        )


def _file_at_or_above(folder: Path) -> Path | None:
    """Return the nearest path that exists at or above *folder* if it is no folder."""
    for path in (folder, *folder.parents):
        # A path below a file does not exist either.
        if path.is_dir():
            return None
        if path.exists() or path.is_symlink():
            return path
    return None
