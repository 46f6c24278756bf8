"""Find the project that a command line of `onebox` is for."""

from __future__ import annotations

import ast
import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from onebox.agent.file_names import printable
from onebox.errors import ConfigError
from onebox.file_owners import is_foreign, is_open_to_all
from onebox.ui.plain import note


def find_project(folder: Path, *, completes: bool) -> tuple[Path | None, bool]:
    """
    Return the project's folder, None without one; whether its tasks.py may have stages.

    Files above *folder* that another user owns are ignored: anyone could put a tasks.py
    in a folder such as /tmp, and this program would run it.

    Args:
        folder: Where the search begins; it goes upwards.

        completes: Print no message.

    Raises:
        ConfigError: The project is another user's, in a folder such as /tmp itself.
    """
    for place in (folder, *folder.parents):
        names_onebox = _names_onebox(place)
        if not names_onebox and not _has_settings(place):
            continue
        if place != folder and (is_of_another_user(place) or is_foreign(place)):
            if not completes:
                note(
                    f"onebox: the project in {printable(str(place))} belongs to "
                    "another user, so it is not used\n  next: cd there, if you trust it"
                )
            continue
        if not completes and is_of_another_user(place) and is_open_to_all(place):
            raise ConfigError(
                f"every user can write to {printable(str(place))}, and the project in "
                "it belongs to another user",
                next="copy it to a folder of your own, if you trust it",
            )
        return place, names_onebox
    return None, False


def is_of_another_user(folder: Path) -> bool:
    """Return whether another user, but not root, owns the files of a project."""
    places = (folder / "onebox.toml", folder / "tasks.py", folder / "tasks")
    return any(map(is_foreign, (*places, *(folder / "tasks").glob("*.py"))))


def unread_tasks(folder: Path) -> str:
    """Return why the tasks in the folder's tasks.py are not known; "" without one."""
    source = folder / "tasks.py"
    if not source.is_file() or is_foreign(source) or _names_onebox(folder):
        return ""
    text = "tasks.py does not name onebox, so it is not read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source.read_bytes())
    except SyntaxError as error:
        problem = printable(" ".join(str(error.msg).split()))
        return f"{text}; its line {error.lineno} has a SyntaxError: {problem}"
    except (OSError, ValueError, RecursionError, MemoryError):
        return text
    return text


def _has_settings(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return (folder / "onebox.toml").is_file()
    return False


def _names_onebox(folder: Path) -> bool:
    """Return whether tasks.py, or a module in the package tasks/, names onebox."""
    sources = list(_task_files(folder))
    # A pipe would stop the search, and a device would not end.
    if any(source.exists() and not source.is_file() for source in sources):
        return False
    for source in sources:
        with contextlib.suppress(OSError):
            if b"onebox" in source.read_bytes():
                return True
    return False


def _task_files(folder: Path) -> Iterator[Path]:
    module, package = folder / "tasks.py", folder / "tasks"
    yield module
    # Invoke passes over a folder tasks/ that is no package, and looks further upwards.
    with contextlib.suppress(OSError):
        if module.exists() or (package / "__init__.py").exists():
            yield from package.glob("*.py")
