"""The packages that a cluster installs for each job, where boxes have no images."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from onebox import formatting, providers
from onebox.errors import ConfigError, InputError
from onebox.images import recipe

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A line that names a file of this machine: the cluster does not have it.
_LOCAL = re.compile(r"-r|-c|-e|--requirement|--constraint|--editable|\.{0,2}/|file:")


def check(context: BoxContext) -> None:
    """Raise ConfigError if [image] asks for what only an image can have."""
    if recipe.makes_image(context):
        return
    title = providers.row_of(context.provider_name).title
    given = sorted(
        path
        for path, source in context.settings.sources.items()
        if path.startswith("image.") and path != "image.requirements"
    )
    if given:
        names = formatting.first_names([path.partition(".")[2] for path in given])
        source = context.settings.source(given[0])
        raise ConfigError(
            f"{source}: [image] {names}: {title} starts no image",
            next="[image] requirements alone, which are installed for each job; or "
            "another --provider",
        )
    packages(context)


def packages(context: BoxContext) -> list[str]:
    """
    Return the lines of the requirements file, [] if there is none, or an image has it.

    Raises:
        ConfigError: It is no file of requirements, or names files of this machine.

        InputError: It cannot be read.
    """
    name = context.settings.image.requirements
    if not name or recipe.makes_image(context):
        return []
    title = providers.row_of(context.provider_name).title
    source = context.settings.source("image.requirements")
    if not name.endswith(".txt"):
        raise ConfigError(
            f"{source}: [image] requirements: {title} needs a requirements.txt, "
            f"not {name}",
            next=f"uv export --no-hashes > requirements.txt, from {name}",
        )
    try:
        text = (context.root / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name} cannot be read: {error}") from error
    found = []
    for line in text.splitlines():
        package = line.partition(" #")[0].strip()
        if not package or package.startswith("#"):
            continue
        if _LOCAL.match(package):
            raise ConfigError(
                f"{name}: {package}: {title} does not have this file",
                next=f"name the packages in {name}",
            )
        found.append(package)
    return found


def describe(context: BoxContext) -> str:
    """Return what the environment of a job is, as a phrase."""
    name = context.settings.image.requirements
    if name:
        return f"{name}, installed by the cluster for each job"
    return "no [image] settings; using the cluster's own Python"
