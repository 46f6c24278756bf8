"""The request about a single unit: its log, and whether it runs."""

from __future__ import annotations

from typing import Any, Dict

from ..box import BoxConfig
from ..jobs import job_ops, job_state
from ..protocol import CHUNK, Channel, Refused
from . import plan as unit_plan
from . import progress as unit_progress
from . import result as unit_result

# One answer has at most this many bytes of a log.
MOST = 1 << 20


def log(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """
    Send a part of a unit's log from the requested offset on, and return its state.

    The part has at most `MOST` bytes. The state is "left", "running" or "ended"; a unit
    that has ended has an exit code. Raises `Refused` if there is no such unit.
    """
    job = job_ops.existing_job(box, request)
    number, offset = request.get("unit"), request.get("offset", 0)
    found = None
    if type(number) is int:
        found = unit_plan.find(box.path("jobs", job), number)
    if found is None:
        raise Refused("unit", "job %s has no unit %r" % (job, number))
    if type(offset) is not int or not 0 <= offset < 1 << 62:
        raise Refused("offset", "%r is no offset of a log" % offset)
    head, unit = found
    folder = unit_result.folder(box.work, unit)
    # The state is read before the log, so that the log of a unit that has ended is
    # complete when it is read.
    code = unit_result.read_own(folder, head, unit).get("code")
    state = "ended"
    if type(code) is not int:
        code = None
        state = "running" if _is_running(box, job, unit.number) else "left"
    sent = 0
    while sent < MOST:
        data = _read(folder, offset + sent)
        if not data:
            break
        channel.send(b"D", data)
        sent += len(data)
    size = unit_result.log_size(folder)
    return {"job": job, "unit": number, "state": state, "code": code, "size": size}


OPS = {"unit_log": log}


def _is_running(box: BoxConfig, job: str, number: int) -> bool:
    """Return whether a unit runs now."""
    return (
        unit_progress.is_running(box.path("jobs", job), number)
        and job_state.read(box, job).state == "running"
    )


def _read(folder: str, offset: int) -> bytes:
    try:
        return unit_result.read_file(folder + "/" + unit_result.LOG, CHUNK, offset)
    except OSError:
        return b""
