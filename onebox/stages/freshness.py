"""Decide whether a user's stage must run, from its inputs, outputs and arguments."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from onebox import formatting
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.errors import InputError
from onebox.images import recipe
from onebox.stages import declared_files
from onebox.stages.declared_files import Files
from onebox.stages.task_code import code_hash
from onebox.store.atomic_files import open_folder, read_regular, write_in

if TYPE_CHECKING:
    from pathlib import Path

    from onebox.context import BoxContext

# The value of a folder among the outputs.
_FOLDER = "folder"


@dataclass(frozen=True)
class Freshness:
    """
    The state, at one moment, of everything that a user's stage depends on.

    Attributes:
        task: The hash of the task's source, its values, and what it declares.

        arguments: The task's arguments, by name, as text.

        inputs: The hash of each file among the inputs, by its path in the project.

        outputs: The same for the outputs and the folders among them; empty before the
            task has run.
    """

    task: str
    arguments: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Declared:
    """
    The inputs and outputs that `@onebox.stage` declares for a task.

    Attributes:
        name: What the user types, such as "prepare" or "models.train". Each name has
            its own record, because several tasks may have the same function's name.

        uses_box: Whether the settings of the job and of its environment, and the files
            of the image's recipe, are inputs, too.
    """

    name: str
    body: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    uses_box: bool = False

    def now(self, context: BoxContext, arguments: Mapping[str, Any]) -> Freshness:
        """
        Hash the task and its inputs.

        Raises:
            InputError: An input does not exist, or a path leaves the project.
        """
        for name in self.inputs:
            if not declared_files.matches(context.root, name):
                raise InputError(
                    f'tasks.py: stage {self.name}: input "{name}" does not exist'
                )
        found = declared_files.find_inputs(context.root, self.inputs, self.outputs)
        return Freshness(
            code_hash(self.body, self.inputs, self.outputs),
            {name: str(value) for name, value in arguments.items()},
            {
                **(_job_inputs(context) if self.uses_box else {}),
                **self._hashes(context, found),
            },
            {},
        )

    def reason(self, context: BoxContext, now: Freshness) -> str | None:
        """Return why the task must run; None if nothing has changed since it did."""
        last = self._read(context)
        if last is None:
            return f"{self.name} has not run here yet"
        if now.task != last.task:
            return f"the task {self.name} changed"
        for name, value in now.arguments.items():
            before = last.arguments.get(name)
            if value != before:
                return f"{name} = {value}" + (f", was {before}" if before else "")
        changed = _changed(last.inputs, now.inputs)
        if changed:
            return f"{formatting.first_names(changed)} changed"
        outputs = self._output_hashes(context)
        missing = self._without_match(context) or _tops(
            name for name in last.outputs if name not in outputs
        )
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            return f"{formatting.first_names(missing)} {verb} missing"
        # New files among the outputs, such as another job's receipt, do not count.
        changed = _changed(last.outputs, {name: outputs[name] for name in last.outputs})
        return f"{formatting.first_names(changed)} changed" if changed else None

    def keep(self, context: BoxContext, before: Freshness) -> None:
        """
        Record that the task has succeeded; *before* is its state when it began.

        Nothing is recorded if an output does not exist, so that the task runs again.
        """
        if context.invocation.detached:
            return
        for name in self._without_match(context):
            context.screen.warn(
                f"{self.name} left no {name}: the next {self.name} runs again"
            )
            self._file(context).unlink(missing_ok=True)
            return
        outputs = self._output_hashes(context)
        state = Freshness(before.task, before.arguments, before.inputs, outputs)
        text = json.dumps({"version": 1, **asdict(state)}, indent=1)
        file = self._file(context)
        with open_folder(file.parent) as folder:
            write_in(folder, file.name, text.encode())

    def _read(self, context: BoxContext) -> Freshness | None:
        """Return the state at the last success; None if there is no readable one."""
        try:
            fields = json.loads(read_regular(self._file(context)))
            tables = [
                {str(name): str(value) for name, value in fields[table].items()}
                for table in ("arguments", "inputs", "outputs")
            ]
            return Freshness(str(fields["task"]), *tables)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def _file(self, context: BoxContext, suffix: str = "json") -> Path:
        return context.local_dir / "stages" / f"{quote(self.name, safe='')}.{suffix}"

    def _without_match(self, context: BoxContext) -> list[str]:
        """Return the declared outputs that do not exist."""
        return [
            name
            for name in self.outputs
            if not declared_files.matches(context.root, name)
        ]

    def _output_hashes(self, context: BoxContext) -> dict[str, str]:
        """Return the hashes of the outputs, with the folders among them."""
        found = declared_files.find_outputs(context.root, self.outputs)
        return self._hashes(context, found, folders=True)

    def _hashes(
        self, context: BoxContext, files: Files, *, folders: bool = False
    ) -> dict[str, str]:
        """
        Return the hash of each file and the target of each link, by path.

        Args:
            folders: Add the folders, too, which have no hash.
        """
        index = Index(os.fsencode(self._file(context, "index")))
        found = manifest.scan(
            os.fsencode(context.root),
            files.paths,
            index,
            hashing=True,
            through=files.through,
        )
        index.save()
        bad = [*found.unreadable, *found.unstable]
        if bad:
            names = formatting.first_names([formatting.path(path) for path in bad])
            raise InputError(f"tasks.py: stage {self.name}: cannot read {names}")
        hashes = {
            os.fsdecode(entry.path): (
                entry.sha.hex() if entry.sha else os.fsdecode(entry.target)
            )
            for entry in found.entries
            if entry.kind != "d"
        }
        if folders:
            for entry in found.entries:
                if entry.kind == "d":
                    hashes[os.fsdecode(entry.path)] = _FOLDER
        return hashes


def announce(context: BoxContext, name: str, files: str, reason: str | None) -> bool:
    """Print why the task *name* runs or is skipped, and return whether it runs."""
    if reason is None:
        context.screen.print_stage(name, "done", "up to date", files)
    else:
        context.screen.note(f"{name} runs: {reason}")
    return reason is not None


def plan(
    context: BoxContext,
    name: str,
    files: str,
    reason: str | None,
    earlier: Iterable[str],
) -> None:
    """
    Print the plan's line for the task *name*.

    Args:
        earlier: The tasks that make its inputs. If one of them would run, so would
            this one.
    """
    if reason is None:
        names = [n for n in earlier if n in context.chain.would_run]
        reason = f"{formatting.first_names(names)} would run" if names else None
    if reason is None:
        context.screen.plan_line(name, "done", "up to date", files)
        return
    context.chain.would_run.add(name)
    context.screen.plan_line(name, "kept", "would run", reason)


def _job_inputs(context: BoxContext) -> dict[str, str]:
    """
    Return the hashes of what decides what a job does, by name.

    These are settings, and the files of the image's recipe. The provider is not asked.
    """
    image, run = context.settings.image, context.settings.run
    values = {
        "[run] command": run.command,
        "[run] env": dict(run.env),
        "[image]": asdict(image),
    }
    hashes = {
        name: hashlib.sha256(
            json.dumps(value, sort_keys=True, default=dict).encode()
        ).hexdigest()
        for name, value in values.items()
    }
    return {**hashes, **recipe.file_inputs(context)}


def _changed(last: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = sorted({**last, **now})
    return [formatting.path(name) for name in names if last.get(name) != now.get(name)]


def _tops(names: Iterable[str]) -> list[str]:
    """
    Return the paths without those below another of them, as messages show them.

    >>> _tops(["a/b", "a", "a/b/c", "ab"])
    ['a', 'ab']
    """
    found: set[str] = set()
    for name in sorted(names, key=lambda name: name.count("/")):
        above = name.split("/")[:-1]
        folders = {"/".join(above[: n + 1]) for n in range(len(above))}
        if found.isdisjoint(folders):
            found.add(name)
    return [formatting.path(name) for name in sorted(found)]
