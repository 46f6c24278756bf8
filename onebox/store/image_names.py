"""Record the names of a user's images, so that a shell can complete them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from onebox.store.atomic_files import private_dir, write_atomically

_FOLDER = "image-names"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
            # A cloud's image may have any name. A name that a shell completes must hold
            # no character that the shell interprets.
            found.update(n for n in names if isinstance(n, str) and _PLAIN.fullmatch(n))
    return sorted(found)
