"""
Submit a job to Ray. Its directory on this machine is complete before Ray hears of it.

The id of a job in Ray is made of the box and the job, and Ray refuses an id that it
has. So a submission can be repeated after any interruption.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any, Dict, List

from ..box import BoxConfig
from ..box import read as read_file
from ..files.folder_writer import remove
from ..jobs import durable, exec, exit_record, job_state, notification, stored_plan
from ..protocol import Refused
from ..units import plan as unit_plan
from ..units import progress as unit_progress
from ..units import result as unit_result
from ..units import share
from ..units.progress import Progress
from . import jobs_api, package

# The exit code of a start that has not run the job, or has not handed it over.
DIED = 75
# They say that Ray may have the job, and that it has it.
TRIED, SUBMITTED = "tried", "submitted"
# What Ray is asked for, until it has the job.
BODY = "body.json"
# The package of the plan may contain secrets, so it is removed as soon as Ray has it.
UNSENT = (BODY, "plan.zip", "code.zip")
ENTRY_POINT = 'exec "$(command -v python || command -v python3)" -I -S %s ray'


def job_name(box: str, job: str) -> str:
    """Return the id of a job in Ray, which no other job has."""
    return "onebox-%s-%s" % (box, job)


def cluster_of(box: BoxConfig) -> jobs_api.RayCluster:
    """Return the cluster that runs the jobs of a box."""
    return jobs_api.RayCluster(box.scheduler["reach"])


def storage_of(box: BoxConfig, job: str) -> str:
    """Return the folder of a job that all nodes see, "" if its box has none."""
    root = str(box.scheduler.get("storage", ""))
    return os.path.join(root, "%s-%s" % (box.id, job)) if root else ""


def prepare(box: BoxConfig, plan: exec.JobPlan) -> None:
    """
    Create the directory of a job, with all that Ray is asked for.

    Raises:
        package.TooLarge: Ray would refuse the files of the box.

        OSError: The directory cannot be written, or the storage is not here.
    """
    for name in os.listdir(box.path("jobs")):
        if name.startswith(".new-"):
            _remove(box, name)
    name = ".new-%s.%d" % (plan.job, os.getpid())
    fresh = box.path("jobs", name)
    os.mkdir(fresh, 0o700)
    try:
        _fill(box, plan, fresh)
        os.rename(fresh, box.path("jobs", plan.job))
    except BaseException:
        _remove(box, name)
        raise


def submit(box: BoxConfig, job: str) -> None:
    """
    Send the packages of a job, and submit it, unless that was done before.

    Raises:
        jobs_api.RayError: Ray refuses the job; it does not run.

        jobs_api.Unreachable: It is not known whether Ray has the job.
    """
    directory = box.path("jobs", job)
    if is_submitted(directory):
        return
    body = json.loads(read_file(os.path.join(directory, BODY)))
    cluster = cluster_of(box)
    try:
        environment = body["runtime_env"]
        for file, uri in (
            ("code.zip", environment["working_dir"]),
            ("plan.zip", environment["py_modules"][0]),
        ):
            name = uri.partition("://")[2]
            package.send(cluster, package.Package(name, os.path.join(directory, file)))
        if not os.path.exists(os.path.join(directory, TRIED)):
            durable.save(directory, TRIED, cluster.session().encode("utf-8"))
        cluster.submit(body)
    finally:
        cluster.close()
    durable.save(directory, SUBMITTED, b"")
    forget_plan(directory)


def is_submitted(directory: str) -> bool:
    """Return whether Ray has, or has had, the job in *directory*."""
    return os.path.exists(os.path.join(directory, SUBMITTED))


def is_forgotten(directory: str, cluster: jobs_api.RayCluster) -> bool:
    """
    Return whether the head was started again since the job was first submitted.

    It has forgotten all jobs then. The job may have run, so it is not submitted again.
    """
    before = read_file(os.path.join(directory, TRIED)).decode("utf-8", "replace")
    return bool(before) and before != cluster.session()


def forget_plan(directory: str) -> None:
    """Remove the files that only a submission needs."""
    for name in UNSENT:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, name))


def discard(box: BoxConfig, job: str) -> None:
    """Remove the directory of a job that Ray does not have."""
    gone = ".new-%s.%d" % (job, os.getpid())
    with contextlib.suppress(OSError):
        os.rename(box.path("jobs", job), box.path("jobs", gone))
    _remove(box, gone)


def _fill(box: BoxConfig, plan: exec.JobPlan, fresh: str) -> None:
    scheduler = box.scheduler
    outputs = _outputs(plan)
    durable.save_json(fresh, "spec.json", plan.spec)
    start = job_state.Start(0, "", job_state.next_start(box, time.time()))
    durable.save_json(fresh, "started.json", start._asdict())
    durable.save(fresh, "log", b"")
    exit_record.prepare(fresh)
    done: List[int] = []
    counts: Dict[str, Any] = {}
    if plan.units:
        durable.save(fresh, unit_plan.NAME, plan.units)
        done, progress = _units(box, fresh)
        counts = progress._asdict()
        unit_progress.prepare(fresh, progress)
    if plan.notify:
        # The node notifies, because this machine may be off then.
        notification.claim(fresh)
    storage = storage_of(box, plan.job)
    fields = {
        "box": box.id,
        "job": plan.job,
        "plan": json.loads(stored_plan.encode(plan)),
        "outputs": [str(name) for name in plan.spec["outputs"]],
        "roots": outputs,
        "storage": storage,
        "most": 0 if storage else int(scheduler["most"]),
        "seconds": int(scheduler["minutes"]) * 60,
        "units": counts,
        "done": done,
        "retries": int(scheduler["retries"]),
    }
    if storage:
        os.makedirs(storage, mode=0o700, exist_ok=True)
        package.store_code(box, storage, outputs)
    code = package.make_code(box, fresh, outputs)
    given = package.make_plan(fresh, fields, plan.units)
    environment: Dict[str, Any] = {"working_dir": code.uri, "py_modules": [given.uri]}
    if plan.spec["packages"]:
        environment["pip"] = {"packages": plan.spec["packages"], "pip_check": False}
    body: Dict[str, Any] = {
        "entrypoint": ENTRY_POINT % package.AGENT,
        "submission_id": job_name(box.id, plan.job),
        "runtime_env": environment,
        "metadata": {"onebox_box": box.id},
    }
    # The driver of units only waits for them.
    if not plan.units:
        body["entrypoint_num_cpus"] = int(scheduler["cpus"])
        if scheduler.get("memory"):
            body["entrypoint_memory"] = int(scheduler["memory"])
    durable.save_json(fresh, BODY, body)


def _outputs(plan: exec.JobPlan) -> List[str]:
    """
    Return the paths of all outputs. Raises `Refused` if one is outside of the box.

    They are not sent to the cluster, but come back from it.
    """
    roots = [os.path.normpath(str(name)) for name in plan.spec["roots"]]
    for root in roots:
        if os.path.isabs(root) or root.split("/")[0] in ("..", "."):
            raise Refused("path", "%s is not inside the work directory" % root)
    return roots


def _units(box: BoxConfig, directory: str) -> Any:
    """Return the units that were done before, and the counts before the start."""
    plan = unit_plan.UnitPlan(share.Share(directory))
    head, done = plan.head, []
    for index in range(len(plan)):
        unit = plan.unit(index)
        if unit_result.is_done(unit_result.folder(box.work, unit), head, unit):
            done.append(index)
    count = len(plan)
    plan.close()
    cpus, memory = int(box.scheduler["cpus"]), int(box.scheduler.get("memory", 0))
    at_once = max(cpus // head.cpus, 1)
    if head.memory and memory:
        at_once = max(min(at_once, memory // head.memory), 1)
    at_once = min(at_once, count)
    skipped, left = len(done), count - len(done)
    return done, Progress(count, skipped, 0, 0, left, skipped, at_once, None)


def _remove(box: BoxConfig, name: str) -> None:
    fd = os.open(box.path("jobs"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove(fd, os.fsencode(name))
    finally:
        os.close(fd)
