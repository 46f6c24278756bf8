"""
Find out what the user must type for each stage, and which stages are on the line.

Invoke tells a task neither its collection nor the other tasks of the command line. So
they are read from the frames of the methods of Invoke that call the task. Python code
that calls a stage has no such frames; then nothing is known.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from invoke.collection import Collection
from invoke.executor import Executor


def read_executor() -> tuple[dict[str, str], tuple[str, ...]]:
    """
    Return what Invoke's executor knows about the onebox stages.

    Invoke passes neither its collection nor the other tasks of the command line to a
    task (`Executor.execute` in invoke/executor.py). So they are read from the frame of
    the executor that called the task.

    Returns:
        What the user must type for each onebox stage, such as `box.run`, and the names
        of the onebox stages on this command line. Both are empty if no executor has
        called the task, for example if Python code calls a stage.
    """
    frame = inspect.currentframe()
    while frame is not None:
        executor = frame.f_locals.get("self")
        if isinstance(executor, Executor) and frame.f_code is Executor.execute.__code__:
            requested = frame.f_locals["tasks"]
            names = names_in(executor.collection)
            return names, _builtin_calls(executor, requested)
        frame = frame.f_back
    return {}, ()


def collection_in_use() -> Collection | None:
    """
    Return the collection whose tasks Invoke is about to parse, None if none is known.

    Invoke tells a task nothing of its collection. So it is read from the frame of
    `Collection.to_contexts`, which asks each task for its flags.
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


def names_in(collection: Collection) -> dict[str, str]:
    """
    Return what the user must type for each onebox stage, by the stage's own name.

    If Invoke's collection has several names for a stage, the result has the name with
    the fewest dots.
    """
    names: dict[str, str] = {}
    for name in sorted(collection.task_names, key=lambda name: name.count(".")):
        task = collection[name]
        if _is_builtin(task):
            names.setdefault(task.name, name)
    return names


def _builtin_calls(executor: Executor, requested: Iterable[Any]) -> tuple[str, ...]:
    """
    Return the names of the onebox stages among the requested tasks.

    The `pre` tasks of the requested tasks are included.
    """
    calls = executor.expand_calls(executor.normalize(tuple(requested)))
    tasks = [call.task for call in calls]
    return tuple(task.name for task in tasks if _is_builtin(task))


def _is_builtin(task: Any) -> bool:
    """Return whether a task is one of onebox's own stages."""
    return getattr(task, "builtin", False) is True
