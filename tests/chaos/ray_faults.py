"""Disturbs `inv run` and `inv map` on a real Ray cluster; see `cluster_rounds`."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import cluster_rounds
from tests.chaos.cluster_rounds import LONGEST, Rounds
from tests.chaos.world import Outcome, new_project
from tests.fakes.ray import RayCluster, missing

TOML = f"""\
provider = "ray"
vm = "cpus=4,memory=200 MB"

{cluster_rounds.TOML}"""
# All processes of the cluster have this home.
JOB = cluster_rounds.JOB.replace("NOTES", "$HOME/notes")
KINDS = {
    "client": "ray: client killed",
    "watch": "ray: watching process killed",
    "both": "ray: client and watching process killed",
    "cut": "ray: way to the head cut",
    "head": "ray: head killed",
}


@dataclass
class Cluster(Rounds):
    """Rounds on a Ray cluster."""

    lab: RayCluster = field(kw_only=True)

    def left(self) -> list[str]:
        """Return the boxes, jobs and files that are left."""
        boxes = Path(self.project.environ["ONEBOX_LOCAL_ROOT"] + "-ray") / "boxes"
        found = [path.name for path in boxes.iterdir()] if boxes.exists() else []
        live = [
            str(job["submission_id"])
            for job in self.lab.jobs()
            if str(job["submission_id"]).startswith("onebox-")
            and job["status"] in ("PENDING", "RUNNING")
        ]
        outboxes = [
            path.name for path in (self.lab.session_logs() / "onebox").glob("*")
        ]
        return [*found, *live, *outboxes]

    def kill_watch(self) -> None:
        """Kill the processes that watch jobs of this project."""
        root = self.project.environ["ONEBOX_LOCAL_ROOT"].encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes()
                if b"ray-watch" in words and root in words:
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def disturb(
        self, kind: str, chance: random.Random, line: subprocess.Popen[bytes]
    ) -> str:
        """Inject a fault at a random moment; return what it was."""
        after = chance.random() * LONGEST * 1.5
        with contextlib.suppress(subprocess.TimeoutExpired):
            line.wait(after)
        if kind in ("client", "both"):
            line.kill()
            line.wait()
        if kind in ("watch", "both"):
            self.kill_watch()
        if kind == "cut":
            self.lab.cut()
            time.sleep(chance.random() * 4)
            self.lab.mend()
        if kind == "head":
            self.lab.kill_head()
            self.lab.start_head()
        return f"after {after:.2f} s"


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster with a project of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="onebox-ray-") as folder,
        RayCluster(Path(folder) / "lab") as lab,
    ):
        project = new_project(Path(folder))
        project.environ["ONEBOX_RAY_ADDRESS"] = lab.http
        project.environ["RAY_AUTH_TOKEN"] = lab.token
        project.write("onebox.toml", TOML)
        project.write("job.sh", JOB)
        yield Cluster(project, lab.home / "notes", lab=lab)


def rounds(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Disturb a line *count* times, each time in a random way."""
    if missing():
        return
    with cluster() as made:
        for _ in range(count):
            task = chance.choice(["run", "map"])
            kind = chance.choice(list(KINDS))
            made.begin()
            line = made.project.start(task)
            fault = made.disturb(kind, chance, line)
            if kind in ("client", "both"):
                made.complete(task)
            else:
                made.finish(task, line)
            yield made.outcome(KINDS[kind], f"inv {task} {fault}")
