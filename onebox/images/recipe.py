"""
What an image is made of: its inputs, their hash, and which of them has changed.

The hash is how an image is found at the provider; the inputs are remembered here,
only to be able to say which one has changed since.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import offers
from onebox.errors import InputError
from onebox.images import snapshot
from onebox.project_files import selected

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A list of requirements can lead to others.
_OTHERS = re.compile(
    r"^\s*(?:-r|-c|--requirement|--constraint)[ =]?\s*([^\s#]+)", re.MULTILINE
)


def title(context: BoxContext) -> str:
    """Return what the recipe is called in sentences, "" if there is none."""
    image = context.settings.image
    named = image.packer or image.setup or image.requirements
    return named or (f"Python {image.python}" if image.python else "")


def base(context: BoxContext) -> str:
    """Ask the provider what a box starts from that is not made from our image."""
    image = context.settings.image
    return context.provider.base(image.use or image.base, arch(context))


def arch(context: BoxContext) -> str:
    """Return the architecture that the box will have."""
    return offers.find(context)[0].arch


def inputs(context: BoxContext) -> dict[str, str]:
    """Return what the recipe is made of: name of each input → its hash."""
    image = context.settings.image
    found = {
        "[image] base": image.base,
        "base": base(context),
        "architecture": arch(context),
    }
    for name, value in (
        ("[image] setup", image.setup),
        ("[image] python", image.python),
        ("[image] requirements", image.requirements),
        ("[image] packer", image.packer),
        ("[image] env", dict(image.env)),
        ("[image] vars", dict(image.vars)),
    ):
        if value:
            found[name] = _digest(json.dumps(value, sort_keys=True).encode())
    for file in files(context):
        path = context.root / file.decode("utf-8", "surrogateescape")
        if path.is_symlink():
            found[formatting.path(file)] = "l" + _digest(bytes(path.readlink()))
        elif path.is_file():
            mode = "x" if path.stat().st_mode & 0o100 else "-"
            found[formatting.path(file)] = mode + _digest(path.read_bytes())
    return found


def digest(found: Mapping[str, str]) -> str:
    """Return the hash that a recipe with these inputs is known by: 16 hex digits."""
    return _digest(json.dumps(found, sort_keys=True).encode())[:16]


def files(context: BoxContext) -> list[bytes]:
    """Return the project's files that the recipe needs, relative to the project."""
    image = context.settings.image
    names = [image.setup, image.packer, *image.include, *_requirements(context)]
    return selected(context, [], [name for name in names if name]).paths


def change(context: BoxContext) -> str:
    """Say why there is no image of today's recipe: what has changed since the last."""
    before = snapshot.remembered(context)
    if not before:
        return f"{title(context)} has not been built yet"
    now = inputs(context)
    changed = {name for name in {**before, **now} if before.get(name) != now.get(name)}
    if "[image] base" in changed:
        changed.discard("base")
    if changed == {"base"}:
        return "base has a newer build"
    return (
        f"{formatting.some(sorted(changed))} changed"
        if changed
        else "the image is gone"
    )


def _requirements(context: BoxContext) -> Iterator[str]:
    """Return the file of requirements, and what it leads to."""
    name = context.settings.image.requirements
    if not name:
        return
    folder = PurePosixPath(name).parent
    if PurePosixPath(name).name == "uv.lock":
        project = folder / "pyproject.toml"
        if not (context.root / project).is_file():
            raise InputError(f"[image] requirements: there is no {project} with {name}")
        yield str(project)
    if (context.root / folder / ".python-version").is_file():
        yield str(folder / ".python-version")
    seen, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        path = context.root / name
        if name in seen or ".." in PurePosixPath(name).parts or not path.is_file():
            # What leaves the project, or is an address, is uv's to refuse or find.
            continue
        seen.add(name)
        yield name
        if path.suffix not in (".toml", ".lock"):
            here = PurePosixPath(name).parent
            text = path.read_text("utf-8", "replace")
            waiting += [str(here / other) for other in _OTHERS.findall(text)]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
