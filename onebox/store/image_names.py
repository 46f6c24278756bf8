"""Record the names of a user's images, so that a shell can complete them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from onebox.store.atomic_files import private_dir, write_atomically

_FOLDER = "image-names"


def note(state: Path, provider: str, names: Iterable[str]) -> None:
    """Record the names of all images at a provider; an error is ignored."""
    path = state / _FOLDER / f"{provider}.json"
    text = json.dumps(sorted(set(names))).encode()
    with contextlib.suppress(OSError):
        if path.exists() and path.read_bytes() == text:
            return
        private_dir(path.parent)
        write_atomically(path, text)


def known(state: Path) -> list[str]:
    """Return the recorded names of images at all providers."""
    found: set[str] = set()
    for path in (state / _FOLDER).glob("[a-z]*.json"):
        with contextlib.suppress(OSError, ValueError):
            names = json.loads(path.read_bytes())
            found.update(name for name in names if str(name).isprintable())
    return sorted(found)
