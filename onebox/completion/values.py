"""Read the values that flags can have from files of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.errors import OneboxError
from onebox.providers import PROVIDERS
from onebox.settings import USER_FILE, Places, Settings, Size, load
from onebox.settings.checks import is_name
from onebox.settings.load import profiles, project_name
from onebox.settings.schema import SIZES
from onebox.store import image_names
from onebox.store.identity import project_id
from onebox.store.paths import JOB, config_dir, state_dir


def values_of(
    flag: str, root: Path, environ: Mapping[str, str]
) -> list[tuple[str, str]]:
    """
    Return the values of a flag with descriptions; the list is empty if none is known.

    No provider is asked, nothing is written, and no error is raised.

    Args:
        root: The project's folder.
    """
    try:
        if flag == "--vm":
            return [(size.name, _needs(size)) for size in _sizes(root, environ)]
        if flag == "--provider":
            return [(row.name, row.title) for row in PROVIDERS.values()]
        if flag == "--name":
            return [(name, "") for name in _box_names(root, environ)]
        if flag == "--profile":
            found = profiles(root, environ, config_dir(environ) / USER_FILE)
            return [(name, ", ".join(keys)) for name, keys in found.items()]
        if flag == "--job":
            return _jobs(root)
        if flag == "--as":
            return [(name, "") for name in image_names.known(state_dir(environ))]
    except (OneboxError, OSError):
        return []
    return [(value, "") for value in _FIXED.get(flag, ())]


_MOST_JOBS = 50
_MOST_BYTES = 1_000_000
_FIXED = {
    "--to": ("skypilot", "slurm"),
    "--list-format": ("flat", "nested", "json"),
    "--print-completion-script": ("bash", "zsh", "fish"),
}


def _sizes(root: Path, environ: Mapping[str, str]) -> list[Size]:
    try:
        return list(_settings(root, environ).sizes.values())
    except OneboxError:
        # A line of onebox.toml is wrong; the built-in sizes are still known.
        return list(SIZES)


def _jobs(root: Path) -> list[tuple[str, str]]:
    """Return the ids of the jobs whose logs are here, newest first, with commands."""
    folder = root / ".onebox" / "jobs"
    if folder.parent.is_symlink() or folder.is_symlink():
        # A project that was cloned may bring such links.
        return []
    ids = [path.name for path in folder.iterdir() if JOB.fullmatch(path.name)]
    newest = sorted(ids, reverse=True)[:_MOST_JOBS]
    return [(job, _command(folder / job / "receipt.json")) for job in newest]


def _command(receipt: Path) -> str:
    """Return the command in a job's receipt, on one line; "" if it is unknown."""
    try:
        with receipt.open("rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
        return printable(" ".join(str(content["command"]).split()))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""


def _settings(root: Path, environ: Mapping[str, str]) -> Settings:
    places = Places(user_file=config_dir(environ) / USER_FILE)
    return load(root, environ, {}, places)


def _needs(size: Size) -> str:
    if size.cpus and size.memory:
        return f"{size.cpus} vCPU, {formatting.byte_count(size.memory)}"
    return ", ".join(name for names in size.types.values() for name in names)


def _box_names(root: Path, environ: Mapping[str, str]) -> list[str]:
    state = state_dir(environ)
    try:
        settings = _settings(root, environ)
        name, is_id = settings.project, settings.source("project") != "default"
    except OneboxError:
        name, is_id = project_name(root), False
    project = name if is_id else project_id(root, name, state)
    folder = state / "projects" / project
    return sorted(p.name for p in folder.iterdir() if _is_name(p.name) and p.is_dir())


def _is_name(text: str) -> bool:
    """Return whether a text of a file may stand in a line that the user then runs."""
    return re.fullmatch(is_name.pattern, text) is not None
