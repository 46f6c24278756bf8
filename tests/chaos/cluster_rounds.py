"""
Rounds on a cluster: a line is disturbed, and continued as a user would continue it.

Each job, and each unit, notes its begin and its end in a file outside of the box.
"""

from __future__ import annotations

import abc
import collections
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.world import Outcome
from tests.conftest import Done, Project

UNITS = 4
# The parts of onebox.toml that any cluster has; `JOB` writes its notes to the file
# that NOTES stands for.
TOML = f"""\
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
JOB = """\
set -e
echo "begins ${1-0} $ONEBOX_JOB" >> NOTES
sleep 1
echo "answer ${1-0}" > "${ONEBOX_UNIT_OUTPUTS-results}/answer"
echo "ends ${1-0} $ONEBOX_JOB" >> NOTES
"""
# A line takes some seconds; most faults should meet it under way.
LONGEST = 6.0
# The codes of a named failure (sysexits), and of a detached line.
NAMED = (*range(64, 79), 130)


@dataclass
class Rounds(abc.ABC):
    """
    A project on a cluster, and what went wrong in the present round.

    Attributes:
        notes_file: Where the jobs note what they do, as this host sees it.

        wrong: The violated rules, in words.

        named: How many lines have failed with a name.
    """

    project: Project
    notes_file: Path
    wrong: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    named: int = 0

    @abc.abstractmethod
    def left(self) -> list[str]:
        """Return what boxes have left; wait for what goes away by itself."""

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
        text = self.notes_file.read_text() if self.notes_file.exists() else ""
        lines = [line.split() for line in text.splitlines()]
        return [(word, int(number), job) for word, number, job in lines]

    def begin(self) -> None:
        """Begin a round."""
        self.wrong, self.printed, self.named = [], [], 0
        for path in (self.notes_file, self.project.root / "results"):
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
        left = self.left()
        if left:
            self.wrong.append(f"left: {left}")

    def finish(self, task: str, line: subprocess.Popen[bytes]) -> None:
        """Wait for a line that was disturbed, and continue."""
        try:
            code = line.wait(300)
        except subprocess.TimeoutExpired:
            line.send_signal(signal.SIGKILL)
            self.wrong.append(f"inv {task} hangs")
            code = line.wait()
        # A unit, or a job that a node took with it, may have failed by itself.
        self.judge(f"{task} (disturbed)", Done(code, "", self.project.err), 1)
        if code == 0:
            self.check(task)
            self.remove()
        else:
            self.complete(task)

    def outcome(self, kind: str, fault: str) -> Outcome:
        """Return the outcome of the round."""
        if self.wrong:
            return Outcome(kind, fault, "lost", "\n".join([*self.wrong, *self.printed]))
        return Outcome(kind, fault, "named" if self.named else "survived")
