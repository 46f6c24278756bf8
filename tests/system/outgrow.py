"""The example `examples/outgrow`: its project, and the outputs that it must leave."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import Project

EXAMPLE = Path(__file__).parents[2] / "examples" / "outgrow"


def copy(project: Project, host: str = "") -> None:
    """Copy the example to a project; *host* is that of its clusters."""
    for path in EXAMPLE.glob("*.*"):
        shutil.copy(path, project.root)
    text = project.read("onebox.toml")
    for name in ("login.example.edu", "head.example.edu"):
        text = text.replace(name, host or name)
    project.write("onebox.toml", text)


def fits(folder: Path) -> dict[str, bytes]:
    """Return the contents of the fits in a folder, by their paths."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.glob("results/*/fit.json")
    }


def expected() -> dict[str, bytes]:
    """Return the fits that the example makes without onebox."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(EXAMPLE / "fit_all.py")
        subprocess.run([sys.executable, "-B", program], cwd=folder, check=True)
        found = fits(Path(folder))
    assert 6 == len(found)
    return found
