"""Pack the agent into one file for the box."""

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
# The modules of the small agent, which runs the watchdog and receives the whole agent.
SEED = (
    "__init__",
    "box",
    "jobs/__init__",
    "jobs/exit_record",
    "jobs/job_state",
    "main",
    "preemption_notice",
    "processes",
    "protocol",
    "server",
    "watchdog",
)
# This lock is needed because in Python 3.11 ast.parse raises SystemError when two
# threads call it at the same time.
_PARSING = threading.Lock()


@functools.lru_cache(maxsize=1)
def bundle() -> bytes:
    """
    Return the agent as a zip archive that python3 runs.

    The same sources give the same bytes.
    """
    files = {"__main__.py": MAIN}
    folder = _folder()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        files[f"agent/{name}"] = path.read_text("utf-8")
    return _zip(files, zipfile.ZIP_DEFLATED)


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
    return Path(__file__).parent.parent / "agent"


def _zip(files: Mapping[str, str], method: int) -> bytes:
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
