"""
Disturbs the units of `inv map`: none is lost, and none that is done runs again.

Each unit reports over the network when it begins and when it ends, because such a
report survives its box. A round ends with `inv map`, or `inv map --failed`, typed until
all units are done.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onebox.store.box_store import BoxStore
from onebox.units import job as unit_job
from tests.chaos import broken_connections
from tests.chaos.kill_at_each_step import KILL, hooked
from tests.chaos.world import Outcome, World, raw, world
from tests.conftest import Done
from tests.fakes.agent_box import kill, until

# As many as the settings below have, and as many of them as run at once.
UNITS, AT_ONCE = 6, 2
TOML = """\
{top}
[map]
command = "sh unit.sh {{n}}"
over = {{ n = "1..6" }}
cpus = {cpus}

[fetch]
outputs = ["results/"]
every = "1 s"

{more}
"""
UNIT = """\
set -e
read number < number.txt
name=$number-$1-$ONEBOX_JOB
sh note.sh unit-begins-$name-$(date +%s%N)
{work}
echo $number $1 > "$ONEBOX_UNIT_OUTPUTS/answer"
sh note.sh unit-ends-$name-$(date +%s%N)
"""
NOTE = re.compile(r"unit-(begins|ends)-(\d+)-(\d+)-(\d{8}-\d{6}-[0-9a-f]+)-(\d+)")
SPOT = "spot = true\n[limits]\nretries = 2"
BIG = 400 << 10
# The steps of a line are in so many parts, which are independent of each other. It has
# no common factor with the number of `FOLLOWS`, so that a part has all of them.
PARTS = 4
FOLLOWS = (("map",), ("map", "--failed"), ("teardown",))
BOTH = ["supervisor", "pool"]
KINDS = {
    "client": "map: client killed",
    "box": "map: pool, supervisor or units killed",
    "spot": "map: box preempted or crashed",
    "disk": "map: disk of the box full",
    "connection": "map: connection cut or stalled",
}


@dataclass(frozen=True, order=True)
class Begin:
    """A unit that has begun, at a time in nanoseconds."""

    at: int
    unit: int
    number: int
    job: str


def client_kills(part: int, *, full: bool, seed: int) -> Iterator[Outcome]:
    """
    Kill the client at each step of a part of the line, then type one of `FOLLOWS`.

    If not *full*, there is one part, of a few steps that the seed selects.
    """
    with units() as made:
        found = steps(made)
        chosen = list(zip(found, FOLLOWS * len(found)))[part::PARTS]
        if not full:
            own = [step for step in found if "units/" in step]
            chance = random.Random(f"{seed} units")
            few = [chance.choice(own), *chance.sample(found, len(FOLLOWS) - 1)]
            chosen = list(zip(few, chance.sample(FOLLOWS, len(FOLLOWS))))
        unmet = []
        for step, follow in chosen:
            outcome = kill_client(made, step, follow)
            if outcome is None:
                unmet.append((step, follow))
            else:
                yield outcome
    for step, follow in unmet:
        # What is done only by the first line in a project.
        with units() as made:
            outcome = kill_client(made, step, follow)
            if outcome is not None:
                yield outcome


def box_kills(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Kill the pool, the supervisor or units in the middle, *count* times."""
    with units(work="sleep 0.4") as made:
        for _ in range(count):
            yield kill_in_box(
                made,
                chance.choice([["pool"], ["supervisor"], ["unit"], BOTH]),
                chance.choice(FOLLOWS[:2]),
                chance,
            )


def kill_in_box(
    made: World, victims: Sequence[str], follow: tuple[str, ...], chance: random.Random
) -> Outcome:
    """Kill these processes of a job at a random moment, and continue."""
    _begin(made)
    line = made.project.start("map")
    _wait_for_begins(made, line.poll, chance.randint(AT_ONCE + 1, UNITS - 1))
    time.sleep(chance.random() * 0.4)
    _kill_processes(made, victims, chance)
    code = line.wait(300)
    made.judge("map (killed)", Done(code, "", made.project.err), (1, 137))
    before, seen = done_units(made), _end_was_seen(made)
    _complete(made, follow)
    _judge(made, before, cuts=1, seen=seen and follow == FOLLOWS[0])
    fault = f"{' and '.join(victims)} killed, {len(before)} were done"
    return made.outcome(KINDS["box"], f"{fault}, then inv {' '.join(follow)}")


def preemptions(chance: random.Random, count: int) -> Iterator[Outcome]:
    """
    Let spot boxes be taken back in the middle, *count* times; the same line goes on.

    If a few of them were not enough, another line follows, whose boxes stay.
    """
    for _ in range(count):
        moment = 1.5 + chance.random() * 2
        faults = chance.choice(
            [
                f"notice_after = {moment:.2f}\nnotice_seconds = 3",
                f"die_after = {moment:.2f}",
            ]
        )
        more = f"[local.rehearse]\n{faults}"
        with units(top=SPOT, more=more, work="sleep 0.9") as made:
            _begin(made)
            with _watching(made) as before:
                done = made.inv("map")
            if done.code:
                before.update(done_units(made))
                made.project.write("onebox.toml", _toml(top=SPOT))
                _complete(made, ("map",))
            # What ran when a box went away was cut off.
            _judge(made, before, cuts=UNITS)
            yield made.outcome(KINDS["spot"], faults.replace("\n", ", "))


def full_disks(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Let the units fill the disk of their box, *count* times; the next one is big."""
    for _ in range(count):
        size = chance.randint(10, 28) / 10
        more = f'[local.rehearse]\ndisk = "{size} MB"'
        work = f'head -c {BIG} /dev/urandom > "$ONEBOX_UNIT_OUTPUTS/big"'
        with units(more=more, work=work) as made:
            _begin(made)
            done = made.inv("map", own=(1,))
            if done.code == 78:
                made.wrong.append(f"the settings were refused: {done.err}")
            before = done_units(made)
            if made.boxes():
                made.persist("teardown")
            made.project.write("onebox.toml", _toml())
            _complete(made, ("map", "--failed"))
            _judge(made, before, cuts=1)
            for unit in range(1, UNITS + 1):
                whole = made.project.root / f"results/{unit}/big"
                if not whole.exists() or whole.stat().st_size != BIG:
                    made.wrong.append(f"unit {unit} is done, but {whole} is not whole")
            fault = f"a box with {size} MB, {len(before)} were done"
            yield made.outcome(KINDS["disk"], fault)


def cuts(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Cut and stall the connections of a line until there were *count* faults."""
    with units(work="sleep 0.3") as made:
        while count > 0:
            _begin(made)
            line, faults = made.project.start("map"), []
            _wait_for_begins(made, line.poll, chance.randint(1, UNITS - 1))
            for _ in range(chance.randint(1, 3)):
                time.sleep(chance.random() * 0.7)
                fault = broken_connections.disturb_now(made, chance)
                faults += [f"{fault} in map"] if fault else []
            code = line.wait(300)
            made.judge("map (disturbed)", Done(code, "", made.project.err))
            before = done_units(made)
            if code:
                _complete(made, ("map",))
            _judge(made, before)
            count -= len(faults)
            for fault in faults:
                yield made.outcome(KINDS["connection"], fault)


@contextlib.contextmanager
def units(*, top: str = "", more: str = "", work: str = "") -> Iterator[World]:
    """Create a world whose project has units that do some *work*."""
    with world(toml=_toml(top=top, more=more)) as made:
        made.project.write("unit.sh", UNIT.format(work=work))
        yield made


def _toml(*, top: str = "", more: str = "") -> str:
    cpus = max(1, len(os.sched_getaffinity(0)) // AT_ONCE)
    return TOML.format(top=top, more=more, cpus=cpus)


# -- faults --------------------------------------------------------------------


def steps(made: World) -> list[str]:
    """Return the steps of a line without a fault."""
    _begin(made)
    listing = made.project.home / "steps"
    listing.unlink(missing_ok=True)
    done = made.inv("map", env=hooked(made, ONEBOX_STEPS=str(listing)))
    assert not done.code, done.err
    return listing.read_text().splitlines()


def kill_client(made: World, step: str, follow: tuple[str, ...]) -> Outcome | None:
    """Kill a line at a step, and continue; return None if it has not met the step."""
    _begin(made)
    met = made.project.home / "met"
    met.unlink(missing_ok=True)
    env = hooked(made, **{KILL: step}, ONEBOX_MET=str(met))
    done = made.inv("map", env=env)
    if not met.exists():
        return None
    if done.code != -signal.SIGKILL:
        made.wrong.append(f"not killed, but exit {done.code}")
    made.check_files()
    before, seen = done_units(made), _end_was_seen(made)
    if follow == ("teardown",):
        if made.persist("teardown"):
            made.check(0)
            _check_table(made, whole=False)
        before, follow = {**before, **done_units(made)}, ("map", "--failed")
        seen = False
    _complete(made, follow)
    _judge(made, before, seen=seen)
    made.check_second("map", "--failed")
    return made.outcome(KINDS["client"], f"{step}, then inv {' '.join(follow)}")


def _kill_processes(made: World, victims: Sequence[str], chance: random.Random) -> None:
    """Kill processes of the running job, of the units one."""
    pools = [pid for pid in made.processes() if _is_pool(pid)]
    found: list[int] = []
    for pool in pools:
        of_job = {"pool": [pool], "supervisor": [_parent(pool)], "unit": []}
        with contextlib.suppress(OSError):
            listed = Path(f"/proc/{pool}/task/{pool}/children").read_text()
            of_job["unit"] = [int(word) for word in listed.split()]
        for victim in victims:
            pids = of_job[victim]
            found += chance.sample(pids, min(1, len(pids)))
    for pid in found:
        kill(pid)


def _is_pool(pid: int) -> bool:
    return b"agent.pyz\0pool\0" in raw(Path(f"/proc/{pid}/cmdline"))


def _parent(pid: int) -> int:
    fields = raw(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    # A process that has ended has no parent; no process has this pid.
    return int(fields[1]) if fields else 1 << 30


def _wait_for_begins(made: World, ended: Callable[[], int | None], count: int) -> None:
    """Wait until so many units have begun, or the line has ended."""
    until(lambda: len(begins(made)) >= count or ended() is not None)


@contextlib.contextmanager
def _watching(made: World) -> Iterator[dict[int, str]]:
    """Collect the units that are done at any moment, with their jobs."""
    found: dict[int, str] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for unit, job in done_units(made).items():
                found.setdefault(unit, job)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _begin(made: World) -> None:
    """Begin a round without results and with a new input."""
    made.begin()
    if made.boxes():
        made.persist("teardown", "--discard-outputs", "--yes")
    made.forget_outputs()
    made.new_number()
    made.begin()


def _complete(made: World, words: tuple[str, ...]) -> None:
    """Type a line until all units are done, as a user would; leave no box."""
    # Without a job there is nothing of which `--failed` could run the rest.
    if "--failed" in words and not _jobs(made):
        words = ("map",)
    if made.persist(*words) and made.boxes():
        made.persist("teardown")


# -- what must be true ---------------------------------------------------------


def begins(made: World) -> list[Begin]:
    """Return the units that have begun in this round, oldest first."""
    notes = [NOTE.fullmatch(path.name) for path in made.evidence.iterdir()]
    return sorted(
        Begin(int(note[5]), int(note[3]), int(note[2]), note[4])
        for note in notes
        if note and note[1] == "begins"
    )


def done_units(made: World) -> dict[int, str]:
    """Return the units of this round that are done anywhere, with their jobs."""
    root, jobs = made.project.root, {begin.job for begin in begins(made)}
    places = [root, *(made.box_home(box) / "work" for box in made.boxes())]
    places += root.glob(".onebox/jobs/*/outputs")
    places += root.glob(".onebox/checkpoints/*/*/files")
    found = {}
    for place in places:
        for unit in range(1, UNITS + 1):
            result = _result(place, unit)
            if result.get("code") == 0 and result.get("job") in jobs:
                found[unit] = str(result["job"])
    return found


def _judge(
    made: World, before: Mapping[int, str], *, cuts: int = 0, seen: bool = False
) -> None:
    """
    Note each violated rule after all units were completed.

    Args:
        before: The units that were done before the fault, with their jobs.

        cuts: How often a unit may have been cut off.

        seen: Whether the end of the job was seen, so that `inv map` runs all again.
    """
    made.check(0)
    _check_table(made, whole=True)
    sweeps = _sweeps(made)
    by_unit: dict[int, list[Begin]] = collections.defaultdict(list)
    for begin in begins(made):
        by_unit[begin.unit].append(begin)
        if begin.number != made.number:
            made.wrong.append(f"{begin} is of an earlier round")
        if begin.job not in sweeps:
            made.wrong.append(f"job {begin.job} is not known here")
    order = [*dict.fromkeys(sweeps.get(one.job, "") for one in begins(made))]
    if len(order) > (2 if seen else 1):
        made.wrong.append(f"units of several sweeps have run: {order}")
    for unit in range(1, UNITS + 1):
        jobs = [begin.job for begin in by_unit[unit]]
        for sweep in order:
            own = [job for job in jobs if sweeps.get(job, "") == sweep]
            if len(own) > 1 + cuts:
                made.wrong.append(f"unit {unit} has begun {len(own)} times: {own}")
            job = before.get(unit, "")
            if job in own and own[-1] != job:
                made.wrong.append(f"unit {unit} was done by {job}, and runs in {own}")


def _check_table(made: World, *, whole: bool) -> None:
    """
    Note where units.csv differs from what the units have left here.

    All units must be done if *whole*; otherwise the table may be missing too if no
    unit is done.
    """
    root = made.project.root
    path = root / "results" / "units.csv"
    if not path.exists():
        done = [unit for unit in range(1, UNITS + 1) if _result(root, unit)]
        if whole or done:
            made.wrong.append(f"no units.csv, although {done} have ended")
        return
    lines = list(csv.DictReader(path.read_text().splitlines()))
    numbers = [line["unit"] for line in lines]
    if numbers != [str(number) for number in range(1, UNITS + 1)]:
        made.wrong.append(f"units.csv has the units {numbers}")
    evidence = {path.name for path in made.evidence.iterdir()}
    for line in lines:
        unit, result = line["unit"], _result(root, int(line["unit"]))
        if whole and line["state"] != "done":
            made.wrong.append(f"unit {unit} is not done: {line}")
        if (line["state"] == "done") != (result.get("code") == 0):
            made.wrong.append(f"units.csv differs from unit.json: {line} {result}")
        if line["state"] != "done":
            continue
        answer = raw(root / "results" / unit / "answer").decode()
        if answer != f"{made.number} {unit}\n":
            made.wrong.append(f"unit {unit} is done, but its answer is {answer!r}")
        name = f"unit-ends-{made.number}-{unit}-{result['job']}-"
        if sum(note.startswith(name) for note in evidence) != 1:
            made.wrong.append(f"unit {unit} is done, but has not run to its end once")


def _result(place: Path, unit: int) -> dict[str, object]:
    """Return the result of a unit below a folder, {} if it has none."""
    with contextlib.suppress(OSError, ValueError):
        result = json.loads(raw(place / "results" / str(unit) / "unit.json"))
        return dict(result)
    return {}


def _jobs(made: World) -> list[Path]:
    """Return the folders here of all jobs of this round that have units."""
    plans = made.project.root.glob(f".onebox/jobs/*/{unit_job.PLAN}")
    since = (made.project.root / "number.txt").stat().st_mtime_ns
    return [path.parent for path in plans if path.stat().st_mtime_ns >= since]


def _sweeps(made: World) -> dict[str, str]:
    """Return the sweep of each job of this round."""
    return {
        folder.name: json.loads((folder / unit_job.ABOUT).read_bytes())["sweep"]
        for folder in _jobs(made)
        if (folder / unit_job.ABOUT).exists()
    }


def _end_was_seen(made: World) -> bool:
    """Return whether the outputs of the job of this round are fetched."""
    fetched = [BoxStore(folder).record.fetched for folder in made.store_folders()]
    table = made.project.root / "results" / "units.csv"
    return any(fetched) or table.exists()
