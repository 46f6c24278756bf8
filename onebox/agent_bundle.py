"""
Pack the agent into one file for the box, and its bytecode into another one.

Python compiles the modules of an archive at each start, because it writes no bytecode
into archives. For the agent that takes 0.2 s of CPU time. So a file of bytecode can be
beside the agent. Its name contains a hash of the agent's sources and the version of
Python, so any other agent or Python ignores it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import io
import marshal
import sys
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path

# The archive of bytecode comes first in the search path. If it is missing or damaged,
# Python searches the next entry, which is the agent.
MAIN = """\
import os
import sys

python = "%s-%x" % (sys.implementation.cache_tag, sys.hexversion)
bytecode = "bytecode-{sources}-" + python + ".zip"
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
sys.path.insert(0, os.path.join(folder, bytecode))

from agent.main import main

main()
"""
SMALL = "from agent.main import main\n\nmain(small=True)\n"
# The modules of the small agent, which runs the watchdog and receives the whole agent.
SEED = (
    "__init__",
    "box",
    "jobs/__init__",
    "jobs/engine",
    "jobs/exit_record",
    "jobs/job_state",
    "main",
    "preemption_notice",
    "processes",
    "protocol",
    "server",
    "watchdog",
)
# The header of a .pyc file that is valid without a look at its source.
_PYC = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
# This lock is needed because in Python 3.11 ast.parse raises SystemError when two
# threads call it at the same time.
_PARSING = threading.Lock()


@functools.lru_cache(maxsize=1)
def bundle() -> bytes:
    """
    Return the agent as a zip archive that python3 runs.

    The same sources give the same bytes.
    """
    files = {f"agent/{name}": path.read_text("utf-8") for name, path in _modules()}
    main = MAIN.format(sources=_sources())
    return _zip({"__main__.py": main, **files}, zipfile.ZIP_DEFLATED)


@functools.lru_cache(maxsize=1)
def bytecode() -> tuple[str, bytes]:
    """
    Return the name and the content of the file of bytecode for this version of Python.

    The file belongs into the folder of the agent. A user who can write it can change
    what the agent does.
    """
    # Invoke lets Python write no bytecode, so each `inv` would compile these modules.
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    try:
        files = {f"agent/{name}c": _PYC + _code(path) for name, path in _modules()}
    finally:
        sys.dont_write_bytecode = before
    python = f"{sys.implementation.cache_tag}-{sys.hexversion:x}"
    return f"bytecode-{_sources()}-{python}.zip", _zip(files, zipfile.ZIP_STORED)


@functools.lru_cache(maxsize=1)
def seed() -> bytes:
    """
    Return the small agent that a new box gets in its user data for the first boot.

    Its files are not compressed, because the user data as a whole compresses better.
    """
    files = {"__main__.py": SMALL}
    for name in SEED:
        text = (_folder() / f"{name}.py").read_text("utf-8")
        files[f"agent/{name}.py"] = _stripped(text)
    return _zip(files, zipfile.ZIP_STORED)


def version() -> str:
    """
    Return a short hash of this machine's agent.

    If the agent on a box has another hash, it is replaced.
    """
    return hashlib.sha256(bundle()).hexdigest()[:12]


def _folder() -> Path:
    return Path(__file__).parent / "agent"


def _modules() -> list[tuple[str, Path]]:
    """Return the files of the agent, and their names in its package."""
    folder = _folder()
    paths = sorted(folder.rglob("*.py"))
    return [(path.relative_to(folder).as_posix(), path) for path in paths]


@functools.lru_cache(maxsize=1)
def _sources() -> str:
    """Return a short hash of the agent's sources."""
    digest = hashlib.sha256()
    for name, path in _modules():
        text = path.read_bytes()
        digest.update(b"%s %d\n%s" % (name.encode(), len(text), text))
    return digest.hexdigest()[:12]


def _code(path: Path) -> bytes:
    """Return the bytecode of a module, from its cache if that is valid."""
    loader = importlib.machinery.SourceFileLoader(path.stem, str(path))
    return marshal.dumps(loader.get_code(path.stem))


def _zip(files: Mapping[str, str | bytes], method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, text in files.items():
            # The date is fixed, so that the same sources give the same bytes.
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            archive.writestr(info, text, method, 9)
    return out.getvalue()


def _stripped(text: str) -> str:
    """Return the source of a module without comments and docstrings."""
    with _PARSING:
        module = ast.parse(text)
    for node in ast.walk(module):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body[0:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return ast.unparse(module)
