"""Helpers of the tests that type whole lines."""

from __future__ import annotations

from tests.conftest import Project


def finished_stages(err: str) -> list[str]:
    """Return the names of the finished stages, in order."""
    names = ("image", "provision", "push", "run", "map", "fetch", "units", "teardown")
    return [line.split()[0] for line in err.splitlines() if line.startswith(names)]


def let_job_continue(project: Project) -> None:
    """Let the job on the only box continue from where it waits."""
    (box,) = project.boxes()
    (project.home / "local/boxes" / box / "disk/home/work/go").touch()
