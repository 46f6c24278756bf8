"""Find the scripts that a command names, and reasons for which it cannot start."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.project_files import select_project

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A command with one of these characters can change the folder or create files first.
_SHELL = re.compile(r"[&|;<>()$`\\*?\[\]{}~#!\n]")
_QUOTED = re.compile(r"'[^']*'")
# The variables that a line of shell sets for its program, such as `SEED=7 python a.py`.
_VARIABLES = re.compile(
    r"""\s*(?:[A-Za-z_]\w*=(?:[^\s'"]|'[^']*'|"[^"]*")*(?:\s+|$))*"""
)
_SCRIPT = re.compile(r"[\w.-][\w./-]*\.(?:py|ipynb|sh|R|r|jl|pl|js|rb|do|m)")
# Programs that run a script: their flags that have no value, and the scripts' suffixes.
_INTERPRETERS = (
    (
        re.compile(r"python(?:3(?:\.\d+)?)?"),
        re.compile(r"-(?:u|OO?|B|s|E|I|q|v)"),
        (".py",),
    ),
    (re.compile(r"bash|dash|sh|zsh"), re.compile(r"-[euxv]+"), (".bash", ".sh")),
)
# The program that runs a script, by the script's suffix.
_RUNNERS = {
    ".py": "python",
    ".bash": "bash",
    ".sh": "bash",
    ".R": "Rscript",
    ".jl": "julia",
}
# Programs whose mistyped names are known.
_PROGRAMS = ("python", "python3", "bash", "Rscript", "julia", "make")
# The files that can make a file of the project a program in the environment of the job.
_PACKAGING = ("pyproject.toml", "setup.cfg", "setup.py")


@dataclass(frozen=True)
class Unstartable:
    """
    Why a command cannot start on a new box.

    Attributes:
        problem: The reason, with the file's name.

        meant: The command that was probably meant, "" if it is unknown.

        missing: The file that the push does not bring, "" if that is not the reason.

        other: What else solves the problem, "" if that is unknown.
    """

    problem: str
    meant: str = ""
    missing: str = ""
    other: str = ""


def find_problem(context: BoxContext, command: str) -> Unstartable | None:
    """
    Return why a plain command cannot start, None if nothing is wrong with its files.

    A command for a shell that does more than to start one program has no such reason.

    Raises:
        OneboxError: The files to push cannot be selected.
    """
    if _SHELL.search(_QUOTED.sub("", command)):
        return None
    variables = _VARIABLES.match(command)
    before = variables[0] if variables else ""
    words = _words(command[len(before) :])
    # With another PATH, any file can be a program.
    if not words or "PATH=" in before.replace("PYTHONPATH=", ""):
        return None
    found = _problem_of(context, words)
    if found is None or not found.meant:
        return found
    return replace(found, meant=f"{before.lstrip()}{found.meant}")


def _problem_of(context: BoxContext, words: list[str]) -> Unstartable | None:
    """Return why the program of a command cannot start; see `find_problem`."""
    root, program, rest = context.root, words[0], words[1:]
    path = root / program
    if "/" not in program and path.is_file():
        return _file_as_program(program, rest, root)
    if _is_inside(program) and "/" in program:
        if path.is_file() and not path.stat().st_mode & 0o111:
            runner = _RUNNERS.get(path.suffix)
            plain = program[2:] if program.startswith("./") else program
            return Unstartable(
                f"{formatting.path(program)} is not executable",
                shlex.join([runner, plain, *rest]) if runner else "",
                other=shlex.join(["chmod", "+x", plain]),
            )
        return _missing(words, 0, root) if _is_absent(root, program) else None
    if program not in _PROGRAMS and _is_unknown(context, program):
        return _unknown_program(words, root)
    index = _script_index(words)
    if index is None:
        return None
    if _is_absent(root, words[index]):
        return _missing(words, index, root)
    reason = absence(context, words[index])
    if not reason:
        return None
    problem = f"{formatting.path(words[index])} {reason}"
    return Unstartable(problem, missing=words[index], other="name it in [push] data")


def _file_as_program(name: str, rest: list[str], root: Path) -> Unstartable | None:
    """Return the problem that a file of the project is typed like a program."""
    # Another file may have the name of a program that only the box has.
    if not _SCRIPT.fullmatch(name) or shutil.which(name) is not None:
        return None
    if _is_packaged(name, root):
        return None
    problem = f"{formatting.path(name)} is a file here, not a program"
    runner = _RUNNERS.get(Path(name).suffix)
    if runner and not (root / name).stat().st_mode & 0o111:
        return Unstartable(problem, shlex.join([runner, name, *rest]))
    return Unstartable(problem, shlex.join([f"./{name}", *rest]))


def _is_packaged(name: str, root: Path) -> bool:
    """Return whether the project's package may have a program of this name."""
    paths = [root / packaging for packaging in _PACKAGING]
    return any(
        path.is_file() and name in path.read_text(errors="replace") for path in paths
    )


def _is_unknown(context: BoxContext, program: str) -> bool:
    """Return whether neither this machine, the project nor an image has a program."""
    image, root = context.settings.image, context.root
    if image.use or image.setup or image.packer or image.requirements:
        return False
    if "PATH" in context.settings.run.env:
        return False
    return not (
        "/" in program
        or os.path.lexists(root / program)
        or shutil.which(program)
        or _is_packaged(program, root)
    )


def _unknown_program(words: list[str], root: Path) -> Unstartable | None:
    """
    Return the problem that the first word is a missing script, or a mistyped program.

    None if it can be a program that only the box has.
    """
    name, *rest = words
    runner = _RUNNERS.get(PurePosixPath(name).suffix)
    if runner and _SCRIPT.fullmatch(name):
        return _missing([runner, *words], 1, root)
    near = next((one for one in _PROGRAMS if _is_slip(name, one)), "")
    if not near:
        return None
    problem = f"there is no program {formatting.path(name)}"
    return Unstartable(problem, shlex.join([near, *rest]))


def _is_slip(name: str, meant: str) -> bool:
    """
    Return whether a name is *meant* with swapped letters, or one too few or doubled.

    Names that are merely similar are other programs: pyston, bashdb, cmake.

    >>> [_is_slip(name, "python") for name in ("pyhton", "pythn", "pythoon", "pyston")]
    [True, True, True, False]
    """
    if name[:1] != meant[0]:
        return False
    swapped = sorted(name) == sorted(meant)
    without = {meant[:n] + meant[n + 1 :] for n in range(1, len(meant))}
    doubled = {meant[:n] + meant[n - 1 :] for n in range(1, len(meant) + 1)}
    return swapped or name in without | doubled


def _missing(words: list[str], index: int, root: Path) -> Unstartable:
    """Return the problem that a file does not exist, with the nearest file's name."""
    name = words[index]
    folder, _, last = name.rpartition("/")
    try:
        files = [path.name for path in (root / folder).iterdir() if path.is_file()]
    except OSError:
        files = []
    meant = ""
    for near in difflib.get_close_matches(last[:99], files, 1, 0.7):
        if near.isprintable():
            other = f"{folder}/{near}" if folder else near
            meant = shlex.join([*words[:index], other, *words[index + 1 :]])
    return Unstartable(f"{formatting.path(name)} does not exist", meant, name)


def _script_index(words: list[str]) -> int | None:
    """
    Return the index of the script inside the project that an interpreter would run.

    It is None if the first word is no interpreter, or has other arguments.

    >>> _script_index(["python", "-u", "a/train.py", "--seed", "7"])
    2
    >>> _script_index(["python", "-m", "train"])
    """
    for program, flags, suffixes in _INTERPRETERS:
        if program.fullmatch(words[0]):
            for index, word in enumerate(words[1:], 1):
                if not flags.fullmatch(word):
                    is_script = _is_inside(word) and word.endswith(suffixes)
                    return index if is_script else None
    return None


def _is_inside(word: str) -> bool:
    """Return whether a word can be the path of a file in the project."""
    return not word.startswith(("-", "/", "~")) and ".." not in word.split("/")


def _is_absent(root: Path, name: str) -> bool:
    """
    Return whether a path inside the project certainly does not exist on a box.

    A link can lead to a file that only the box has.
    """
    path = root / name
    inside = [part for part in path.parents if root in part.parents]
    return not os.path.lexists(path) and not any(part.is_symlink() for part in inside)


def absence(context: BoxContext, script: str) -> str:
    """
    Return why a push does not bring a script to the box, "" if it does.

    Args:
        script: A path inside the project.

    Raises:
        OneboxError: The files to push cannot be selected.
    """
    if not (context.root / script).exists():
        absent = _is_absent(context.root, script)
        return "does not exist" if absent else ""
    path = PurePosixPath(os.path.normpath(script))
    # All data is pushed, and there may be much of it, so it is not listed.
    data = [
        PurePosixPath(os.path.normpath(name))
        for name in (
            *context.settings.push.local_data,
            *(source.target for source in context.settings.push.sources),
        )
    ]
    if not {path, *path.parents}.isdisjoint(data):
        return ""
    selection = select_project(context, code_only=True)
    places = {os.fsencode(place) for place in (path, *path.parents)}
    # A folder above may be pushed as a link.
    if not places.isdisjoint(selection.paths):
        return ""
    if any(folder.path.rstrip(b"/") in places for folder in selection.left_out):
        return "is not pushed, because it is among the outputs"
    caches = {os.fsdecode(folder.path.rstrip(b"/")) for folder in selection.caches}
    if not caches.isdisjoint(path.parts):
        return "is not pushed, because it is in a folder of caches"
    return "is not pushed: git ignores it, or [push] does not name it"


def describe_absent(context: BoxContext, command: str) -> str:
    """
    Return a phrase about the scripts of a command that a push does not bring.

    The job itself may create them, so this is no certain mistake. The phrase is "" if
    there are none.

    Raises:
        OneboxError: The files to push cannot be selected.
    """
    names: dict[str, list[str]] = {}
    for word in dict.fromkeys(_words(command)):
        if _SCRIPT.fullmatch(word) and ".." not in word.split("/"):
            names.setdefault(absence(context, word), []).append(formatting.path(word))
    names.pop("", None)
    return "; ".join(
        f"{formatting.first_names(words)} {why}" for why, words in names.items()
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []
