"""Export a project of a test, and run the exported script as the tool would run it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from onebox.exports import skypilot, slurm
from onebox.settings import Settings, load
from onebox.units import plan as unit_plan
from onebox.units.plan import UnitPlan

# A program that writes its arguments and variables to a file.
SHOW = """\
import json, os, pathlib, sys
folder = pathlib.Path(os.environ.get("ONEBOX_UNIT_OUTPUTS", "."))
shown = json.dumps({"words": sys.argv[1:], "env": dict(os.environ)})
(folder / "shown.json").write_text(shown)
print("shown")
"""
JOB = '[run]\ncommand = "python3 show.py job"\n'
HOSTILE = [
    'it\'s "both"',
    "line 1\nline 2\n",
    "ü 😀 \u2028 \x7f \x85",
    "$HOME `id` \\n !echo %s",
    "  blanks\t",
    "",
    "-n",
    "*",
]


def settings_of(root: Path, toml: str, **flags: object) -> Settings:
    """Write onebox.toml, and return the settings."""
    (root / "onebox.toml").write_text(toml, "utf-8")
    (root / "show.py").write_text(SHOW)
    return load(root, {}, flags)


def settings_with(root: Path, **run: Any) -> Settings:
    """Return settings with these values in [run], also what TOML can hardly hold."""
    settings = settings_of(root, JOB)
    return replace(settings, run=replace(settings.run, **run))


def plan_of(settings: Settings) -> UnitPlan:
    """Return the units of the settings."""
    return unit_plan.make(settings.map, settings.root)


def slurm_script(settings: Settings, *, units: bool = False) -> Path:
    """Write job.sbatch, which bash can parse."""
    plan = plan_of(settings) if units else None
    text = slurm.script(settings, "job.sbatch", settings.run.command or "", plan)
    path = settings.root / "job.sbatch"
    path.write_text(text, "utf-8")
    subprocess.run(["bash", "-n", path], check=True)
    return path


def sky_text(
    settings: Settings, *, units: bool = False, data: tuple[str, ...] = ()
) -> str:
    """Return task.yaml."""
    plan = plan_of(settings) if units else None
    command = settings.run.command or ""
    return skypilot.task(settings, "task.yaml", command, plan, data)


def sky_task(settings: Settings, **options: Any) -> dict[str, Any]:
    """Return the values of task.yaml."""
    found = yaml.safe_load(sky_text(settings, **options))
    assert isinstance(found, dict)
    return found


def environment(root: Path, **more: str) -> dict[str, str]:
    """Return the variables of a node, in the locale of a batch job."""
    path = os.environ["PATH"]
    return {"PATH": path, "HOME": str(root / "home"), "LC_ALL": "C", **more}


def run_script(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script as Slurm does, in the folder from which it was submitted."""
    return _run(["bash", path.name], path.parent, variables)


def run_task(
    task: Mapping[str, Any], root: Path, part: str = "run", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a part of a task as SkyPilot does: exports of the variables, by `bash -i`."""
    exports = [f"export {k}={shlex.quote(v)}" for k, v in task.get("envs", {}).items()]
    script = root / f"sky-{part}.sh"
    script.write_text("\n".join([*exports, task[part], ""]), "utf-8")
    return _run(["bash", "-i", script.name], root, variables)


def shown(folder: Path) -> dict[str, Any]:
    """Return what the program `SHOW` has written to a folder."""
    found = json.loads((folder / "shown.json").read_text())
    assert isinstance(found, dict)
    return found


def _run(
    words: list[str], root: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    (root / "home").mkdir(exist_ok=True)
    return subprocess.run(
        words,
        cwd=root,
        env=environment(root, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        start_new_session=True,
    )
