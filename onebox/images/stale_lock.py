"""
Find packages that pyproject.toml lists and uv.lock does not, without running uv.

Only a certain result counts. What is written in an unusual way, or may be left out of a
lock for a reason (markers, URLs, dynamic lists), is taken as locked.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.errors import InputError
from onebox.images import python_project

# A requirement without marker and URL; the name of its package is the first group.
_REQUIREMENT = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"\s*(?:\[[\w\s.,-]*\])?\s*(?:[(<>=~!][^;@]*)?"
)
# The parts of a list of requirements: a string, or what separates strings.
_PART = re.compile(
    r"""\s+|,|#[^\n]*|"([^"\\\n]*)"|'([^'\n]*)'|\{[^{}\n]*\}|(?P<end>\])"""
)
# A comment or a string of TOML; the first group is a string of several lines,
# of which one can look like a key or a table.
_TOKEN = re.compile(
    r"""#[^\n]*|(\"{3}(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}"""
    r"""|'{3}(?:[^']|'{1,2}(?!'))*'{3,5})"""
    r"""|"(?:[^"\\\n]|\\[^\n])*"|'[^'\n]*'"""
)
# The [[package]] of the project itself.
_ITSELF = re.compile(r'^source = \{ (?:editable|virtual) = "\." \}$', re.M)
_REQUIRES = re.compile(r"^requires-dist = \[(.*?)\]\s*?$", re.M | re.S)
_NAME = re.compile(r'\{ name = "([^"]+)"([^}\n]*)\}')
# The group that uv installs unless pyproject.toml says otherwise.
_GROUP = "dev"


def problem(root: Path, requirements: str | None) -> InputError | None:
    """
    Return the error if uv.lock lacks packages that pyproject.toml lists, else None.

    Args:
        root: The folder that *requirements*, as in `[image] requirements`, is relative
            to. Nothing is wrong if it is not a uv.lock.
    """
    if not requirements or PurePosixPath(requirements).name != "uv.lock":
        return None
    lock = root / requirements
    project = python_project.read(lock.with_name("pyproject.toml"))
    names = missing(project, python_project.read(lock))
    if not names:
        return None
    folder = PurePosixPath(requirements).parent
    where = "" if str(folder) == "." else f" --project {folder}"
    return InputError(
        f"{requirements} is older than {folder / 'pyproject.toml'}: it lacks "
        f"{formatting.first_names([printable(name) for name in names])}",
        next=f"uv lock{where}",
    )


def missing(project: str, lock: str) -> list[str]:
    """
    Return the packages that a project installs and its lock certainly lacks.

    Args:
        project: The text of pyproject.toml.

        lock: The text of uv.lock.
    """
    blocks = re.split(r"^\[\[package\]\]$", lock, flags=re.M)[1:]
    own = [block for block in blocks if _ITSELF.search(block)]
    if len(own) != 1:
        return []
    project = _TOKEN.sub(lambda token: '""' if token[1] else token[0], project)
    tables = dict(python_project.tables(project))
    tool = tables.get("tool.uv", "")
    if "exclude-dependencies" in tool:
        return []
    locked = _REQUIRES.search(own[0])
    if locked or "\ndependencies = " not in own[0]:
        entries = _NAME.findall(locked[1] if locked else "")
    else:
        # An early uv has not recorded what the project requires.
        entries = _NAME.findall(own[0])
    # A package that is locked as an extra only is not installed as a dependency.
    required = {normal(name) for name, rest in entries if "extra ==" not in rest}
    wanted = listed(tables.get("project", ""), "dependencies")
    found = [name for name in wanted if normal(name) not in required]
    if "default-groups" not in tool:
        anywhere = {normal(name) for name, _ in _NAME.findall(own[0])}
        of_group = listed(tables.get("dependency-groups", ""), _GROUP)
        found += [name for name in of_group if normal(name) not in anywhere]
    itself = re.findall(r'^name = "([^"]+)"$', own[0], re.M)[:1]
    skipped = {normal(name) for name in itself}
    return [name for name in dict.fromkeys(found) if normal(name) not in skipped]


def listed(table: str, key: str) -> list[str]:
    """
    Return the packages that a list in TOML has, without those with a marker or a URL.

    Args:
        table: The text of the table that has the list, the value of *key*.
    """
    start = re.search(rf"^[ \t]*{key}[ \t]*=[ \t]*\[", table, re.M)
    if start is None:
        return []
    names: list[str] = []
    position = start.end()
    while part := _PART.match(table, position):
        if part["end"]:
            return names
        name = package_of(part[1] or part[2] or "")
        if name:
            names.append(name)
        position = part.end()
    # The list is not written as expected.
    return []


def package_of(requirement: str) -> str:
    """Return a requirement's package, "" if it has a marker, a URL or is not valid."""
    match = _REQUIREMENT.fullmatch(requirement.strip())
    return match[1] if match else ""


def normal(name: str) -> str:
    """Return the name of a package as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
