"""
The recipe of an image: its inputs, their hash, and the inputs that have changed.

The hash identifies the image at the provider. The inputs are also stored on this
machine, so that a message can name the input that has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from onebox import formatting, providers
from onebox.boxes import offers
from onebox.errors import InputError
from onebox.images import python_project, snapshot
from onebox.images.python_project import PythonProject
from onebox.project_files import select_files

if TYPE_CHECKING:
    from onebox.context import BoxContext

_PYTHON_VERSION = ".python-version"
# This matches the lines of a requirements file that include another file.
_INCLUDES = re.compile(
    r"^\s*(?:-r|-c|--requirement|--constraint)[ =]?\s*([^\s#]+)", re.MULTILINE
)


def title(context: BoxContext) -> str:
    """Return the recipe's name in messages, "" if there is no recipe, or no image."""
    image = context.settings.image
    if not makes_image(context):
        return ""
    file = image.packer or image.setup or image.requirements
    data = "the data" if keeps_data(context) else ""
    return file or (f"Python {image.python}" if image.python else data)


def keeps_data(context: BoxContext) -> bool:
    """Return whether the image has the data that the box would download."""
    push = context.settings.push
    return push.into_image and bool(push.sources)


def makes_image(context: BoxContext) -> bool:
    """Return whether boxes of the provider in use start from images."""
    return providers.row_of(context.provider_name).has_images


def base(context: BoxContext) -> str:
    """Return the provider's base image: a box without a saved image boots from it."""
    image = context.settings.image
    return context.provider.base(image.use or image.base, arch(context))


def arch(context: BoxContext) -> str:
    """Return the architecture that the box will have."""
    return offers.find(context)[0].arch


def inputs(context: BoxContext) -> dict[str, str]:
    """Return the hash of each input of the recipe, by the input's name."""
    image = context.settings.image
    hashes = {
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
            hashes[name] = _digest(json.dumps(value, sort_keys=True).encode())
    if keeps_data(context):
        # An object that changes builds no new image: the box downloads it.
        sources = [list(asdict(one).values()) for one in context.settings.push.sources]
        hashes["[push] data"] = _digest(json.dumps(sources).encode())
    return {**hashes, **file_inputs(context)}


def file_inputs(context: BoxContext) -> dict[str, str]:
    """Return the hash of each file of the recipe; it does not ask the provider."""
    marks = {
        formatting.path(file): _mark(context.root / os.fsdecode(file))
        for file in files(context)
    }
    return {name: mark for name, mark in marks.items() if mark}


def package_inputs(context: BoxContext) -> dict[str, str]:
    """
    Return the inputs that only decide which packages are installed.

    If only these have changed, the packages can be updated on a live box. The result
    is a part of `inputs`.
    """
    image = context.settings.image
    if not image.requirements or not makes_image(context):
        return {}
    listed = [name for name in requirements_files(context) if not _chooses_python(name)]
    names = {formatting.path(file) for file in _selected(context, listed)}
    of_script = _selected(context, [image.setup, *image.include])
    names -= {formatting.path(file) for file in of_script}
    names.add("[image] requirements")
    return {name: mark for name, mark in inputs(context).items() if name in names}


def project(context: BoxContext) -> PythonProject | None:
    """Return the project that is installed with its packages, None if it is not."""
    return python_project.find(context.root, context.settings.image.requirements)


def digest(hashes: Mapping[str, str]) -> str:
    """Return the hash of a recipe, 16 hex digits, from the *hashes* of its inputs."""
    return _digest(json.dumps(hashes, sort_keys=True).encode())[:16]


def files(context: BoxContext) -> list[bytes]:
    """Return the paths of the recipe's files, relative to the project."""
    image = context.settings.image
    names = [image.setup, image.packer, *image.include, *requirements_files(context)]
    return _selected(context, names)


def change(context: BoxContext) -> str:
    """
    Return the reason why the current recipe has no image.

    The reason names the changed inputs if there are any.
    """
    before = snapshot.remembered(context)
    if not before:
        return f"first build of {title(context)}"
    now = inputs(context)
    changed = {name for name in {**before, **now} if before.get(name) != now.get(name)}
    if "[image] base" in changed:
        changed.discard("base")
    if changed == {"base"}:
        return "base has a newer build"
    if not changed:
        return "the image is gone"
    return f"{formatting.first_names(sorted(changed))} changed"


def requirements_files(context: BoxContext) -> Iterator[str]:
    """Yield the requirements file and the files that uv reads with it, as paths."""
    name = context.settings.image.requirements
    if not name:
        return
    folder = PurePosixPath(name).parent
    if PurePosixPath(name).name == "uv.lock":
        project = folder / "pyproject.toml"
        if not (context.root / project).is_file():
            raise InputError(
                f"[image] requirements: {project} does not exist, and {name} needs it"
            )
        yield str(project)
    if (context.root / folder / _PYTHON_VERSION).is_file():
        yield str(folder / _PYTHON_VERSION)
    seen, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        path = context.root / name
        if name in seen or ".." in PurePosixPath(name).parts or not path.is_file():
            # Web addresses and files outside of the project are skipped here; uv reads
            # or refuses them.
            continue
        seen.add(name)
        yield name
        if path.suffix not in (".toml", ".lock"):
            here = PurePosixPath(name).parent
            text = path.read_text("utf-8", "replace")
            waiting += [str(here / other) for other in _INCLUDES.findall(text)]


def _selected(context: BoxContext, names: Sequence[str | None]) -> list[bytes]:
    """Return the paths of the files at and below *names*."""
    data = [name for name in names if name]
    return list(select_files(context, [], data).paths) if data else []


def _chooses_python(name: str) -> bool:
    return PurePosixPath(name).name == _PYTHON_VERSION


def _mark(path: Path) -> str:
    """Return a text that changes with a file or link, "" if there is none."""
    if path.is_symlink():
        return "l" + _digest(bytes(path.readlink()))
    if not path.is_file():
        return ""
    data = path.read_bytes()
    if path.name == "pyproject.toml":
        text = data.decode("utf-8", "surrogateescape")
        text = python_project.without_other_tools(text)
        data = text.encode("utf-8", "surrogateescape")
    return ("x" if path.stat().st_mode & 0o100 else "-") + _digest(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
