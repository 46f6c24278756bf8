"""
Bring back the files that a notebook session has created or changed on the box.

Notebooks go to their places in the project, and outputs to the folder for outputs. A
box could put any program into other files, so these are kept apart: in the folder
`.onebox/notebook/NAME/files`, from which onebox runs nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import raw, text
from onebox.agent.files import manifest, push_record
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.errors import OutputsHeld
from onebox.project_files import output_roots
from onebox.remote.answers import Changes
from onebox.store.atomic_files import private_dir
from onebox.transfer import fetch_outputs
from onebox.transfer.fetch_outputs import Fetched
from onebox.transfer.ledger import Ledger

if TYPE_CHECKING:
    from onebox.context import BoxContext

NOTEBOOK = b".ipynb"
# The folders for other files, and for what is known of them.
FILES, OTHERS = "files", "others"


def describe_open(context: BoxContext) -> str:
    """Return a phrase that names the notebook that is open on the box, "" if none."""
    holder = context.store.holder()
    if holder is None or not context.store.record.session:
        return ""
    if not holder.is_notebook:
        return ""
    since = formatting.clock(holder.since, time.time())
    return f"a notebook is open since {since} (pid {holder.pid})"


def bring_back(context: BoxContext, *, during: bool = False) -> None:
    """
    Fetch what the notebook sessions on the box have created or changed.

    Without such a session, or if all of its files are here, nothing is done.

    Args:
        during: The session still runs, so files may be written to at the moment.

    Raises:
        OutputsHeld: Some files could not be fetched; the box has them.
    """
    since = context.store.record.session
    if not since:
        return
    changes: Changes = context.call_resuming(
        lambda channel: Changes.parse(channel.request("changes", since=since))
    )
    outputs = [raw(root.rstrip("/")) for root in output_roots(context)]
    rest = [path for path in changes.paths if not _is_below(path, outputs)]
    notebooks = [
        path
        for path in rest
        if path.endswith(NOTEBOOK) and _has_place(context.root, path)
    ]
    at_place = set(notebooks)
    others = [path for path in rest if path not in at_place]
    memory = private_dir(_memory(context))
    fetched: list[Fetched] = []
    with context.screen.stage("fetch") as stage_line:
        if notebooks:
            _note_unchanged(context.root, memory, changes)
        for paths, folder, kept in (
            (notebooks, context.root, memory),
            (others, memory / FILES, memory / OTHERS),
            (
                outputs if len(rest) < len(changes.paths) else [],
                context.outputs_folder,
                context.fetch_memory,
            ),
        ):
            if paths:
                # A folder with the name of a notebook could hold any program.
                only_files = paths is notebooks
                fetched.append(
                    _fetch(
                        context,
                        paths,
                        folder,
                        kept,
                        during=during,
                        only_files=only_files,
                    )
                )
        count = formatting.count(len(notebooks), "notebook") if notebooks else ""
        stage_line.end("", _describe(context, changes, count, others, memory))
    for one in fetched:
        for path, new_path in one.kept_aside:
            context.screen.warn(
                f"{formatting.path(path)} had been changed here: yours is now "
                f"{formatting.path(new_path)}"
            )
    if during:
        return
    _check_complete(context, changes, fetched)
    context.store.update(session=0.0)


def fetched_before(context: BoxContext) -> list[Entry]:
    """
    Return the files outside of the outputs that notebook sessions have brought here.

    Each has the hash of the file that is here now. A file that was changed or removed
    here since it was fetched is left out.
    """
    memory = _memory(context)
    return [
        entry
        for folder, kept in ((context.root, memory), (memory / FILES, memory / OTHERS))
        for entry in _unchanged(folder, kept)
    ]


def _memory(context: BoxContext) -> Path:
    return context.local_dir / "notebook" / context.settings.name


def _unchanged(folder: Path, memory: Path) -> list[Entry]:
    """Return the files that are in a folder as a fetch has installed them."""
    ledger = Ledger(memory)
    index = Index(os.fsencode(memory / fetch_outputs.INDEX))
    paths = ledger.paths()
    scanned = manifest.scan(os.fsencode(folder), paths, index, hashing=True)
    return [entry for entry in scanned.entries if ledger.is_ours(entry)]


def _has_place(root: Path, path: bytes) -> bool:
    """
    Return whether no file or link of the project must give way to a notebook's folder.

    A box could otherwise rename any file of the project, such as tasks.py, by a
    notebook in a folder of that name.
    """
    *folders, _ = Path(os.fsdecode(path)).parts
    here = root
    for name in folders:
        here /= name
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            return False
    return True


def _fetch(
    context: BoxContext,
    paths: Sequence[bytes],
    folder: Path,
    memory: Path,
    *,
    during: bool,
    only_files: bool,
) -> Fetched:
    private_dir(folder)
    fetched: Fetched = context.call_resuming(
        lambda channel: fetch_outputs.fetch(
            channel,
            [text(path) for path in paths],
            folder,
            memory,
            lambda *counts: None,
            skip_unstable=during,
            into_project=folder == context.root,
            only_files=only_files,
        )
    )
    return fetched


def _note_unchanged(root: Path, memory: Path, changes: Changes) -> None:
    """
    Note which files here are still as they were pushed.

    The fetch replaces these. It renames all other local files before it replaces them.
    """
    paths = [path for path in changes.paths if path in changes.pushed]
    scanned = manifest.scan(os.fsencode(root), paths, Index(), hashing=True)
    same = [
        entry
        for entry in scanned.entries
        if push_record.mark(entry) in changes.pushed.get(entry.path, ())
    ]
    if same:
        ledger = Ledger(memory)
        ledger.mark_installed(same)
        ledger.save()


def _describe(
    context: BoxContext,
    changes: Changes,
    notebooks: str,
    others: Sequence[bytes],
    memory: Path,
) -> str:
    if not changes.paths:
        return "no file was changed"
    in_outputs = any(
        _is_below(path, [raw(root.rstrip("/")) for root in output_roots(context)])
        for path in changes.paths
    )
    own_places = " and ".join(filter(None, [notebooks, "outputs" * in_outputs]))
    parts = [f"{own_places} → the project"] if own_places else []
    if others:
        folder = formatting.path(str((memory / FILES).relative_to(context.root)))
        names = formatting.first_names([formatting.path(path) for path in others])
        parts.append(f"{names} → {folder}/")
    return "; ".join(parts)


def _check_complete(
    context: BoxContext, changes: Changes, fetched: Iterable[Fetched]
) -> None:
    """Raise OutputsHeld if the fetch had to leave files of the session on the box."""
    left = [formatting.path(path) for path in changes.in_home]
    for one in fetched:
        left += [formatting.path(path) for path in (*one.refused, *one.repositories)]
    more = changes.count - len(changes.paths) - len(changes.in_home)
    if more:
        left.append(f"{more:,} more")
    if left:
        raise OutputsHeld(
            f"files of the notebook session are only on {context.title}: "
            f"{formatting.first_names(left)}",
            next="inv ssh to move them into the outputs, then inv fetch; inv teardown "
            "--discard-outputs deletes them",
        )


def _is_below(path: bytes, folders: Sequence[bytes]) -> bool:
    return any(path == folder or path.startswith(folder + b"/") for folder in folders)
