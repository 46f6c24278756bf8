"""Pack the agent into the one file that goes to the box."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path

MAIN = "from agent.main import main\n\nmain()\n"
SMALL = "from agent.main import main\n\nmain(small=True)\n"
# What it takes to watch, to greet a client, and to be sent the whole agent.
SEED = (
    "__init__",
    "box",
    "jobs/__init__",
    "jobs/exit_record",
    "jobs/state",
    "main",
    "preemption_notice",
    "processes",
    "protocol",
    "server",
    "watchdog",
)
# Two threads that parse at once make Python 3.11 lose count: a SystemError.
_PARSING = threading.Lock()


@functools.lru_cache(maxsize=1)
def bundle() -> bytes:
    """Return the agent as a zip archive that python3 runs; same in, same out."""
    files = {"__main__.py": MAIN}
    folder = _folder()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        files[f"agent/{name}"] = path.read_text("utf-8")
    return _zip(files, zipfile.ZIP_DEFLATED)


@functools.lru_cache(maxsize=1)
def seed() -> bytes:
    """
    Return as small an agent as a box can begin its life with.

    It is not compressed within: as a whole it can be made much smaller.
    """
    files = {"__main__.py": SMALL}
    for name in SEED:
        text = (_folder() / f"{name}.py").read_text("utf-8")
        files[f"agent/{name}.py"] = _bare(text)
    return _zip(files, zipfile.ZIP_STORED)


def version() -> str:
    """Return a short hash of the agent, by which both ends compare theirs."""
    return hashlib.sha256(bundle()).hexdigest()[:12]


def _folder() -> Path:
    return Path(__file__).parent.parent / "agent"


def _zip(files: Mapping[str, str], method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, text in files.items():
            # A fixed date: the same sources give the same bytes.
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            archive.writestr(info, text, method, 9)
    return out.getvalue()


def _bare(text: str) -> str:
    """Return a module without its comments and docstrings."""
    with _PARSING:
        module = ast.parse(text)
    for node in ast.walk(module):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body[0:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return ast.unparse(module)
