"""Write the files that a project starts with: onebox.toml, tasks.py, .gitignore."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import UsageError
from onebox.providers import CLOUDS
from onebox.settings import conda, json_schema
from onebox.settings.example import example
from onebox.stages import project_survey
from onebox.stages.project_survey import Survey
from onebox.store import paths
from onebox.store.atomic_files import not_ours_error, write_atomically
from onebox.transfer import backups

if TYPE_CHECKING:
    from onebox.context import BoxContext

TASKS = "from onebox import *\n"
_HEADER = f"""\
#:schema ./{json_schema.SCHEMA}
# onebox: one job on one big machine. `onebox init --example` prints every setting."""
_LOCAL = f'# "local" runs on this machine; or {", ".join(CLOUDS)}.'
_CLOUD = '# "local" runs on this machine, at no cost.'
_COLUMN = 31
_GUESSED_OUTPUTS = ("results/",)
_GUESS = "a guess: what does the job write?"


def perform(context: BoxContext, *, force: bool = False) -> None:
    """
    Write an onebox.toml that fits the project, and the other missing files.

    A tasks.py that exists is not changed. Outputs are added to .gitignore unless git
    tracks files in them.

    Raises:
        UsageError: onebox.toml exists already, and *force* is not set. Or the folder is
            or holds a home folder.
    """
    root, screen = context.root, context.screen
    reason = paths.why_no_project(root, context.environ)
    if reason is not None:
        raise UsageError(
            f"{reason}: nothing in it is pushed",
            next="inv init in a folder of its own",
        )
    path = root / "onebox.toml"
    if path.exists() and not force:
        raise UsageError(
            f"{path} exists already",
            next="inv plan, or inv init --force to replace it",
        )
    local_dir, gitignore = context.local_dir, root / ".gitignore"
    if gitignore.is_symlink():
        # The link would be replaced by a copy of its target, which may be secret.
        raise not_ours_error(gitignore, "file")
    found = project_survey.survey(root)
    text = template(context.settings.provider, found)
    kept = backups.keep_copy(path, text)
    write_atomically(path, text.encode(), mode=0o644)
    screen.print_stage("init", "done", "written", f"onebox.toml: {_summary(found)}")
    if kept:
        screen.note(f"the onebox.toml before is now {kept}")
    json_schema.write(local_dir)
    _write_tasks(context)
    _write_gitignore(context, found)
    if found.conda and not (found.requirements or found.setup):
        screen.warn(
            f"{found.conda} is not used yet: save setup.sh and uncomment setup and "
            "include, as [image] in onebox.toml shows"
        )
    if len(found.scripts) > 1:
        others = formatting.first_names(list(found.scripts[1:]))
        screen.note(f"[run] command is {found.command}; other scripts: {others}")
    first = "" if found.command else "set [run] command in onebox.toml, then "
    screen.note(f"next: {first}inv plan, then inv run")


def print_example(context: BoxContext) -> None:
    """Print every setting with its default."""
    context.screen.print(example().rstrip("\n"))


def template(provider: str, found: Survey) -> str:
    """Return the onebox.toml for a project."""
    lines = [_HEADER, _CLOUD if provider in CLOUDS else _LOCAL]
    lines += [f'provider = "{provider}"']
    lines += [_line('vm = "medium"', "small, medium, large, xlarge: see `onebox plan`")]
    lines += ["", "[image]", *_image(found)]
    lines += ["", "[run]"]
    if found.command:
        lines += [f"command = {json.dumps(found.command, ensure_ascii=False)}"]
    else:
        # The script of this example does not exist, or the notebook needs nbconvert.
        lines += ["# your job, a line of shell, for example:", _example_command(found)]
    if found.packages:
        help = f"for import {', '.join(found.packages)}"
        lines += [_line('env = { PYTHONPATH = "src" }', help)]
    if found.data:
        lines += ["", "[push]"]
        lines += [
            _line(f"data = {_list(found.data)}", "pushed although git ignores it")
        ]
    lines += ["", "[fetch]"]
    outputs = found.outputs or _GUESSED_OUTPUTS
    help = "copied back after the job" if found.outputs else _GUESS
    lines += [_line(f"outputs = {_list(outputs)}", help)]
    if found.checkpoints:
        help = "copied back during the job too"
        lines += [_line(f"checkpoints = {_list(found.checkpoints)}", help)]
    lines += ["", "[limits]"]
    lines += [_line("max_hours = 8", "the deadline: the box powers itself off")]
    return "\n".join([*lines, ""])


def _image(found: Survey) -> Iterator[str]:
    """Yield the lines of [image]."""
    if found.setup:
        yield _line(
            f'setup = "{found.setup}"', "run once; the disk is kept as an image"
        )
    if found.python:
        yield _line(f'python = "{found.python}"', f"from {found.python_source}")
    if found.requirements:
        yield f'requirements = "{found.requirements}"'
    elif found.conda:
        yield f"# {found.conda} creates the environment of the job with these two keys,"
        yield '# setup = "setup.sh"'
        yield f"# include = {_list((found.conda,))}"
        yield "# and this file setup.sh:"
        for line in conda.setup_script(found.conda).splitlines():
            yield f"#   {line}"
    if not (found.setup or found.python or found.requirements or found.conda):
        yield _line('# requirements = "requirements.txt"', "the packages of the job")


def _example_command(found: Survey) -> str:
    """Return a commented-out command, for a project without a script."""
    if not found.notebook:
        return '# command = "python train.py"'
    convert = "jupyter nbconvert --to notebook --execute --output-dir=results"
    command = f"{convert} {shlex.quote(found.notebook)}"
    return f"# command = {json.dumps(command, ensure_ascii=False)}"


def _summary(found: Survey) -> str:
    parts = [
        found.command or _no_command(found),
        found.setup,
        f"Python {found.python}" if found.python else "",
        found.requirements,
        *(found.outputs or ["outputs in results/ (a guess)"]),
        *found.checkpoints,
        *found.data,
    ]
    return ", ".join(filter(None, parts))


def _no_command(found: Survey) -> str:
    if not found.others:
        return "no script found"
    names = " and ".join(found.others)
    if len(found.others) > 2:
        names = formatting.first_names(list(found.others))
    count = formatting.count(len(found.others), "script")
    return f"{count}, {names}: choose one in [run] command"


def _write_tasks(context: BoxContext) -> None:
    """Write tasks.py, or print which line it lacks."""
    root, screen = context.root, context.screen
    for path in (root / "tasks.py", root / "tasks" / "__init__.py"):
        if path.exists():
            if path.is_file() and not re.search(
                r"\bonebox\b", path.read_text("utf-8", "replace")
            ):
                name = path.relative_to(root)
                screen.note(f"add this line to {name}: {TASKS.strip()}")
            return
    write_atomically(root / "tasks.py", TASKS.encode(), mode=0o644)
    screen.print_stage("init", "done", "written", f"tasks.py: {TASKS.strip()}")


def _write_gitignore(context: BoxContext, found: Survey) -> None:
    """Add onebox's folder, the outputs and the checkpoints to .gitignore."""
    root = context.root
    path = root / ".gitignore"
    if path.exists() and not path.is_file():
        raise not_ours_error(path, "file")
    before = path.read_bytes() if path.exists() else b""
    present = {line.strip().strip(b"/") for line in before.splitlines()}
    outputs = [*(found.outputs or _GUESSED_OUTPUTS), *found.checkpoints]
    wanted = [
        ".onebox/",
        *(name for name in outputs if not _is_tracked(root, name)),
    ]
    added = [name for name in wanted if name.strip("/").encode() not in present]
    if not added:
        return
    end = b"" if before.endswith(b"\n") or not before else b"\n"
    text = "".join(
        f"/{name}\n" if name != ".onebox/" else f"{name}\n" for name in added
    )
    write_atomically(path, before + end + text.encode(), mode=0o644)
    context.screen.print_stage(
        "init", "done", "written", f".gitignore: {', '.join(added)}"
    )


def _is_tracked(root: Path, name: str) -> bool:
    return project_survey.has_tracked_files(root, name.rstrip("/"))


def _line(text: str, help: str) -> str:
    return f"{text:<{_COLUMN - 1}} # {help}"


def _list(names: tuple[str, ...]) -> str:
    return json.dumps(list(names), ensure_ascii=False)
