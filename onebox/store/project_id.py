"""
The id of the project in a folder: it survives a rename, and a copy gets another one.

The id is derived from the folder's path. When the first box is created, two files
record it: one in the project folder, with the id and the path, which moves with the
folder; and one in the state directory, with the path, so that a new project in the
old place gets another id. If either file is lost, the path decides.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from onebox.store.atomic_files import private_dir, write_atomically

MARK = ".onebox/project.json"


def project_id(root: Path, name: str, state: Path) -> str:
    """
    Return the id of the project in a folder.

    Args:
        name: The project's name, which is the readable part of the id.

        state: The state directory.
    """
    folder = root.resolve()
    recorded_id, recorded_folder = _mark(folder)
    moved = recorded_folder != folder
    # In a copy, the original folder still holds the same id.
    if recorded_id and not (moved and _mark(recorded_folder)[0] == recorded_id):
        if moved:
            note(folder, recorded_id, state)
        return recorded_id
    salt = 0
    while True:
        candidate = _id(folder, name, salt)
        owner = _folder(candidate, state)
        if owner in (None, folder) or _mark(owner)[0] != candidate:
            return candidate
        # The project with this id has moved from here to another folder.
        salt += 1


def note(root: Path, project: str, state: Path) -> None:
    """Record the id of the project in a folder, in that folder and in the state."""
    folder = root.resolve()
    if _mark(folder) == (project, folder) and _folder(project, state) == folder:
        return
    mark = json.dumps({"project": project, "path": str(folder)}).encode()
    # If these files cannot be written, only a rename of the folder loses the id.
    with suppress(OSError):
        private_dir((folder / MARK).parent)
        write_atomically(folder / MARK, mark)
        private_dir(state / "roots")
        write_atomically(state / "roots" / project, str(folder).encode())


def _id(folder: Path, name: str, salt: int) -> str:
    text = f"{folder}\0{salt}" if salt else str(folder)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:24]}-{digest[:6]}"


def _mark(folder: Path) -> tuple[str, Path]:
    """Return the id and the path recorded in a folder; "" for the id without them."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        mark = json.loads((folder / MARK).read_bytes())
        return str(mark["project"]), Path(mark["path"])
    return "", folder


def _folder(project: str, state: Path) -> Path | None:
    """Return the folder that the state directory records for a project."""
    with suppress(OSError, ValueError):
        return Path((state / "roots" / project).read_bytes().decode("utf-8"))
    return None
