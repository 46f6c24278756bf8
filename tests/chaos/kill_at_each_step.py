"""
Kills the client, or fills its disk, at each step that changes something.

A step is a call that changes something outside of the process, see
hook/sitecustomize.py.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.world import HOOK, PACKAGE, TOML, Outcome, World, world
from tests.fakes import warm_processes

IMAGE = '[image]\nsetup = "setup.sh"\n' + TOML
# The job's input is an object, which the box downloads.
DOWNLOAD = TOML.replace("sh job.sh", "cp data/number number.txt; sh job.sh") + (
    '[push]\ncode = ["job.sh", "note.sh"]\ndata = ["s3://bucket/in/ -> data/"]\n'
)
# The variables of the hook.
KILL, FULL = "ONEBOX_KILL", "ONEBOX_FULL"
KINDS = {KILL: "killed", FULL: "disk full"}


@dataclass(frozen=True)
class Scene:
    """A command, the world that it is typed in, and how many boxes it leaves."""

    name: str
    line: tuple[str, ...]
    prepare: Callable[[World], None]
    boxes: int
    toml: str = TOML


def _nothing(made: World) -> None:
    if made.boxes():
        made.persist("teardown")


def _new_input(made: World) -> None:
    made.new_number()
    made.persist("provision")


def _nothing_and_new_input(made: World) -> None:
    _nothing(made)
    made.new_number()


def _ended_job(made: World) -> None:
    _new_input(made)
    made.persist("push")
    made.persist("run", "--only")


def _fetched_job(made: World) -> None:
    _new_input(made)
    made.persist("run")


def _new_recipe(made: World) -> None:
    made.new_number()
    made.project.write("setup.sh", f"echo {made.number} > ~/recipe")


SCENES = {
    scene.name: scene
    for scene in (
        Scene("provision", ("provision",), _nothing, 1),
        Scene("push", ("push",), _new_input, 1),
        Scene("run", ("run",), _new_input, 1),
        Scene("chain", ("run",), _nothing_and_new_input, 0),
        Scene("fetch", ("fetch",), _ended_job, 1),
        Scene("teardown", ("teardown",), _fetched_job, 0),
        Scene("image", ("image",), _new_recipe, 0, IMAGE),
        Scene("download", ("run",), _new_input, 1, DOWNLOAD),
    )
}


def steps(scene: Scene, made: World) -> list[str]:
    """Return the steps of a scene without a fault."""
    scene.prepare(made)
    listing = made.project.home / "steps"
    listing.unlink(missing_ok=True)
    env = hooked(made, ONEBOX_STEPS=str(listing))
    done = made.inv(*scene.line, env=env)
    assert not done.code, done.err
    return listing.read_text().splitlines()


def all_of(scene: Scene, fault: str, few: int, seed: int) -> Iterator[Outcome]:
    """
    Inject the fault at each step of a scene, or at a *few* that the seed selects.

    After each fault, first the same command follows, then `inv teardown` instead.
    """
    with world(toml=scene.toml) as made:
        found = steps(scene, made)
    if few:
        found = random.Random(seed).sample(found, min(few, len(found)))
    unmet = []
    with world(toml=scene.toml) as made:
        for number, step in enumerate(found):
            follows = ("again", "teardown")
            for follow in (follows[number % 2],) if few else follows:
                outcome = at_step(scene, made, step, fault, follow)
                if outcome is None:
                    unmet.append((step, follow))
                else:
                    yield outcome
    for step, follow in unmet:
        # What is done only once in a user's life.
        with world(toml=scene.toml) as made:
            outcome = at_step(scene, made, step, fault, follow)
            if outcome is not None:
                yield outcome


def at_step(
    scene: Scene, made: World, step: str, fault: str, follow: str
) -> Outcome | None:
    """
    Inject the fault at this step, type *follow*, and check the world.

    None is returned if the step was not reached this time.
    """
    made.begin()
    scene.prepare(made)
    made.named.clear()
    met = made.project.home / "met"
    met.unlink(missing_ok=True)
    env = hooked(made, **{fault: step}, ONEBOX_MET=str(met))
    done = made.inv(*scene.line, env=env)
    if not met.exists():
        return None
    if fault == KILL and done.code != -signal.SIGKILL:
        made.wrong.append(f"not killed, but exit {done.code}")
    made.check_files()
    line = scene.line if follow == "again" else (follow,)
    if made.persist(*line):
        made.check(scene.boxes if follow == "again" else 0)
        made.check_second(*line)
    return made.outcome(
        f"{KINDS[fault]} in {scene.name}", f"{step}, then inv {' '.join(line)}"
    )


def hooked(made: World, **more: str) -> dict[str, str]:
    """
    Return the variables with which a line lists its steps, or meets a fault at one.
    """
    path = warm_processes.load_late(f"{HOOK}:{PACKAGE.parent}")
    return {"PYTHONPATH": path, "ONEBOX_PACKAGE": str(PACKAGE), **more}
