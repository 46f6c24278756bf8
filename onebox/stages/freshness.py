"""Decide whether a user's stage must run, from its inputs, outputs and arguments."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.errors import InputError
from onebox.settings.checks import InvalidValue, in_project
from onebox.store.atomic_files import open_folder, read_regular, write_in
from onebox.transfer.select import RECEIPT

if TYPE_CHECKING:
    from pathlib import Path

    from onebox.context import BoxContext

_PATTERN = frozenset("*?[")
# Folders that are no input: caches, environments, and records of git and onebox.
_IGNORED = frozenset((b".git", b".onebox", b".venv", b"__pycache__", b"node_modules"))


@dataclass(frozen=True)
class Freshness:
    """
    What a stage of the user's own depends on, at one moment.

    Attributes:
        task: The hash of the task's source.

        arguments: The task's arguments, by name, as text.

        inputs: The hash of each file among the inputs, by its path in the project.

        outputs: The same for the outputs; empty before the task has run.
    """

    task: str
    arguments: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Declared:
    """
    The inputs and outputs that `@onebox.stage` declares for the task *name*.

    If it *uses_box*, the settings of the job and of its environment are inputs, too.
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
            if not _matches(context.root, name):
                raise InputError(
                    f'tasks.py: stage {self.name}: input "{name}" does not exist'
                )
        # An input such as "." holds the outputs, too.
        produced = _paths(context.root, self.outputs)
        found = _paths(context.root, self.inputs)
        links = _followed(context.root, found, self.outputs)
        for link in links:
            found += _below(os.fsencode(context.root), link, follow=True)
        return Freshness(
            _source_hash(self.body),
            {name: str(value) for name, value in arguments.items()},
            {
                **(_job_settings(context) if self.uses_box else {}),
                **self._hashes(context, sorted({*found}.difference(produced)), links),
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
        outputs = self._hashes(context, _paths(context.root, self.outputs))
        missing = sorted(
            formatting.path(name) for name in last.outputs if name not in outputs
        )
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            return f"{formatting.first_names(missing)} {verb} missing"
        # New files among the outputs, such as a receipt of another job, are no reason.
        changed = _changed(last.outputs, {name: outputs[name] for name in last.outputs})
        return f"{formatting.first_names(changed)} changed" if changed else None

    def keep(self, context: BoxContext, before: Freshness) -> None:
        """
        Record that the task has succeeded; *before* is its state when it began.

        Nothing is recorded if an output does not exist, so that the task runs again.
        """
        if context.invocation.detached:
            return
        for name in self.outputs:
            if not _matches(context.root, name):
                context.screen.warn(
                    f"{self.name} left no {name}: the next {self.name} runs again"
                )
                self._file(context).unlink(missing_ok=True)
                return
        outputs = self._hashes(context, _paths(context.root, self.outputs))
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

    def _file(self, context: BoxContext) -> Path:
        return context.local_dir / "stages" / f"{self.name}.json"

    def _hashes(
        self,
        context: BoxContext,
        paths: list[bytes],
        through: AbstractSet[bytes] = frozenset(),
    ) -> dict[str, str]:
        """
        Return the hash of each file and the target of each link, by path.

        The links in *through* are replaced by what they lead to.
        """
        file = context.local_dir / "stages" / f"{self.name}.index"
        index = Index(os.fsencode(file))
        base = os.fsencode(context.root)
        found = manifest.scan(base, paths, index, hashing=True, through=through)
        index.save()
        bad = [*found.unreadable, *found.unstable]
        if bad:
            names = formatting.first_names([formatting.path(path) for path in bad])
            raise InputError(f"tasks.py: stage {self.name}: cannot read {names}")
        return {
            os.fsdecode(entry.path): (
                entry.sha.hex() if entry.sha else os.fsdecode(entry.target)
            )
            for entry in found.entries
            if entry.kind != "d"
        }


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


def _source_hash(body: Callable[..., Any]) -> str:
    """Return the hash of a function's source, or of its code if it has no source."""
    try:
        text = inspect.getsource(body).encode()
    except (OSError, TypeError):
        text = body.__code__.co_code
    return hashlib.sha256(text).hexdigest()


def _job_settings(context: BoxContext) -> dict[str, str]:
    """Return the hashes of the settings that decide what a job does, by name."""
    image, run = context.settings.image, context.settings.run
    values = {
        "[run] command": run.command,
        "[run] env": dict(run.env),
        "[image]": asdict(image),
    }
    return {
        name: hashlib.sha256(
            json.dumps(value, sort_keys=True, default=dict).encode()
        ).hexdigest()
        for name, value in values.items()
    }


def _matches(root: Path, name: str) -> list[bytes]:
    """
    Return the paths that a declared name or pattern stands for, relative to *root*.

    Raises:
        InputError: The name leaves the project.
    """
    try:
        in_project(name)
    except InvalidValue as problem:
        raise InputError(f"tasks.py: @stage: {problem}") from None
    if _PATTERN.intersection(name):
        found = sorted(root.glob(name))
    else:
        found = [path for path in [root / name] if path.exists() or path.is_symlink()]
    return [os.fsencode(path.relative_to(root)) for path in found]


def _paths(root: Path, names: Iterable[str]) -> list[bytes]:
    """Return the paths at and below the declared names, without caches and receipts."""
    base = os.fsencode(root)
    paths: set[bytes] = set()
    for name in names:
        for top in _matches(root, name):
            paths.update(_below(base, b"" if top == b"." else top))
    return sorted(paths)


def _below(base: bytes, top: bytes, *, follow: bool = False) -> list[bytes]:
    """Return the paths at and below *top*, without caches and receipts."""
    return [
        path
        for path in manifest.walk(base, top, follow=follow).paths
        if _IGNORED.isdisjoint(path.split(b"/"))
        and path.rpartition(b"/")[2] != RECEIPT.encode()
    ]


def _followed(
    root: Path, paths: Iterable[bytes], outputs: Iterable[str]
) -> frozenset[bytes]:
    """
    Return the links among the inputs whose targets are inputs, too.

    A link to an output, a cache, or a folder that has the link itself is no such link.
    A link below another link is not followed.
    """
    base = root.resolve()
    produced = [
        (base / os.fsdecode(top)).resolve()
        for name in outputs
        for top in _matches(root, name)
    ]
    return frozenset(
        path for path in paths if _is_followed(base / os.fsdecode(path), base, produced)
    )


def _is_followed(link: Path, base: Path, produced: Iterable[Path]) -> bool:
    if not link.is_symlink() or not link.exists():
        return False
    target = link.resolve()
    if link.is_relative_to(target) or any(
        target.is_relative_to(one) or one.is_relative_to(target) for one in produced
    ):
        return False
    inside = target.is_relative_to(base)
    parts = target.relative_to(base).parts if inside else ()
    return _IGNORED.isdisjoint(map(os.fsencode, parts))


def _changed(last: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = sorted({**last, **now})
    return [formatting.path(name) for name in names if last.get(name) != now.get(name)]
