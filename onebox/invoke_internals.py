"""
Read what Invoke does not pass to tasks: command line, config levels, project.

Only `plugin`, `flags`, `parser`, `line_contexts` and this module depend on Invoke's
internals.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.executor import Executor

if TYPE_CHECKING:
    from invoke.context import Context


def read_executor() -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, ...]]]:
    """
    Return what Invoke's executor knows about the onebox stages.

    Invoke passes neither its collection nor the other tasks of the command line to a
    task (`Executor.execute` in invoke/executor.py). So they are read from the frame of
    the executor that called the task.

    Returns:
        What the user must type for each onebox stage, such as `box.run`, and the names
        of the onebox stages on this command line, both by the stages' file of settings.
        Both are empty if no executor has called the task, for example if Python code
        calls a stage.
    """
    found = _executing()
    if found is None:
        return {}, {}
    executor, variables = found
    calls = _builtin_calls(executor, variables["tasks"])
    return names_in(executor.collection), calls


def tasks_with_json() -> list[str]:
    """Return the tasks of the command line that print a JSON document, as typed."""
    found = _executing()
    if found is None:
        return []
    return [
        call.called_as or call.task.name
        for call in found[1]["calls"]
        if getattr(call.task, "builtin", False) and call.kwargs.get("json")
    ]


def all_tasks() -> dict[Any, str]:
    """
    Return all tasks of the project with what the user must type for each.

    Of several names of a task, the result has that of the outermost collection.
    """
    found = _executing()
    if found is None:
        return {}
    collection = found[0].collection
    names: dict[Any, str] = {}
    for name in collection.task_names:
        names.setdefault(collection[name], name)
    return names


def _executing() -> tuple[Executor, Mapping[str, Any]] | None:
    """Return the executor that runs, with the local variables of its `execute`."""
    frame = inspect.currentframe()
    while frame is not None:
        executor = frame.f_locals.get("self")
        if isinstance(executor, Executor) and frame.f_code is Executor.execute.__code__:
            return executor, frame.f_locals
        frame = frame.f_back
    return None


def collection_in_use() -> Collection | None:
    """
    Return the collection whose tasks Invoke is about to parse, None if none is known.

    It is read from the frame of `Collection.to_contexts`, which asks each task for its
    flags.
    """
    frame = inspect.currentframe()
    for _ in range(6):
        if frame is None:
            break
        if frame.f_code is Collection.to_contexts.__code__:
            found = frame.f_locals.get("self")
            return found if isinstance(found, Collection) else None
        frame = frame.f_back
    return None


def share_contexts(contexts: Mapping[str, Any]) -> None:
    """
    Let Invoke's parser use the contexts of all tasks without a copy of them.

    For each line it copies all of them, and then again the context of each task that it
    meets (`ParseMachine` in invoke/parser/parser.py). The second copy is enough.
    """
    # Invoke's mapping stores ordinary attributes as its items.
    object.__setattr__(contexts, "__deepcopy__", lambda _: contexts)


def names_in(collection: Collection) -> dict[str, dict[str, str]]:
    """
    Return what the user must type for each onebox stage, by file and own name.

    If Invoke's collection has several names for a stage, the result has the name with
    the fewest dots.
    """
    names: dict[str, dict[str, str]] = {}
    for name in sorted(collection.task_names, key=lambda name: name.count(".")):
        task = collection[name]
        if getattr(task, "builtin", False):
            file = getattr(task, "config_file", "")
            names.setdefault(file, {}).setdefault(task.name, name)
    return names


def _builtin_calls(
    executor: Executor, requested: Iterable[Any]
) -> dict[str, tuple[str, ...]]:
    """
    Return the names of the onebox stages among the requested tasks, by their file.

    The `pre` tasks of the requested tasks are included.
    """
    names: dict[str, tuple[str, ...]] = {}
    for call in executor.expand_calls(executor.normalize(tuple(requested))):
        task = call.task
        if getattr(task, "builtin", False):
            file = getattr(task, "config_file", "")
            names[file] = (*names.get(file, ()), task.name)
    return names


def config_levels(c: Context, file: str) -> list[tuple[str, bool, Any]]:
    """
    Return the values of `onebox` in Invoke's configuration, the lowest level first.

    Invoke merges its levels and does not say which of them a value comes from, so the
    levels are read one by one (`Config.merge` in invoke/config.py).

    Args:
        file: The file of settings of the stage that runs.

    Returns:
        For each level: its name in messages, whether it applies to all projects of the
        user, and its value.
    """
    config = c.config
    found = [("collection.configure()", False, one) for one in _configured(c, file)]
    for level, name in (
        ("system", ""),
        ("user", ""),
        ("project", ""),
        ("env", "INVOKE_ONEBOX_*"),
        ("runtime", ""),
        ("overrides", "Invoke's config"),
        ("modifications", "Invoke's config"),
    ):
        values = getattr(config, f"_{level}", None) or {}
        if "onebox" in values:
            place = name or _shown(Path(getattr(config, f"_{level}_path")), c)
            found.append((place, level in ("system", "user"), values["onebox"]))
    return found


def ignored_variables(c: Context, environ: Mapping[str, str]) -> list[str]:
    """
    Return the variables for `onebox` that Invoke ignores, without Invoke's prefix.

    Invoke reads such a variable only if another level of its configuration has the key.
    """
    prefix = str(getattr(c.config, "_env_prefix", "") or "INVOKE_").upper()
    found = {
        name[len(prefix) :] for name in environ if name.startswith(f"{prefix}ONEBOX_")
    }
    read = (getattr(c.config, "_env", None) or {}).get("onebox")
    return sorted(found.difference(_variables("ONEBOX", read)))


def _variables(name: str, value: Any) -> Iterator[str]:
    """Yield the names of the variables that give the single values in *value*."""
    if not isinstance(value, Mapping):
        yield name
        return
    for key, inner in value.items():
        yield from _variables(f"{name}_{key}".upper(), inner)


def _configured(c: Context, file: str) -> list[Any]:
    """
    Return the values of `onebox` that collections have, the lowest level first.

    Invoke gives a task only the configuration of the collections above it. It replaces
    the whole value of `onebox` in an inner collection by that of an outer one. Here, a
    task of the user has the values of the collection of onebox's tasks too, and all
    values are kept, because a limit must not be lost. An outer collection overrides.
    """
    found = _executing()
    if found is None:
        values = [getattr(c.config, "_collection", None) or {}]
    else:
        executor, variables = found
        names = names_in(executor.collection).get(file, {})
        own = min(names.values(), key=lambda name: name.count("."), default="")
        values = []
        for path in (own, variables["call"].called_as or ""):
            above = [executor.collection]
            for part in path.split("."):
                if part not in above[-1].collections:
                    break
                above.append(above[-1].collections[part])
            values += [one.configuration() for one in reversed(above)]
    return [one["onebox"] for one in values if "onebox" in one]


def project_folder(c: Context) -> Path:
    """Return the folder of tasks.py; the working directory if Invoke has read none."""
    prefix = getattr(c.config, "_project_prefix", None)
    return Path(prefix) if prefix else Path.cwd()


def _shown(path: Path, c: Context) -> str:
    """Return a path as messages show it: short if it is in the project or the home."""
    for folder, short in ((project_folder(c), ""), (Path.home(), "~/")):
        if folder in path.parents:
            return f"{short}{path.relative_to(folder)}"
    return str(path)
