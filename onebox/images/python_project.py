"""What a project's pyproject.toml says about the project as a Python package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# The text is not parsed as TOML, because `toml` refuses lists of several types, which
# dependency groups often are, and tomllib begins with Python 3.11.
_HEADER = re.compile(
    r"^[ \t]*\[\[?[ \t]*([\w.\"' -]+?)[ \t]*\]\]?[ \t]*(?:#.*)?$", re.M
)
_PACKAGE = re.compile(r"^[ \t]*package[ \t]*=[ \t]*(true|false)\b", re.M)
_NAME = re.compile(r"""^[ \t]*name[ \t]*=[ \t]*["']([A-Za-z0-9._-]+)["']""", re.M)
# The settings of these tools cannot change which packages are installed.
_NO_DEPENDENCIES = re.compile(
    r"tool\.(?:black|coverage|flake8|isort|mypy|pylint|pyright|pytest|ruff)(?:\..*)?"
)
# These files decide how the project is built.
BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


def read(path: Path) -> str:
    """Return the text of a pyproject.toml, "" if there is none."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def package_name(text: str) -> str:
    """
    Return the name of the package that a pyproject.toml describes, "" if none.

    As for uv, a project is a package if it has a [build-system], unless
    `[tool.uv] package` says otherwise.
    """
    tables = dict(_tables(text))
    name = _NAME.search(tables.get("project", ""))
    setting = _PACKAGE.search(tables.get("tool.uv", ""))
    is_package = setting[1] == "true" if setting else "build-system" in tables
    return name[1] if name and is_package else ""


def build_system(text: str) -> str:
    """Return the table [build-system] of a pyproject.toml, "" if there is none."""
    return dict(_tables(text)).get("build-system", "")


def without_other_tools(text: str) -> str:
    """Return a pyproject.toml without the tables of formatters, linters and tests."""
    return "\n".join(
        table.strip()
        for name, table in _tables(text)
        if not _NO_DEPENDENCIES.fullmatch(name)
    )


def _tables(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each table; the first one has the name ""."""
    name, begin = "", 0
    for header in _HEADER.finditer(text):
        yield name, text[begin : header.start()]
        name, begin = header[1], header.start()
    yield name, text[begin:]
