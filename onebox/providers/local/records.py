"""What is written down about a box or an image, and what that says of it."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from onebox import subprocess_env
from onebox.errors import Gone, NotAllowed, ProviderError
from onebox.providers.base import Box, BoxState, Image, Offer, Request, Tags
from onebox.providers.kernel.metadata import check_owner as check_identity
from onebox.providers.kernel.metadata import identity

from . import fault_injection, path_shims
from .layout import Layout, is_locked, read_json, write_json

WORK = "work"

_PROXY = re.compile("(https?|ftp|all|no)_proxy", re.IGNORECASE)

# What the machine imports from outside the standard library.
_LIBRARIES = ("asyncssh", "cryptography", "typing_extensions", "_cffi_backend")


def write(
    new: Layout,
    final: Layout,
    request: Request,
    now: float,
    faults: Mapping[str, float],
    read: Sequence[str],
) -> None:
    """Write a new box's record and boot file into *new*, for a life at *final*."""
    arming = request.arming
    new.marker.write_text(request.box, "ascii")
    record = {
        "tags": asdict(request.tags),
        "size": asdict(request.offer),
        "image": request.image.id if request.image else "",
        "host_key": request.host_key.public,
        "user": user(),
        "created": now,
        "deadline": arming.deadline,
        "notes": fault_injection.notes(faults),
    }
    write_json(new.record, record)
    library = _library_path()
    boot = {
        "box": request.box,
        "deadline": arming.deadline,
        "faults": dict(faults),
        "host_key": request.host_key.private,
        "user": user(),
        "user_key": request.user_key,
        "homes": sorted({str(Path.home().resolve()), _passwd_home()}),
        "lang": "C.UTF-8",
        "proxies": proxies(),
        "shell": shutil.which("bash") or "/bin/sh",
        "python_path": library,
        "read": [*path_shims.needed(), *library, *read],
        "work": WORK,
        "agent": {
            "box": request.box,
            "agent": hashlib.sha256(arming.agent).hexdigest()[:12],
            "home": str(final.home),
            "work": str(final.home / WORK),
            "deadline": arming.deadline,
            "setup_grace": arming.setup_grace,
            "idle_grace": arming.idle_grace,
            "poweroff": [str(final.bin / "poweroff")],
        },
    }
    write_json(new.boot, boot)


def renew(layout: Layout, deadline: float, faults: Mapping[str, float]) -> None:
    """Give a stopped box another deadline, and today's faults to rehearse."""
    boot, record = read_json(layout.boot), read_json(layout.record)
    if boot is None or record is None:
        raise ProviderError(f"box {layout.path.name} has lost its own files")
    boot["deadline"] = boot["agent"]["deadline"] = deadline
    boot["faults"] = dict(faults)
    boot["proxies"] = proxies()
    record["deadline"] = record["tags"]["expires"] = deadline
    record["notes"] = fault_injection.notes(faults)
    write_json(layout.record, record)
    write_json(layout.boot, boot)


def tags(layout: Layout) -> Tags | None:
    """Return whose the box is; None if the directory is not one of a box."""
    if layout.path.is_symlink():
        return None
    name = layout.path.name
    for prefix in (".new-", ".gone-"):
        name = name[len(prefix) :] if name.startswith(prefix) else name
    try:
        marker = layout.marker.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    record = read_json(layout.record)
    if record is None or marker != name:
        return None
    return Tags(**record["tags"])


def check_owner(layout: Layout, expected: Tags) -> None:
    """
    Make sure that a directory is the box of these tags.

    Raises:
        Gone: There is no such directory.

        NotAllowed: It is somebody else's, or no box at all.
    """
    name = layout.path.name
    present = tags(layout)
    if present is None:
        # Asked after: it may just have been removed.
        if not os.path.lexists(layout.path):
            raise Gone(f"there is no box {name} here")
        raise NotAllowed(f"{layout.path} is not a directory of box {name}")
    check_same(f"box {name}", present, expected)


def check_same(what: str, present: Tags, expected: Tags) -> None:
    """Raise NotAllowed unless both have the same owner, project, name and kind."""
    check_identity(what, identity(present), identity(expected))


def box(layout: Layout) -> Box:
    """Return a box as its files and its lock show it now."""
    record = read_json(layout.record)
    if record is None:
        raise Gone(f"there is no box {layout.path.name} here")
    alive = is_locked(layout.lock)
    # Read after the lock: a supervisor writes its last word before it ends.
    state = read_json(layout.state) or {}
    size: dict[str, Any] = record["size"]
    port = int(state.get("port", 0))
    notes = (*state.get("notes", ()), *record["notes"])
    return Box(
        id=layout.path.name,
        tags=Tags(**record["tags"]),
        state=_state(state.get("state")) if alive else "stopped",
        offer=Offer.read(size),
        image=record["image"],
        place="this machine",
        host="127.0.0.1" if port else "",
        port=port,
        user=record["user"],
        host_key=record["host_key"],
        created=record["created"],
        deadline=record["deadline"],
        agent=str(layout.agent / "agent.pyz"),
        work=WORK,
        why="" if alive else str(state.get("why") or ""),
        notes=notes,
    )


def has_run(layout: Layout) -> bool:
    """Say whether the box has ever been up."""
    return "port" in (read_json(layout.state) or {})


def loses_disk(layout: Layout) -> bool:
    """Say whether the box's home is on a rehearsed disk."""
    return "disk" in (read_json(layout.boot) or {}).get("faults", {})


def image(path: Path) -> Image | None:
    """Return what is saved at this path, None if nothing whole is."""
    saved = read_json(path / "image.json")
    if saved is None:
        return None
    del saved["paths"]
    return Image(**{**saved, "tags": Tags(**saved["tags"]), "places": ()})


def image_paths(path: Path) -> dict[str, Any] | None:
    """Return which files of an image hold the path it was saved from."""
    saved = read_json(path / "image.json")
    return cast("dict[str, Any]", saved["paths"]) if saved else None


def proxies() -> dict[str, str]:
    """Return the user's variables that name proxies: a box is behind the same."""
    ours = subprocess_env.environment()
    return {name: value for name, value in ours.items() if _PROXY.fullmatch(name)}


def user() -> str:
    """Return who logs in: ourselves."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _state(said: object) -> BoxState:
    """Return the state of a box that somebody runs, prepares or saves."""
    if said in ("running", "stopping"):
        return said
    # Its supervisor has said the last word, and is about to end.
    return "stopping" if said in ("stopped", "failed") else "starting"


def _passwd_home() -> str:
    try:
        return os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return "/"


def _library_path() -> list[str]:
    found = []
    for name in _LIBRARIES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            if name == "asyncssh":
                raise ProviderError(
                    "a local box needs asyncssh, which is not installed",
                    next="pip install asyncssh",
                )
            continue
        origin = Path(spec.origin)
        place = (
            origin.parent.parent if spec.submodule_search_locations else origin.parent
        )
        if str(place) not in found:
            found.append(str(place))
    return found
