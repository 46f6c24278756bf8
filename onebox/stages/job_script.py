"""Find the scripts that a command names."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.project_files import select_project

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A command with one of these characters can change the folder or create files first.
_SHELL = re.compile(r"[&|;<>()$`\\*?\[\]{}~#!\n]")
_PYTHON = re.compile(r"python(?:3(?:\.\d+)?)?")
_SCRIPT = re.compile(r"[\w.-][\w./-]*\.(?:py|ipynb|sh|R|r|jl|pl|js|rb|do|m)")


def python_script(command: str) -> str | None:
    """
    Return the script of a plain `python SCRIPT.py …` command, else None.

    The script is a path inside the project.

    >>> python_script("python -u a/train.py --seed 7")
    'a/train.py'
    >>> python_script("cd a && python train.py")
    """
    words = _words(command)
    if _SHELL.search(command) or not words or not _PYTHON.fullmatch(words[0]):
        return None
    for word in words[1:]:
        if word in ("-u", "-O", "-OO", "-B", "-s", "-E", "-I", "-q", "-v"):
            continue
        inside = not word.startswith(("-", "/")) and ".." not in word.split("/")
        return word if inside and word.endswith(".py") else None
    return None


def absence(context: BoxContext, script: str) -> str:
    """
    Return why a push does not bring a script to the box, "" if it does.

    Args:
        script: A path inside the project.

    Raises:
        OneboxError: The files to push cannot be selected.
    """
    if not (context.root / script).exists():
        return "does not exist"
    path = PurePosixPath(os.path.normpath(script))
    # All data is pushed, and there may be much of it, so it is not listed.
    data = [
        PurePosixPath(os.path.normpath(name)) for name in context.settings.push.data
    ]
    if not {path, *path.parents}.isdisjoint(data):
        return ""
    selection = select_project(context, code_only=True)
    places = {os.fsencode(place) for place in (path, *path.parents)}
    # A folder above may be pushed as a link.
    if not places.isdisjoint(selection.paths):
        return ""
    if any(folder.path.rstrip(b"/") in places for folder in selection.left_out):
        return "is not pushed, because it is among the outputs"
    caches = {os.fsdecode(folder.path.rstrip(b"/")) for folder in selection.caches}
    if not caches.isdisjoint(path.parts):
        return "is not pushed, because it is in a folder of caches"
    return "is not pushed: git ignores it, or [push] does not name it"


def describe_absent(context: BoxContext, command: str) -> str:
    """
    Return a phrase about the scripts of a command that a push does not bring.

    The job itself may create them, so this is no certain mistake. The phrase is "" if
    there are none.

    Raises:
        OneboxError: The files to push cannot be selected.
    """
    names: dict[str, list[str]] = {}
    for word in dict.fromkeys(_words(command)):
        if _SCRIPT.fullmatch(word) and ".." not in word.split("/"):
            names.setdefault(absence(context, word), []).append(formatting.path(word))
    names.pop("", None)
    return "; ".join(
        f"{formatting.first_names(words)} {why}" for why, words in names.items()
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []
