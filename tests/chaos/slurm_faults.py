"""
Disturbs `inv run` and `inv map` on a real Slurm cluster, and continues as a user would.

Each job, and each unit, notes its begin and its end in a file outside of the box.
"""

from __future__ import annotations

import collections
import contextlib
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.world import Outcome, new_project
from tests.conftest import Done, Project
from tests.fakes.slurm import SlurmCluster, missing
from tests.fakes.slurm.config import SCRATCH

UNITS = 4
TOML = f"""\
provider = "slurm"
vm = "cpus=2,memory=500 MB"

[slurm]
host = "login"
root = "$SCRATCH/onebox"

[run]
command = "sh job.sh"
cancel_grace = 2

[map]
command = "sh job.sh {{n}}"
over = {{ n = "1..{UNITS}" }}
memory = "100 MB"

[fetch]
outputs = ["results/"]
"""
# A job of `run` has the number 0.
JOB = f"""\
set -e
echo "begins ${{1-0}} $ONEBOX_JOB" >> {SCRATCH}/notes
sleep 1
echo "answer ${{1-0}}" > "${{ONEBOX_UNIT_OUTPUTS-results}}/answer"
echo "ends ${{1-0}} $ONEBOX_JOB" >> {SCRATCH}/notes
"""
# A line takes some seconds; most faults should meet it under way.
LONGEST = 6.0
KINDS = {
    "client": "slurm: client killed",
    "controller": "slurm: controller killed",
    "node": "slurm: node failed",
    "login": "slurm: logins cut",
}
# The codes of a named failure (sysexits), and of a detached line.
NAMED = (*range(64, 79), 130)


@dataclass
class Cluster:
    """
    A project on a cluster, and what went wrong in the present round.

    Attributes:
        wrong: The violated rules, in words.

        named: How many lines have failed with a name.
    """

    lab: SlurmCluster
    project: Project
    wrong: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    named: int = 0

    def judge(self, line: str, done: Done, *allowed: int) -> None:
        """Note what is wrong with the end of a line."""
        self.printed.append(f"$ inv {line}: {done.code}\n{done.err}")
        if "Traceback" in done.err:
            self.wrong.append(f"inv {line} ended with a traceback")
        if done.code in NAMED:
            self.named += 1
            if "onebox[" not in done.err and done.code != 130:
                self.wrong.append(f"inv {line} ended with {done.code} without a name")
        elif done.code not in (0, *allowed):
            self.wrong.append(f"inv {line} ended with {done.code}")

    def type(self, *words: str, allowed: tuple[int, ...] = ()) -> int:
        """Type a line, and judge its end."""
        done = self.project.inv(*words)
        self.judge(" ".join(words), done, *allowed)
        return done.code

    def notes(self) -> list[tuple[str, int, str]]:
        """Return what the jobs have noted: a word, a number, and the job."""
        path = self.lab.shared / "notes"
        text = path.read_text() if path.exists() else ""
        lines = [line.split() for line in text.splitlines()]
        return [(word, int(number), job) for word, number, job in lines]

    def begin(self) -> None:
        """Begin a round."""
        self.wrong, self.printed, self.named = [], [], 0
        for path in (self.lab.shared / "notes", self.project.root / "results"):
            subprocess.run(["rm", "-rf", str(path)], check=True)

    def complete(self, task: str) -> None:
        """Type a task until it succeeds, then remove the box, and judge the result."""
        end = time.monotonic() + 240
        while self.type(task, allowed=(1,)):
            if self.wrong or time.monotonic() > end:
                self.wrong.append(f"inv {task} does not succeed")
                self.remove()
                return
            time.sleep(1)
        self.check(task)
        self.remove()

    def check(self, task: str) -> None:
        """Check that each answer is here, and that nothing has run twice at once."""
        places = {0: "results"}
        if task == "map":
            places = {number: f"results/{number}" for number in range(1, UNITS + 1)}
        for number, place in places.items():
            path = self.project.root / place / "answer"
            if not path.exists() or path.read_text() != f"answer {number}\n":
                self.wrong.append(f"the answer of {number} is not here")
        begun = collections.Counter(
            (number, job) for word, number, job in self.notes() if word == "begins"
        )
        for (number, job), times in begun.items():
            if times > 1:
                self.wrong.append(f"{number} of job {job} has begun {times} times")

    def remove(self) -> None:
        """Remove what is left of the box, and check that nothing is left."""
        for _ in range(5):
            if not self.type("teardown", "--discard-outputs", "--yes"):
                break
            time.sleep(1)
        folder = self.lab.shared / "onebox/boxes"
        left = [path.name for path in folder.iterdir()] if folder.exists() else []
        # A controller that was killed may put jobs that have ended into the queue
        # again, also later. They find no folder, and end at once.
        end = time.monotonic() + 120
        while queue := self.lab.run("squeue", "-h", "-o", "%j").stdout.split():
            if time.monotonic() > end:
                break
            time.sleep(0.5)
        if left or queue:
            self.wrong.append(f"left on the cluster: {left} {queue}")

    def outcome(self, kind: str, fault: str) -> Outcome:
        """Return the outcome of the round."""
        if self.wrong:
            return Outcome(kind, fault, "lost", "\n".join([*self.wrong, *self.printed]))
        return Outcome(kind, fault, "named" if self.named else "survived")


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
        yield Cluster(lab, project)


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
        _finish(made, task, line)
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
        _finish(made, task, line)
        yield made.outcome(KINDS["node"], f"inv {task} after {after:.2f} s")


def cut_logins(chance: random.Random, count: int) -> Iterator[Outcome]:
    """End all ssh connections a few times while a line runs, *count* times."""
    for made, task, line in _lines(chance, count):
        pauses = [chance.random() * 2 for _ in range(3)]
        for pause in pauses:
            time.sleep(pause)
            made.lab.cut_logins()
        _finish(made, task, line)
        texts = ", ".join(f"{pause:.2f}" for pause in pauses)
        yield made.outcome(KINDS["login"], f"inv {task}, pauses {texts} s")


def _finish(made: Cluster, task: str, line: subprocess.Popen[bytes]) -> None:
    """Wait for a line that was disturbed, and continue."""
    try:
        code = line.wait(300)
    except subprocess.TimeoutExpired:
        line.send_signal(signal.SIGKILL)
        made.wrong.append(f"inv {task} hangs")
        code = line.wait()
    # A unit, or a job that a node took with it, may have failed by itself.
    made.judge(f"{task} (disturbed)", Done(code, "", made.project.err), 1)
    if code == 0:
        made.check(task)
        made.remove()
    else:
        made.complete(task)


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
