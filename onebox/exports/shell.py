"""Write the parts of bash scripts: quoted texts, the environment, and the units."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.agent.units import threads
from onebox.images import python_env, python_project
from onebox.jobs.job_environment import LIVE
from onebox.settings import Settings
from onebox.settings.job_tables import ImageTable
from onebox.units.plan import UnitPlan

# What stands in the folder of a unit, beside its own files: its output and exit code.
LOG, CODE = "unit.log", "unit.exit"
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'"}


def quote(text: str) -> str:
    """
    Return a text as one word for bash, on one line.

    Bytes are escaped, not characters, because bash writes `\\u2028` in the encoding of
    its locale.

    >>> print(quote("a b"), quote("it's"), quote("é\\n\\x7f"))
    'a b' $'it\\'s' $'é\\n\\x7f'
    """
    if text.isprintable() and "'" not in text:
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def comment(*lines: str) -> Iterator[str]:
    """Yield lines as comments; no character of them can end the comment."""
    for line in lines:
        yield f"# {printable(line)}".rstrip()


def job_name(settings: Settings) -> str:
    """
    Return a name for the job, made from those of project and box.

    SkyPilot allows no dash at the end, and no three in a row.
    """
    box = "" if settings.name == "main" else f"-{settings.name}"
    return "-".join(re.findall("[a-z0-9]+", f"{settings.project}{box}"))


def exports(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield lines that set variables of the job."""
    for name, value in variables.items():
        yield f"export {name}={quote(value)}"


def thread_variables(settings: Settings, cpus: int) -> dict[str, str]:
    """Return the thread variables of a unit that `[run] env` does not set."""
    return _not_set(settings, threads.variables(cpus))


def thread_names(settings: Settings) -> list[str]:
    """Return the thread variables of an ordinary job that `[run] env` does not set."""
    return [*_not_set(settings, threads.job_variables(1))]


def own_variables(settings: Settings) -> dict[str, str]:
    """Return what onebox sets for a job, and `[run] env` does not."""
    own = {**LIVE, **python_env.job_variables(settings.image)}
    return _not_set(settings, own)


def _not_set(settings: Settings, variables: Mapping[str, str]) -> dict[str, str]:
    return {n: v for n, v in variables.items() if n not in settings.run.env}


def activate(venv: str) -> list[str]:
    """Return the lines that put the job into a virtual environment, if it exists."""
    return [
        f'if [ -x "{venv}/bin/python" ]; then',
        f'  export VIRTUAL_ENV="{venv}" PATH="{venv}/bin:$PATH"',
        "fi",
    ]


def build_environment(image: ImageTable, root: Path, venv: str) -> Iterator[str]:
    """
    Yield the lines that make the Python environment of `[image]`, with uv.

    Args:
        venv: The folder of the environment, absolute, as bash reads it in quotes.
    """
    yield 'ONEBOX_UV=$(PATH="$PATH:$HOME/.local/bin" command -v uv || true)'
    yield 'if [ -z "$ONEBOX_UV" ]; then'
    yield '  python3 -m venv "$HOME/.uv-program"'
    yield '  "$HOME/.uv-program/bin/pip" install --quiet uv'
    yield '  ONEBOX_UV="$HOME/.uv-program/bin/uv"'
    yield "fi"
    python = f"--python {quote(image.python)}" if image.python else ""
    if python:
        yield f'"$ONEBOX_UV" venv --quiet --allow-existing {python} "{venv}"'
    else:
        yield f'[ -x "{venv}/bin/python" ] || "$ONEBOX_UV" venv --quiet "{venv}"'
    if not image.requirements:
        return
    path = PurePosixPath(image.requirements)
    install = f'"$ONEBOX_UV" pip install --python "{venv}/bin/python"'
    project = python_project.find(root, image.requirements)
    if path.name == "uv.lock":
        sync = f"sync --frozen --inexact {python}".rstrip()
        commands = [f'UV_PROJECT_ENVIRONMENT="{venv}" "$ONEBOX_UV" {sync}']
    else:
        commands = [f"{install} -r {quote(path.name)}"]
        if path.name == "pyproject.toml" and project is not None:
            commands.append(f"{install} --no-deps -e {quote(project.spec)}")
    # What a list names, such as `-e .`, is relative to its folder.
    inside = [f"cd -- {quote(str(path.parent))}"] if str(path.parent) != "." else []
    yield f"({' && '.join([*inside, *commands])})"


def unit_lines(plan: UnitPlan) -> Iterator[str]:
    """
    Yield the lines that set the variables of the unit `$ONEBOX_UNIT`.

    The line of the unit is then in `$ONEBOX_LINE`, which no parameter can be called.
    """
    yield "case $ONEBOX_UNIT in"
    for unit in plan.units:
        line = unit.command
        if not isinstance(line, str):
            line = formatting.shell_line(line)
        folder = unit.outputs.rstrip("/")
        words = [f"ONEBOX_UNIT_OUTPUTS=$PWD/{quote(folder)}"]
        words += [f"ONEBOX_LINE={quote(line)};", "export"]
        words += [
            f"{name}={quote(value)}" for name, value in zip(plan.names, unit.values)
        ]
        yield f"{unit.number}) {' '.join(words)} ;;"
    yield '*) echo "there is no unit $ONEBOX_UNIT" >&2; exit 64 ;;'
    yield "esac"
    yield f"export ONEBOX_UNIT ONEBOX_UNITS={len(plan.units)} ONEBOX_UNIT_OUTPUTS"
    yield 'mkdir -p -- "$ONEBOX_UNIT_OUTPUTS"'
    yield f'rm -f -- "$ONEBOX_UNIT_OUTPUTS/{CODE}"'


def missing_parts(settings: Settings) -> Iterator[str]:
    """Yield what neither Slurm nor SkyPilot does as onebox does it, a line for each."""
    image, fetch, limits = settings.image, settings.fetch, settings.limits
    for key in ("packer", "use"):
        value = getattr(image, key)
        if value:
            yield f"[image] {key} = {formatting.path(value)}"
    if limits.max_cost is not None:
        yield f"[limits] max_cost = {limits.max_cost:g}"
    for source in settings.push.sources:
        yield f"[push] data: {source.shown} belongs in {formatting.path(source.target)}"
    if fetch.checkpoints:
        yield f"[fetch] checkpoints: {_names(fetch.checkpoints)}"
    if settings.run.when == "changed":
        yield '[run] when = "changed"'
    if settings.notify.command or settings.notify.url:
        yield "[notify]"
    identity = settings.providers[settings.provider].identity
    if identity:
        yield f"the identity of the box, {identity}"
    yield "the outputs are not compared with the copies that you fetch"


def _names(paths: Iterable[str]) -> str:
    return ", ".join(map(formatting.path, paths))
