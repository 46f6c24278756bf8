"""Run one unit of a map as a task of Ray, on the node where Ray has put it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from typing import IO, Any, Dict, Tuple

from ..box import BoxConfig
from ..box import read as read_file
from ..jobs import durable, exit_record, job_state
from ..units import plan as unit_plan
from ..units import progress as unit_progress
from ..units import result as unit_result
from ..units import share
from . import archive, guarded, outbox
from .guarded import GuardedSupervisor, Pipes
from .scratch import Scratch, given

SET_DEATH_SIGNAL = 1


def run(index: int, count: int, most: int) -> Dict[str, Any]:
    """
    Run the unit at *index* of *count*; return its result, and its outputs.

    The outputs are an archive: its bytes, or the path of a file in the storage.

    Args:
        most: The most bytes of the outputs; 0 means no limit.
    """
    plan = given()
    scratch = Scratch(plan)
    box = scratch.prepare()
    own = os.path.join(scratch.directory, share.FOLDER, str(index))
    os.makedirs(own, mode=0o700, exist_ok=True)
    durable.save_json(own, share.NAME, {"first": index, "step": count})
    python = sys.executable or "python3"
    words = [python, "-I", "-S", scratch.agent, "ray-unit", own]
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, check=False)
    units = unit_plan.UnitPlan(share.Share(scratch.directory))
    unit, head = units.unit(index), units.head
    units.close()
    path = unit_result.folder(box.work, unit)
    result = unit_result.read_own(path, head, unit)
    lines = read_file(os.path.join(own, "log")).splitlines()[1:]
    answer: Dict[str, Any] = {
        "code": result.get("code"),
        "started": result.get("started"),
        "seconds": result.get("seconds"),
        "cpu_seconds": result.get("cpu_seconds"),
        "memory_peak": result.get("memory_peak"),
        "lines": [line.decode("utf-8", "replace") for line in lines[:20]],
        "outputs": b"",
        "lost": "",
        "why": "" if result else "its supervisor ended with %d" % ended.returncode,
    }
    if result:
        work, root = os.fsencode(box.work), unit.outputs.rstrip("/")
        found = outbox.outputs(work, [root])
        left, kept = outbox.within(work, found, most or 1 << 62)
        file, name = _file(plan.storage, index)
        with file:
            left += archive.write(file, work, kept)
            if not name:
                file.seek(0)
                answer["outputs"] = file.read()
        answer["outputs"] = name or answer["outputs"]
        answer["lost"] = outbox.without_some(left, found)
    return answer


def _file(storage: str, index: int) -> Tuple[IO[bytes], str]:
    """Return an open file for the outputs of a unit, and its path in the storage."""
    if not storage:
        return io.BytesIO(), ""
    name = "unit.%d.%s" % (index, os.urandom(6).hex())
    path = os.path.join(storage, "out", name)
    return open(path, "wb"), path


def supervise(root: str, own: str) -> int:
    """
    Run the pool of a single unit, whose directory is *own*, to its end.

    It ends with the worker of Ray that has started it.
    """
    _die_with_parent()
    code = guarded.run_apart(lambda pipes: _supervise(root, own, pipes))
    return code if code >= 0 else 1


def _supervise(root: str, own: str, pipes: Pipes) -> None:
    box = BoxConfig.load(root)
    python = sys.executable or "python3"
    agent = os.path.abspath(sys.argv[0])
    words = [python, "-I", "-S", agent, "pool", own]
    job = given().job_plan()
    job = job._replace(commands=[[os.fsencode(word) for word in words]], notify="")
    durable.save_json(own, "started.json", job_state.Start(0, "", 0.0)._asdict())
    for name in ("log", exit_record.NAME):
        if os.path.exists(os.path.join(own, name)):
            os.unlink(os.path.join(own, name))
    durable.save(own, "log", b"")
    unit_progress.prepare(own)
    exit_record.prepare(own)
    GuardedSupervisor(box, job, own, pipes).run()
    record = exit_record.read(own)
    os.write(pipes.end, bytes([record.code if record else 1]))


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends."""
    parent = os.getppid()
    import ctypes

    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
