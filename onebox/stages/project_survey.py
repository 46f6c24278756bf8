"""Find a project's script, its version of Python, its outputs and its data."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from onebox.errors import InputError
from onebox.transfer import git
from onebox.transfer.gitignore import tracked_without_git

# The names of a job's script, the likeliest first, with the programs that run them.
_NAMES = ("train", "main", "run", "job", "app")
_PROGRAMS = {".py": "python", ".sh": "bash"}
_FOLDERS = ("src", "scripts")
# Python files that are not a job.
_NO_JOB = re.compile(
    r"(?:tasks|setup|conftest|noxfile|fabfile|__.*|test_.*|.*_test)\.py"
)
_OUTPUTS = ("results", "result", "outputs", "output", "out", "artifacts", "figures")
_CHECKPOINTS = ("checkpoints", "checkpoint", "ckpts", "ckpt")
_DATA = ("data", "dataset", "datasets", "input", "inputs")
# Only this many bytes of a script are searched for names of folders.
_MOST_BYTES = 1 << 20
_REQUIRES_PYTHON = re.compile(r"""^requires-python\s*=\s*["']([^"']+)["']""", re.M)
_PROJECT_TABLE = re.compile(r"^\[project\]", re.M)


@dataclass(frozen=True)
class Survey:
    """
    What a project has.

    Attributes:
        command: The command of the likely script, "" if there is no script.

        scripts: All scripts that could be the job, the likeliest first.

        others: The scripts of a project whose job is none of *scripts*, if there are
            several.

        notebook: The only notebook of a project without a script, else "".

        python: The version of Python, such as "3.12", *python_source* the file that
            gives it. Both are "" if no file does.

        requirements: The file that lists the packages, "" if there is none.

        conda: The file of a conda environment, "" if there is none.

        setup: The set-up script, "" if there is none.

        outputs, checkpoints: Folders for them that exist or that the script names.

        data: Folders with data that git ignores.

        packages: The packages in src/ of a project that is not installed.
    """

    command: str = ""
    scripts: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    notebook: str = ""
    python: str = ""
    python_source: str = ""
    requirements: str = ""
    conda: str = ""
    setup: str = ""
    outputs: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


def survey(root: Path) -> Survey:
    """Return what the project in *root* has; only names and a few files are read."""
    scripts = tuple(_scripts(root))
    python, python_source = _python(root)
    requirements = _requirements(root)
    command = ""
    if scripts:
        program = _PROGRAMS[Path(scripts[0]).suffix]
        # A plain Linux has no program called python. A virtual environment has one.
        if program == "python" and not (python or requirements):
            program = "python3"
        command = f"{program} {shlex.quote(scripts[0])}"
    text = _read(root / scripts[0]) if scripts else ""
    return Survey(
        command=command,
        scripts=scripts,
        others=() if scripts else tuple(_other_scripts(root)),
        notebook="" if scripts else _only(root.glob("*.ipynb")),
        python=python,
        python_source=python_source,
        requirements=requirements,
        conda=_conda(root),
        setup="setup.sh" if (root / "setup.sh").is_file() else "",
        outputs=tuple(_folders(root, _OUTPUTS, text)),
        checkpoints=tuple(_folders(root, _CHECKPOINTS, text)),
        data=tuple(f"{name}/" for name in _DATA if _is_ignored(root, name)),
        packages=() if _is_installable(root) else tuple(_packages(root)),
    )


def has_tracked_files(root: Path, folder: str) -> bool:
    """Return whether git tracks files in a folder of the project."""
    listed = _listed(root, folder)
    return listed is not None and bool(listed[0])


def _scripts(root: Path) -> Iterator[str]:
    """Yield the scripts that could be the job, the likeliest first."""
    found = False
    packages = [Path("src", name) for name in _packages(root)]
    folders = [Path(), *map(Path, _FOLDERS), *packages]
    for suffix in _PROGRAMS:
        for folder in folders:
            for name in _NAMES:
                path = folder / f"{name}{suffix}"
                if (root / path).is_file():
                    found = True
                    yield path.as_posix()
    if found:
        return
    others = _other_scripts(root)
    if len(others) == 1:
        yield others[0]


def _packages(root: Path) -> list[str]:
    """Return the names of the packages in src/."""
    return sorted(path.parent.name for path in root.glob("src/*/__init__.py"))


def _is_installable(root: Path) -> bool:
    """Return whether the project has a file with which pip can install it."""
    names = ("pyproject.toml", "setup.py", "setup.cfg")
    return any((root / name).is_file() for name in names)


def _other_scripts(root: Path) -> list[str]:
    """Return the Python files of the project folder that could be the job, by name."""
    names = [path.name for path in root.glob("*.py") if path.is_file()]
    return sorted(name for name in names if not _NO_JOB.fullmatch(name))


def _only(paths: Iterable[Path]) -> str:
    """Return the name of the only file, "" if there is none or more than one."""
    names = [path.name for path in paths if path.is_file()]
    return names[0] if len(names) == 1 else ""


def _python(root: Path) -> tuple[str, str]:
    """Return the version of Python, and the file that gives it."""
    version = _read(root / ".python-version").strip().partition("\n")[0].strip()
    if re.fullmatch(r"3\.\d+(?:\.\d+)?", version):
        return version, ".python-version"
    text = _read(root / "pyproject.toml")
    match = _REQUIRES_PYTHON.search(text)
    versions = match[1].replace(" ", "") if match else ""
    if re.fullmatch(r"[<>=~!]*[0-9][0-9.,<>=~!*]*", versions):
        return versions, "pyproject.toml"
    return "", ""


def _requirements(root: Path) -> str:
    """Return the file that lists the project's packages, "" if there is none."""
    project = _PROJECT_TABLE.search(_read(root / "pyproject.toml"))
    if project and (root / "uv.lock").is_file():
        return "uv.lock"
    if (root / "requirements.txt").is_file():
        return "requirements.txt"
    if project:
        return "pyproject.toml"
    return ""


def _conda(root: Path) -> str:
    """Return the file of a conda environment, "" if there is none."""
    names = ("environment.yml", "environment.yaml")
    return next((name for name in names if (root / name).is_file()), "")


def _folders(root: Path, names: Iterable[str], script: str) -> Iterator[str]:
    """Yield those folders that exist, or that a string of the script begins with."""
    for name in names:
        if (root / name).is_dir() or re.search(rf"""["'](?:\./)?{name}["'/]""", script):
            yield f"{name}/"


def _is_ignored(root: Path, name: str) -> bool:
    """Return whether a folder has files, and git would add none of them."""
    folder = root / name
    if not folder.is_dir() or folder.is_symlink():
        return False
    with suppress(OSError):
        if not any(folder.iterdir()):
            return False
        listed = _listed(root, name)
        if listed is not None:
            return not any(listed)
        return not tracked_without_git(os.fsencode(root), [os.fsencode(name)])
    return False


def _listed(root: Path, name: str) -> tuple[set[bytes], set[bytes], set[bytes]] | None:
    """Return what `git.list_files` returns for a folder; None without a repository."""
    with suppress(InputError):
        # Inner repositories are not entered.
        return git.list_files(os.fsencode(root), [os.fsencode(name)], lambda path: True)
    return None


def _read(path: Path) -> str:
    """Return the text of a file, "" if it cannot be read or is too big."""
    with suppress(OSError):
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            return path.read_text("utf-8", "replace")
    return ""
