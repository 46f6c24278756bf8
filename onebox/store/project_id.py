"""
Which project a folder is: the same one after it is renamed, another one in a copy.

The id of a project is made from the folder's path. Once a box is made, the id and
the path are written down in the folder, which keeps them when it is moved, and the
path in the state directory, so that a new project in the old place gets another id.
Two files that can be lost: then the path decides.
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
        name: What the project is called; no two folders share an id for that.

        state: The state directory.
    """
    place = root.resolve()
    known, before = _mark(place)
    if known and (before == place or _mark(before)[0] != known):
        if before != place:
            note(place, known, state)
        return known
    salt = 0
    while True:
        own = _id(place, name, salt)
        here = _place(own, state)
        if here in (None, place) or _mark(here)[0] != own:
            return own
        # That project has been moved away from here.
        salt += 1


def note(root: Path, project: str, state: Path) -> None:
    """Write down which project a folder is, for when it is found elsewhere."""
    place = root.resolve()
    if _mark(place) == (project, place) and _place(project, state) == place:
        return
    told = json.dumps({"project": project, "path": str(place)}).encode()
    # What cannot be written costs no more than a rename would have without it.
    with suppress(OSError):
        private_dir((place / MARK).parent)
        write_atomically(place / MARK, told)
        private_dir(state / "roots")
        write_atomically(state / "roots" / project, str(place).encode())


def _id(place: Path, name: str, salt: int) -> str:
    text = f"{place}\0{salt}" if salt else str(place)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:24]}-{digest[:6]}"


def _mark(place: Path) -> tuple[str, Path]:
    """Return what is written in a folder; "" for the id if that is nothing."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        told = json.loads((place / MARK).read_bytes())
        return str(told["project"]), Path(told["path"])
    return "", place


def _place(project: str, state: Path) -> Path | None:
    with suppress(OSError, ValueError):
        return Path((state / "roots" / project).read_bytes().decode("utf-8"))
    return None
