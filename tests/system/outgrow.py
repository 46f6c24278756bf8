"""The example `examples/outgrow`: its project, and the outputs that it must leave."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import Project

EXAMPLE = Path(__file__).parents[2] / "examples" / "outgrow"
UNITS = 6
# What onebox itself adds to the outputs.
RECORDS = {"unit.log", "unit.json", "units.csv", "onebox-receipt.json"}


def copy(project: Project, host: str = "login.example.edu") -> None:
    """Copy the example to a project; *host* is the login node of its Slurm cluster."""
    for path in EXAMPLE.iterdir():
        # Who has tried the example there has left folders.
        if path.is_file():
            shutil.copy(path, project.root)
    text = project.read("onebox.toml")
    assert 1 == text.count("login.example.edu")
    project.write("onebox.toml", text.replace("login.example.edu", host))


def outputs(folder: Path) -> dict[str, bytes]:
    """Return the contents of the outputs in a folder, by their paths."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.glob("results/**/*")
        if path.is_file() and path.name not in RECORDS
    }


def expected() -> dict[str, bytes]:
    """Return the outputs that the example makes without onebox."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(EXAMPLE / "fit_all.py")
        subprocess.run([sys.executable, "-B", program], cwd=folder, check=True)
        found = outputs(Path(folder))
    assert {f"results/{n}/fit.json" for n in range(1, UNITS + 1)} == found.keys()
    return found
