"""Find the scripts that a command names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

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


def missing_scripts(command: str, root: Path) -> list[str]:
    """
    Return the words of a command that look like scripts of the project but are missing.

    The job itself may create them, so this is no certain mistake.
    """
    return [
        word
        for word in dict.fromkeys(_words(command))
        if _SCRIPT.fullmatch(word) and not (root / word).exists()
    ]


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []
