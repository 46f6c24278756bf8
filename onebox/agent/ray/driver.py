"""
The main process of a map on a Ray cluster: it makes each unit a task of Ray.

It runs with the cluster's own Python, which has Ray. It takes the place of the pool of
a box: the job's supervisor handles its log, its end, and what it hands over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Set

from ..box import replace_file
from ..jobs import durable
from ..units import plan as unit_plan
from ..units import share
from ..units.progress import Progress, ProgressFiles
from ..units.tally import Tally
from . import node, outbox
from .outbox import Outbox
from .scratch import given

STOPPED = 128 + signal.SIGTERM
# Outputs are handed over when they have so many bytes, or after so many seconds.
BATCH, PAUSE = 4 << 20, 1.0
# At most so many lines about failed units are printed.
MOST_LINES = 100
# The folders on all nodes have so many seconds to be removed.
CLEANING = 15.0


def run(directory: str, folder: str, package: str) -> int:
    """
    Run the units of the job in *directory*; return the exit code of the job.

    It is 0 if all units are done, 143 if the job was stopped with units left, else 1.

    Args:
        folder: The outbox of the job.

        package: The folder of the job's plan.
    """
    try:
        import ray
    except ImportError:
        _print("onebox: %s of this cluster cannot import ray" % sys.executable)
        return 1
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    driver = _Driver(ray, directory, folder, package)
    signal.signal(signal.SIGTERM, driver.stop)
    code = driver.run()
    if not driver.lost:
        driver.clean()
    return code


class _Driver:
    def __init__(self, ray: Any, directory: str, folder: str, package: str) -> None:
        self.ray = ray
        self.directory = directory
        fields = given(package).fields
        self.plan = unit_plan.UnitPlan(share.Share(directory))
        self.head = self.plan.head
        self.at_once = int(fields["units"]["at_once"])
        self.most = int(fields["most"])
        self.outbox = Outbox(folder, self.most)
        self.tally = Tally(len(self.plan))
        self.files = ProgressFiles(directory, 0)
        self.stopping = False
        self.lines = 0
        # The units whose outputs are not handed over, or not all of them.
        self.lost: List[int] = []
        self.usage: Dict[str, Any] = {
            "cpu_seconds": 0.0,
            "memory_peak": 0,
            "memory_largest": "",
            "box_memory_peak": 0,
        }
        self.batch: List[Any] = []
        self.batch_bytes = 0
        self.hand_over_at = 0.0
        for index in fields["done"]:
            self.tally.skip(index)
        self.own = [i for i in range(len(self.plan)) if not self.tally.is_done(i)]
        options: Dict[str, Any] = {
            "num_cpus": self.head.cpus,
            # Ray runs a task again whose node or worker is lost. A unit that fails is
            # no failed task: the pool runs it again.
            "max_retries": int(fields["retries"]),
            "name": "onebox-unit",
        }
        if self.head.memory:
            options["memory"] = self.head.memory
        self.task = ray.remote(_unit()).options(**options)

    def stop(self, *_: Any) -> None:
        """Start no more units, and end those that run."""
        self.stopping = True

    def run(self) -> int:
        """Run all units to their end."""
        count, before = len(self.plan), self.tally.skipped
        line = "%d unit%s, %d at once" % (
            count,
            "" if count == 1 else "s",
            self.at_once,
        )
        _print(line + (", %d done before" % before if before else ""))
        running: Dict[Any, int] = {}
        waiting = self.own[::-1]
        while not self.stopping:
            while waiting and len(running) < self.at_once:
                index = waiting.pop()
                running[self.task.remote(index, count, self.most)] = index
            self.write_progress(len(running))
            if not running:
                break
            ready, _ = self.ray.wait(list(running), timeout=0.5)
            for ref in ready:
                self.end(running.pop(ref), ref)
            self.hand_over(at_once=False)
        for ref in running:
            self.ray.cancel(ref, force=True)
        self.hand_over(at_once=True)
        self.write_progress(0)
        durable.save_json(self.directory, node.USAGE, self.usage)
        if self.lost:
            names = ", ".join(map(str, sorted(set(self.lost))[:5]))
            text = "outputs of %d units are not here, such as those of unit %s"
            text %= (len(set(self.lost)), names)
            durable.save(self.directory, node.LOST, text.encode("ascii"))
        if self.stopping and self.tally.left:
            return STOPPED
        return 0 if self.tally.done == count else 1

    def end(self, index: int, ref: Any) -> None:
        """Count a unit whose task has ended."""
        try:
            answer = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            if self.stopping:
                return
            answer = {"code": None, "lines": [], "outputs": b"", "why": _brief(error)}
        number = self.plan.unit(index).number
        for line in answer["lines"]:
            self.say(line)
        for text in (answer["why"], answer.get("lost", "")):
            if text:
                self.say("unit %d: %s" % (number, text))
        if answer.get("lost"):
            self.lost.append(number)
        done = answer["code"] == 0 and not answer["why"] and number not in self.lost
        cpu, peak = answer.get("cpu_seconds"), answer.get("memory_peak")
        self.usage["cpu_seconds"] += cpu or 0.0
        self.usage["memory_peak"] = max(self.usage["memory_peak"], peak or 0)
        started, seconds = answer.get("started"), answer.get("seconds")
        self.tally.end(index, done, started or time.time(), seconds or 0.0)
        if answer["outputs"]:
            self.batch.append(answer["outputs"])
            if isinstance(answer["outputs"], bytes):
                self.batch_bytes += len(answer["outputs"])

    def hand_over(self, *, at_once: bool) -> None:
        """Hand over the outputs of units that have ended, unless it is too early."""
        now = time.monotonic()
        due = at_once or now > self.hand_over_at or self.batch_bytes > BATCH
        if not self.batch or not due:
            return
        batch, self.batch, self.batch_bytes = self.batch, [], 0
        self.hand_over_at = now + PAUSE
        try:
            self.outbox.add_archives(_contents(batch))
        except outbox.TooLarge:
            self.lose(len(batch), "all have more than [ray] max_outputs")
        except OSError as error:
            self.lose(len(batch), error.strerror or str(error))
        packs = b"%d" % self.outbox.packs
        replace_file(os.path.join(self.directory, node.PACKS), packs, sync=False)
        for one in batch:
            if isinstance(one, str):
                with contextlib.suppress(OSError):
                    os.unlink(one)

    def lose(self, count: int, why: str) -> None:
        """Note that the outputs of so many units are not handed over."""
        self.say("the outputs of %d units are not handed over: %s" % (count, why))
        for index in self.own:
            if count and self.tally.is_done(index):
                self.tally.fail_after_all(index)
                self.lost.append(self.plan.unit(index).number)
                count -= 1

    def write_progress(self, running: int) -> None:
        """Write the counts of the units."""
        tally = self.tally
        self.files.update(
            Progress(
                total=len(self.plan),
                done=tally.done,
                failed=tally.failed,
                running=running,
                left=tally.left,
                skipped=tally.skipped,
                at_once=self.at_once,
                mean=tally.mean,
            )
        )

    def say(self, line: str) -> None:
        """Print a line about a failed unit, unless enough have been printed."""
        self.lines += 1
        if self.lines <= MOST_LINES:
            _print(line)
        elif self.lines == MOST_LINES + 1:
            _print("onebox: further failures are not printed; units.csv has them all")

    def clean(self) -> None:
        """Remove the folders of the job on all nodes but this one."""
        with contextlib.suppress(Exception):
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = self.ray.get_runtime_context().get_node_id()
            remove = self.ray.remote(_removal())
            refs = [
                remove.options(
                    num_cpus=0,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False),
                ).remote()
                for id in _nodes(self.ray)
                if id != here
            ]
            self.ray.wait(refs, num_returns=len(refs), timeout=CLEANING)


def _unit() -> Callable[..., Any]:
    # A worker cannot import this module, so Ray has to send the function itself. It
    # does so for a function in a function.
    def unit(index: int, count: int, most: int) -> Any:
        import importlib
        import os
        import sys

        agent = os.path.abspath("agent.pyz")
        if agent not in sys.path:
            sys.path.insert(0, agent)
        unit_task = importlib.import_module("agent.ray.unit_task")
        return unit_task.run(index, count, most)

    return unit


def _removal() -> Callable[[], None]:
    def remove() -> None:
        import importlib
        import os
        import sys

        agent = os.path.abspath("agent.pyz")
        if agent not in sys.path:
            sys.path.insert(0, agent)
        scratch = importlib.import_module("agent.ray.scratch")
        scratch.Scratch(scratch.given()).remove()

    return remove


def _nodes(ray: Any) -> Set[str]:
    return {str(one["NodeID"]) for one in ray.nodes() if one["Alive"]}


def _contents(batch: List[Any]) -> Iterator[bytes]:
    """Yield the contents of archives, which are bytes or paths of files."""
    for one in batch:
        if isinstance(one, bytes):
            yield one
            continue
        with open(one, "rb") as file:
            yield from iter(lambda: file.read(outbox.PART), b"")


def _brief(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]


def _print(line: str) -> None:
    """Print a line to the job's log, unless the disk is full."""
    with contextlib.suppress(OSError):
        os.write(1, line.encode("utf-8", "replace") + b"\n")
