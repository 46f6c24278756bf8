"""Whether a project is a Python package, and how that package is built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onebox.store.atomic_files import read_regular

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
# This matches the line of a list of packages that names the project itself.
_ITSELF = re.compile(
    r"^[ \t]*(?:(?:-e|--editable)[ \t=]*)?(\.(?:\[[^\]\n]*\])?)/?[ \t]*(?:#.*)?$", re.M
)
# What builds a project that has no [build-system].
_SETUPTOOLS = (
    '[build-system]\nrequires = ["setuptools"]\n'
    'build-backend = "setuptools.build_meta"\n'
)
# These files decide how the project is built.
BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


@dataclass(frozen=True)
class PythonProject:
    """
    A project that is installed as a package.

    Attributes:
        folder: The folder that holds pyproject.toml or setup.py.

        name: The name of the package in messages.

        spec: What uv installs, in that folder: "." or with extras, such as ".[dev]".

        build_system: The table [build-system] of pyproject.toml.
    """

    folder: Path
    name: str
    spec: str
    build_system: str


def find(root: Path, requirements: str | None) -> PythonProject | None:
    """
    Return the project that is installed with its packages, None if it is not.

    Args:
        root: The folder that *requirements*, as in `[image] requirements`, is relative
            to. A list of packages installs the project if it has a line such as `-e .`.
    """
    if not requirements:
        return None
    folder = root / PurePosixPath(requirements).parent
    text = read(folder / "pyproject.toml")
    if PurePosixPath(requirements).name in ("pyproject.toml", "uv.lock"):
        name = package_name(text)
        build = build_system(text) or _SETUPTOOLS
        return PythonProject(folder, name, ".", build) if name else None
    itself = _ITSELF.search(read(root / requirements))
    if itself is None:
        return None
    name = package_name(text) or "the project"
    return PythonProject(folder, name, itself[1], build_system(text) or _SETUPTOOLS)


def package_name(text: str) -> str:
    """
    Return the name of the package that a pyproject.toml describes, "" if none.

    As for uv, a project is a package if it has a [build-system], unless
    `[tool.uv] package` says otherwise.
    """
    found = dict(tables(text))
    name = _NAME.search(found.get("project", ""))
    setting = _PACKAGE.search(found.get("tool.uv", ""))
    is_package = setting[1] == "true" if setting else "build-system" in found
    return name[1] if name and is_package else ""


def build_system(text: str) -> str:
    """Return the table [build-system] of a pyproject.toml, "" if there is none."""
    return dict(tables(text)).get("build-system", "")


def without_other_tools(text: str) -> str:
    """Return a pyproject.toml without the tables of formatters, linters and tests."""
    return "\n".join(
        table.strip()
        for name, table in tables(text)
        if not _NO_DEPENDENCIES.fullmatch(name)
    )


def read(path: Path) -> str:
    """Return the text of a file, "" if it cannot be read or is no regular file."""
    try:
        return read_regular(path).decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return ""


def tables(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each table of TOML; the first one's name is ""."""
    name, begin = "", 0
    for header in _HEADER.finditer(text):
        yield name, text[begin : header.start()]
        name, begin = header[1], header.start()
    yield name, text[begin:]
