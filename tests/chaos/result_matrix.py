"""
Each way in which a job leaves its result, with each interruption of its run.

Each cell ends with the result here, or with a refusal and the box kept. A result that
is in neither place is lost, even if the job could run again for it.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from onebox.tasks import ns
from tests.chaos.kill_at_each_step import hooked
from tests.chaos.world import Outcome, World, world
from tests.conftest import Done

TOML = """\
{top}
[run]
command = "sh job.sh"
cancel_grace = "2 s"

[fetch]
outputs = ["results/"]

{more}
"""
# $n is a number of this cell's own. What follows the result only gives an
# interruption its time.
JOB = """\
read n < number.txt
{leave}
sh note.sh $n
[ -e brief.txt ] || sleep {seconds}
echo job $n ends
"""
# Of the cells with an interruption, the tests take so many.
FEW = 2
# The tests run them in so many parts, which can run at the same time.
PARTS = 4
MANY = 500
DEEP = 1_200
HUGE = 24 << 20
HOLE = 200 << 20


@dataclass(frozen=True)
class Way:
    """
    One way in which a job leaves its result.

    Attributes:
        name: What the job does, for the tally.

        leave: The lines of shell that do it.

        found: Tells whether the result of number *n* is below a folder, which is
            the project or the working directory of a box.

        pushed: Files that the job finds there.

        outside: The result lies outside the outputs, so the box has to be kept.
    """

    name: str
    leave: str
    found: Callable[[Path, str], bool]
    pushed: Mapping[str, str] = field(default_factory=dict)
    outside: bool = False


def holds(name: str) -> Callable[[Path, str], bool]:
    """Return a check that the file *name* contains the number, also through links."""
    return lambda root, n: _text(root / name) == n


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _all_of_many(root: Path, n: str) -> bool:
    return all(_text(root / f"results/{i}") == n for i in range(MANY))


def _at_the_end(root: Path, n: str) -> bool:
    path = root / "results/sparse"
    if not path.exists() or path.stat().st_size < HOLE:
        return False
    with path.open("rb") as file:
        file.seek(HOLE)
        return file.read().decode().strip() == n


def _huge(root: Path, n: str) -> bool:
    path = root / "results/huge"
    if not path.exists() or path.stat().st_size != HUGE:
        return False
    line = f"{n}\n".encode()
    return path.read_bytes() == (line * (HUGE // len(line) + 1))[:HUGE]


def _deep(root: Path, n: str) -> bool:
    folder = os.open(root, os.O_RDONLY)
    try:
        for name in ["results", *["d"] * DEEP]:
            inner = os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        file = os.open("deep", os.O_RDONLY, dir_fd=folder)
        with os.fdopen(file) as opened:
            return opened.read().strip() == n
    except OSError:
        return False
    finally:
        os.close(folder)


DEEPER = f"""\
python3 - $n <<'END'
import os, sys
os.chdir("results")
for _ in range({DEEP}):
    os.mkdir("d")
    os.chdir("d")
open("deep", "w").write(sys.argv[1])
END"""
DAEMON = """\
echo $n > results/early
setsid sh -c "sleep 1; echo $n > results/late; sh note.sh late-$n" >&- 2>&- &"""

WAYS = {
    way.name: way
    for way in (
        Way("a new file", "echo $n >results/x", holds("results/x")),
        Way(
            "a new file outside the outputs",
            "echo $n >model.pt",
            holds("model.pt"),
            outside=True,
        ),
        Way(
            "a changed pushed file",
            "echo $n >model.json",
            holds("model.json"),
            {"model.json": "old"},
            outside=True,
        ),
        Way(
            "a changed pushed file in the outputs",
            "echo $n >results/model.json",
            holds("results/model.json"),
            {"results/model.json": "old"},
        ),
        Way(
            "a link to a file",
            "mkdir ckpt; echo $n >ckpt/9; ln -s ../ckpt/9 results/best",
            holds("results/best"),
        ),
        Way(
            "a link to a folder",
            "mkdir ckpt; echo $n >ckpt/9; ln -s ../ckpt results/all",
            holds("results/all/9"),
        ),
        Way(
            "outputs that are a link",
            "mkdir real; echo $n >real/x; rmdir results; ln -s real results",
            holds("results/x"),
        ),
        Way(
            "a link in the outputs to nothing",
            "mkdir real; echo $n >real/x; ln -s real results",
            holds("real/x"),
            outside=True,
        ),
        Way(
            "a chain of links",
            "mkdir a b; echo $n >a/x; ln -s ../a/x b/y; ln -s ../b/y results/z",
            holds("results/z"),
        ),
        Way(
            "a link to a changed pushed file",
            "echo $n >model.json; ln -s ../model.json results/m",
            holds("results/m"),
            {"model.json": "old"},
        ),
        Way(
            "a renamed file",
            "mv number.txt results/number; echo $n >number.txt",
            holds("results/number"),
        ),
        Way(
            "a hard link",
            "mkdir ckpt; echo $n >ckpt/9; ln ckpt/9 results/best",
            holds("results/best"),
        ),
        Way(
            "a huge file",
            f"yes $n | head -c {HUGE} >results/huge",
            _huge,
        ),
        Way(
            "a sparse file",
            f"truncate -s {HOLE} results/sparse; echo $n >>results/sparse",
            _at_the_end,
        ),
        Way(
            "many files",
            f"for i in $(seq 0 {MANY - 1}); do echo $n >results/$i; done",
            _all_of_many,
        ),
        Way("a deep tree", DEEPER, _deep),
        Way(
            "an unreadable file",
            "echo $n >results/x; chmod 0 results/x",
            holds("results/x"),
        ),
        Way(
            "at the last moment",
            "(sleep {seconds}; echo $n >results/x; "
            "sh note.sh $n) & wait; touch brief.txt",
            holds("results/x"),
        ),
        Way("a daemon that outlives the job", DAEMON, holds("results/early")),
    )
}


@dataclass(frozen=True)
class Interruption:
    """What happens to a run, and the lines that a user types then."""

    name: str
    happen: Callable[[World, Way, random.Random], None]
    top: str = ""
    more: str = ""
    seconds: float = 0.0


def _nothing(made: World, way: Way, chance: random.Random) -> None:
    _follow(made, way, made.inv("run"))


def _interrupt(stage: str) -> Callable[[World, Way, random.Random], None]:
    """Return a function that presses Ctrl-C at a random step of a stage."""

    def happen(made: World, way: Way, chance: random.Random) -> None:
        listing = made.project.home / "steps"
        env = hooked(made, ONEBOX_STEPS=str(listing))
        _follow(made, way, made.inv("run", env=env))
        steps = [s for s in listing.read_text().splitlines() if _of(stage, s)]
        made.persist("teardown", "--discard-outputs", "--yes")
        made.forget_outputs()
        made.new_number()
        made.begin()
        met = made.project.home / "met"
        if not steps:
            # Its result keeps the box, so this stage never comes.
            return
        step = chance.choice(steps)
        env = hooked(made, ONEBOX_INTERRUPT=step, ONEBOX_MET=str(met))
        done = made.project.inv("run", env=env)
        if done.code != 128 + signal.SIGINT:
            made.judge(f"run (Ctrl-C at {step})", done)
        _follow(made, way, done)

    return happen


def _of(stage: str, step: str) -> bool:
    return f"stages/{stage}.py:" in step


def _detach(made: World, way: Way, chance: random.Random) -> None:
    if made.persist("run", "--detach"):
        made.inv("logs")
        _follow(made, way, made.inv("fetch", "teardown"))


def _second_run(made: World, way: Way, chance: random.Random) -> None:
    made.inv("run", "--keep")
    _follow(made, way, made.inv("run"))


def _crash(made: World, way: Way, chance: random.Random) -> None:
    line = made.project.start("run")
    _until(lambda: any(made.evidence.iterdir()) or line.poll() is not None)
    made.project.cut_power(made.boxes())
    # Should it run again, it need not wait for an interruption.
    made.project.write("brief.txt", "")
    code = line.wait(300)
    done = Done(code, "", made.project.err)
    made.judge("run (its box has no power)", done)
    _follow(made, way, done)


def _notice(made: World, way: Way, chance: random.Random) -> None:
    done = made.inv("run")
    made.project.write("onebox.toml", TOML.format(top="spot = true", more=""))
    _follow(made, way, done)


SPOT = "spot = true"
NOTICE = "[local.rehearse]\nnotice_after = 0.5\nnotice_seconds = 4\n"
INTERRUPTIONS = {
    one.name: one
    for one in (
        Interruption("run", _nothing),
        *(
            Interruption(f"Ctrl-C in {stage}", _interrupt(stage))
            for stage in ("provision", "push", "run", "fetch", "teardown")
        ),
        Interruption("detach and return", _detach, seconds=0.5),
        Interruption("a second run", _second_run),
        Interruption("its box crashes", _crash, seconds=3600),
        Interruption("a spot notice", _notice, SPOT, NOTICE, 2.0),
    )
}


def cell(way: Way, interruption: Interruption, chance: random.Random) -> Outcome:
    """Run one job in one way with one interruption; check where its result is."""
    toml = TOML.format(top=interruption.top, more=interruption.more)
    with world(toml=toml) as made:
        leave = way.leave.replace("{seconds}", f"{min(interruption.seconds, 1)}")
        job = JOB.format(leave=leave, seconds=interruption.seconds)
        made.project.write("job.sh", job)
        for name, text in way.pushed.items():
            made.project.write(name, text)
        made.begin()
        interruption.happen(made, way, chance)
        _judge(made, way)
        return made.outcome(f"result: {way.name}", interruption.name)


def table(seed: int, *, full: bool) -> list[list[tuple[Way, Interruption]]]:
    """
    Return the cells in parts that are independent of each other.

    All cells if *full*; else each way without an interruption, and a few other
    cells that the seed selects.
    """
    rows = [[(way, one) for way in WAYS.values()] for one in INTERRUPTIONS.values()]
    if full:
        return rows
    others = [cell for row in rows[1:] for cell in row]
    few = [*rows[0], *random.Random(seed).sample(others, FEW)]
    return [few[first::PARTS] for first in range(PARTS)]


def all_of(cells: Sequence[tuple[Way, Interruption]], seed: int) -> Iterator[Outcome]:
    """Run these cells."""
    for way, interruption in cells:
        chance = random.Random(f"{seed} {way.name} {interruption.name}")
        yield cell(way, interruption, chance)


def _follow(made: World, way: Way, done: Done) -> None:
    """
    Type the suggested next commands until one succeeds or the box is kept for good.
    """
    for _ in range(8):
        if not done.code:
            return
        advice = re.search(r"(?:next|then): +inv ((?:[a-z]+ ?)+)", done.err)
        if done.code == 73 and way.outside:
            return
        words = advice[1].split() if advice else ["run"]
        done = made.inv(*takewhile(ns.tasks.__contains__, words))
    made.wrong.append(f"no end of it: {done.err[-1500:]}")


def _judge(made: World, way: Way) -> None:
    made.check_files()
    made.check_decoy()
    for written in sorted(made.evidence.iterdir()):
        n = written.name.removeprefix("late-")
        found = holds("results/late") if n != written.name else way.found
        places = [made.project.root]
        places += [made.box_home(box) / "work" for box in made.boxes()]
        if not any(found(place, n) for place in places):
            made.wrong.append(f"the result of {written.name} is nowhere")
    if not way.outside and not made.boxes() and not any(made.evidence.iterdir()):
        made.wrong.append("the job has never left its result")


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.02)
