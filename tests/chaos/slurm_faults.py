"""Disturbs `inv run` and `inv map` on a real Slurm cluster; see `cluster_rounds`."""

from __future__ import annotations

import contextlib
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import cluster_rounds
from tests.chaos.cluster_rounds import LONGEST, Rounds
from tests.chaos.world import Outcome, new_project
from tests.fakes.slurm import SlurmCluster, missing
from tests.fakes.slurm.config import SCRATCH

TOML = f"""\
provider = "slurm"
vm = "cpus=2,memory=500 MB"

[slurm]
host = "login"
root = "$SCRATCH/onebox"

{cluster_rounds.TOML}"""
JOB = cluster_rounds.JOB.replace("NOTES", f"{SCRATCH}/notes")
KINDS = {
    "client": "slurm: client killed",
    "controller": "slurm: controller killed",
    "node": "slurm: node failed",
    "login": "slurm: logins cut",
}


@dataclass
class Cluster(Rounds):
    """Rounds on a Slurm cluster."""

    lab: SlurmCluster = field(kw_only=True)

    def left(self) -> list[str]:
        """
        Return the boxes and jobs that are left.

        A controller that was killed may put jobs that have ended into the queue again,
        also later. They find no folder, and end at once.
        """
        folder = self.lab.shared / "onebox/boxes"
        boxes = [path.name for path in folder.iterdir()] if folder.exists() else []
        end = time.monotonic() + 120
        while queue := self.lab.run("squeue", "-h", "-o", "%j").stdout.split():
            if time.monotonic() > end:
                break
            time.sleep(0.5)
        return [*boxes, *queue]


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster with a project of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="onebox-slurm-") as folder,
        SlurmCluster(Path(folder) / "lab", cpus=2) as lab,
    ):
        project = new_project(Path(folder))
        project.environ["ONEBOX_SLURM_SSH_CONFIG"] = str(lab.ssh_config)
        project.write("onebox.toml", TOML)
        project.write("job.sh", JOB)
        yield Cluster(project, lab.shared / "notes", lab=lab)


def client_kills(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Kill the client of a line at a random moment, *count* times."""
    for made, task, line in _lines(chance, count):
        after = chance.random() * LONGEST
        with contextlib.suppress(subprocess.TimeoutExpired):
            line.wait(after)
        line.kill()
        line.wait()
        made.complete(task)
        yield made.outcome(KINDS["client"], f"inv {task} after {after:.2f} s")


def controller_kills(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Kill the controller while a line runs, and start it again, *count* times."""
    for made, task, line in _lines(chance, count):
        after = chance.random() * LONGEST
        time.sleep(after)
        made.lab.stop_controller()
        time.sleep(chance.random() * 4)
        made.lab.start_controller()
        made.finish(task, line)
        yield made.outcome(KINDS["controller"], f"inv {task} after {after:.2f} s")


def node_failures(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Cut the power of both nodes while a line runs, *count* times."""
    for made, task, line in _lines(chance, count):
        after = chance.random() * LONGEST
        time.sleep(after)
        for node in (0, 1):
            made.lab.stop_node(node, jobs=True, noticed=True)
        for node in (0, 1):
            made.lab.start_node(node)
        made.finish(task, line)
        yield made.outcome(KINDS["node"], f"inv {task} after {after:.2f} s")


def cut_logins(chance: random.Random, count: int) -> Iterator[Outcome]:
    """End all ssh connections a few times while a line runs, *count* times."""
    for made, task, line in _lines(chance, count):
        pauses = [chance.random() * 2 for _ in range(3)]
        for pause in pauses:
            time.sleep(pause)
            made.lab.cut_logins()
        made.finish(task, line)
        texts = ", ".join(f"{pause:.2f}" for pause in pauses)
        yield made.outcome(KINDS["login"], f"inv {task}, pauses {texts} s")


def _lines(
    chance: random.Random, count: int
) -> Iterator[tuple[Cluster, str, subprocess.Popen[bytes]]]:
    """
    Start a line *count* times; yield its cluster, its task and its process.

    Yield nothing if this machine cannot have a cluster.
    """
    if missing():
        return
    with cluster() as made:
        for _ in range(count):
            task = chance.choice(["run", "map"])
            made.begin()
            yield made, task, made.project.start(task)
