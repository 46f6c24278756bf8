"""The folders of units: made from the template [map] outputs, and checked."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence

from onebox.settings.checks import InvalidValue, job_output
from onebox.settings.map_table import unit_outputs
from onebox.settings.quoting import show
from onebox.units import templates as unit_templates

# A file system has names of at most 255 bytes; a unit's program may add an ending.
_MOST_NAME_BYTES = 200
# The file beside the folders of the units that lists all of them.
TABLE = "units.csv"
# Folders that need no further check.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.=+,-]*/)+")


class Folders:
    """
    The folders of all units.

    Args:
        template: A path with placeholders, such as "results/{unit}/".

        names: The names of the parameters.

    Raises:
        InvalidValue: The template is not allowed, or has another placeholder.
    """

    def __init__(self, template: str, names: Sequence[str]) -> None:
        unit_outputs(template)
        path = _with_slashes(template)
        self._template = unit_templates.parse(path, (*names, "unit"), is_line=False)
        self._units: dict[str, int] = {}
        fixed = itertools.takewhile(lambda part: "{" not in part, path.split("/"))
        # The part of the path before its first placeholder, such as "results/".
        self.root = "/".join([*fixed, ""])

    def of_unit(self, number: int, values: Mapping[str, str]) -> str:
        """
        Return the folder of a unit, which no other unit has; it ends with a "/".

        Raises:
            InvalidValue: A value is no part of a folder's name, or another unit has the
                folder. The reason begins with the number of the unit.
        """
        problem = ""
        for name, _ in self._template.places:
            problem = problem or unsafe_value(name, values[name])
        folder = self._template.fill(values)
        problem = problem or unsafe_folder(folder)
        if problem:
            raise InvalidValue(
                f"unit {number} {problem}",
                next="{unit} is the number, which is always a valid name",
            )
        same = folder if folder.isascii() else unicodedata.normalize("NFC", folder)
        other = self._units.setdefault(same.casefold(), number)
        if other != number:
            raise InvalidValue(
                f"unit {number} has the same folder {show(folder)} as unit {other}",
                next="add {unit} or each parameter to it; for some file systems, small "
                "letters and capitals are the same",
            )
        return folder


def _with_slashes(path: str) -> str:
    """Return a path with one "/" after each of its parts."""
    return "/".join([*filter(None, path.split("/")), ""])


def unsafe_value(name: str, value: str) -> str:
    """Return why a value cannot be in the name of a folder, "" if it can."""
    if value and value.isalnum():
        return ""
    if value in ("", ".", "..") or "/" in value or value.startswith("~"):
        return f"has the value {show(value)} of {{{name}}}, which names no folder"
    if not value.isprintable():
        return f"has a control character in the value {show(value)} of {{{name}}}"
    return ""


def unsafe_folder(folder: str) -> str:
    """Return why a folder cannot be that of a unit, "" if it can."""
    parts = folder.split("/")
    if any(len(part.encode()) > _MOST_NAME_BYTES for part in parts):
        return f"has a name of more than {_MOST_NAME_BYTES} bytes in its folder"
    if _PLAIN.fullmatch(folder) and parts[-2].lower() != TABLE:
        return ""
    if not folder.endswith("/"):
        return "has a folder without / at its end"
    if parts[-2].lower() == TABLE:
        return f"has a folder with the name of the table, {TABLE}"
    try:
        # The values may make the name of a repository.
        job_output(folder.replace("*", "").replace("?", ""))
    except InvalidValue as problem:
        return f"has a folder that cannot be used: {problem}"
    if ".venv" in folder.lower().split("/"):
        return "has a folder in .venv"
    return ""
