"""
Answer one request of the provider on the login node: make, find and remove boxes.

A box on a cluster is a folder of this user below the root: nothing else is created, and
nothing is billed. A request is a JSON object on stdin. The answer is one line on stdout
that begins with the mark of the request, because a login may print other lines.

======================  ==============================================================
boxes/ID/               a box: record.json, box.json, the agent, jobs, work, and home
images/ID/              an image: image.json, and a home
======================  ==============================================================

What a crash can leave of them is in `lifecycle`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

from ..box import disk_space, touch
from ..box import read as read_file
from ..folders import lifecycle
from ..folders.removal import remove
from ..folders.root import (
    AGENTS,
    RECORDS,
    Refusal,
    Root,
    check_owner,
    damaged,
    is_id,
    write_json,
)
from . import images, submitted
from .scheduler import PREFIX, QueuedJob, Scheduler, SchedulerError, find_folder

# A job may take this many seconds to leave the queue after it was cancelled.
GONE_SECONDS = 60.0
# An agent of an older version that no request has used for this long is removed.
OLD_AGENT = 30 * 86400.0

Request = Dict[str, Any]


def answer() -> None:
    """Read a request from stdin, and print its answer."""
    request: Request = json.loads(sys.stdin.buffer.read())
    result: Dict[str, Any]
    try:
        root = Root(str(request["root"]))
        root.claim()
        result = {"result": OPS[str(request["op"])](root, request)}
    except Refusal as refusal:
        result = {"refused": refusal.kind, "message": str(refusal)}
    except SchedulerError as error:
        result = {"refused": "scheduler", "message": str(error)}
    except OSError as error:
        where = error.filename or request.get("root")
        message = "%s: %s" % (where, error.strerror or error)
        result = {"refused": "filesystem", "message": message}
    text = "%s%s\n" % (request["mark"], json.dumps(result))
    sys.stdout.buffer.write(text.encode("ascii"))
    sys.stdout.flush()


def facts(root: Root, request: Request) -> Dict[str, Any]:
    """Return what the cluster offers: its version, partitions, and filesystem."""
    scheduler = _scheduler(request)
    format = "%P|%a|%l|%c|%m|%D|%G"
    free, total = disk_space(root.path)
    return {
        "root": root.path,
        "version": scheduler.show(["sinfo", "--version"]).strip(),
        "partitions": scheduler.show(
            ["sinfo", "--noheader", "--exact", "--format", format]
        ),
        "python": "%d.%d.%d" % tuple(sys.version_info[:3]),
        "arch": os.uname().machine,
        "system": _system(),
        "filesystem": _filesystem(root.path),
        "disk_free": free,
        "disk_total": total,
        "now": time.time(),
    }


def create(root: Root, request: Request) -> Dict[str, Any]:
    """Create a box, or return the one that an earlier request has created."""
    id = _id(request)
    record = dict(request["record"])
    path = root.box(id)
    if not os.path.isdir(path):
        _remove_old_agents(root)
        _make(root, id, record, request)
    return _found(root, id, record["tags"])


def find(root: Root, request: Request) -> Dict[str, Any]:
    """
    Return the boxes of an owner, and remove what crashed commands have left.

    Also return the folders without a valid record, whose owner is unknown.
    """
    found, unreadable = [], []
    left = lifecycle.sweep(root, "boxes", request["owner"])
    for name in root.names("boxes"):
        if name.startswith("."):
            continue
        record = root.record(name)
        if record is None:
            unreadable.append(root.box(name))
        elif record["tags"].get("owner") == request["owner"]:
            found.append(_describe(root, name, record))
    return {"boxes": found, "damaged": unreadable, "left": left}


def get(root: Root, request: Request) -> Dict[str, Any]:
    """Return a box, or null if it does not exist."""
    id = _id(request)
    if not os.path.lexists(root.box(id)):
        return {"box": None}
    return {"box": _describe(root, id, root.existing(id))}


def power(root: Root, request: Request) -> Dict[str, Any]:
    """Mark a box as stopped, or as running again; its jobs are ended before."""
    id = _id(request)
    record = root.existing(id)
    check_owner(id, record, request["tags"])
    if request["stopped"]:
        _end_jobs(root, request, id)
    record["stopped"] = bool(request["stopped"])
    write_json(os.path.join(root.box(id), RECORDS["boxes"]), record)
    return _describe(root, id, record)


def delete(root: Root, request: Request) -> Dict[str, Any]:
    """End the jobs of a box, and remove its folder and its home."""
    id = _id(request)
    for name in (id, lifecycle.DELETED + id):
        record = root.record(name)
        if record is not None:
            check_owner(id, record, request["tags"])
        elif name == id and os.path.lexists(root.box(id)):
            raise damaged(root.box(id), "boxes")
    _end_jobs(root, request, id)
    lifecycle.delete(root, "boxes", id)
    return {}


def leftovers(root: Root, request: Request) -> Dict[str, Any]:
    """Return what still exists of a box: jobs in the queue, and folders."""
    id = _id(request)
    found: List[Tuple[str, str]] = []
    for job in _jobs(root, _scheduler(request), id):
        found.append(("Slurm job", job.id))
    for name in (id, lifecycle.DELETED + id):
        if os.path.lexists(root.box(name)):
            found.append(("folder", root.box(name)))
    return {"leftovers": found}


OPS: Dict[str, Callable[[Root, Request], Dict[str, Any]]] = {
    "facts": facts,
    "create": create,
    "find": find,
    "get": get,
    "power": power,
    "delete": delete,
    "leftovers": leftovers,
    "images": images.find,
    "save": images.save,
    "delete_image": images.delete,
}


def _id(request: Request) -> str:
    id = str(request["box"])
    if not is_id(id):
        raise Refusal("argument", "%r cannot be the id of a box" % id)
    return id


def _scheduler(request: Request) -> Scheduler:
    folder = find_folder(str(request.get("folder", "")))
    if not folder:
        raise Refusal("slurm", "there is no sbatch on the login node")
    return Scheduler(folder)


def _make(root: Root, id: str, record: Dict[str, Any], request: Request) -> None:
    """Create the folder of a box, which has another name until it is complete."""
    fresh, final = lifecycle.begin(root, "boxes", id), root.box(id)
    home = root.home(id)
    record.update(created=time.time(), stopped=False)
    try:
        # The record comes first, so that the owner of the folder is always known.
        write_json(os.path.join(fresh, RECORDS["boxes"]), record)
        image = str(record.get("image", ""))
        beat = lifecycle.Heartbeat(fresh)
        images.furnish(root, image, os.path.join(fresh, "home"), home, beat)
        for folder in ("jobs", "files", "work"):
            os.mkdir(os.path.join(fresh, folder), 0o700)
        agent = os.path.abspath(sys.argv[0])
        shutil.copyfile(agent, os.path.join(fresh, "agent.pyz"))
        _copy_bytecode(fresh)
        scheduler = {**request["scheduler"], "folder": _scheduler(request).folder}
        config = {
            "box": id,
            "work": root.work(id),
            "home": home,
            "armed": record["created"],
            "deadline": 0.0,
            "setup_grace": 0.0,
            "idle_grace": 0.0,
            "poweroff": [],
            "scheduler": {} if request.get("on_login_node") else scheduler,
        }
        write_json(os.path.join(fresh, "box.json"), config)
        lifecycle.complete(fresh, final)
    except BaseException:
        remove(fresh)
        raise


def _copy_bytecode(fresh: str) -> None:
    """Give a new box the agent's bytecode, which it does not need to work."""
    # zipfile takes long to load, and only this request needs it.
    from .. import bytecode

    path = bytecode.compiled()
    if path:
        touch(path)
        copy = os.path.join(fresh, os.path.basename(path))
        try:
            shutil.copyfile(path, copy)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(copy)


def _remove_old_agents(root: Root) -> None:
    """Remove the agents of other versions that were not used for a long time."""
    folder = os.path.join(root.path, AGENTS)
    own = os.path.abspath(sys.argv[0])
    touch(own)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if path != own and time.time() - os.stat(path).st_mtime > OLD_AGENT:
                os.unlink(path)


def _found(root: Root, id: str, tags: Dict[str, Any]) -> Dict[str, Any]:
    record = root.existing(id)
    check_owner(id, record, tags)
    return _describe(root, id, record)


def _describe(root: Root, id: str, record: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "id": id,
        "record": record,
        "folder": root.box(id),
        "python": sys.executable or "python3",
    }


def _jobs(root: Root, scheduler: Scheduler, id: str) -> List[QueuedJob]:
    """
    Return the jobs of a box that are in the queue.

    A job's name and comment can be changed; then its id and folder show that it is one.
    Another job can have the folder too: the box's job may have submitted it.
    """
    comment, prefix, work = submitted.comment(id), "%s%s-" % (PREFIX, id), root.work(id)
    ids = submitted.slurm_ids(os.path.join(root.box(id), "jobs"))
    return [
        job
        for job in scheduler.queue()
        if job.comment == comment
        or job.name.startswith(prefix)
        or (job.folder == work and job.id in ids)
    ]


def _end_jobs(root: Root, request: Request, id: str) -> None:
    """Cancel the jobs of a box, and wait until they have left the queue."""
    scheduler = _scheduler(request)
    end = time.monotonic() + GONE_SECONDS
    while True:
        jobs = _jobs(root, scheduler, id)
        if not jobs:
            return
        if time.monotonic() > end:
            raise Refusal(
                "busy", "Slurm still ends job %s of box %s" % (jobs[0].id, id)
            )
        scheduler.cancel(*sorted({job.id for job in jobs}))
        time.sleep(0.5)


def _system() -> str:
    """Return the name and version of the operating system."""
    fields = {}
    for line in read_file("/etc/os-release").decode("utf-8", "replace").splitlines():
        name, _, value = line.partition("=")
        fields[name] = value.strip("\"'")
    return "%s %s" % (fields.get("ID", "linux"), fields.get("VERSION_ID", ""))


def _filesystem(path: str) -> str:
    """Return the type of the filesystem of *path*, as `stat -f` names it."""
    try:
        done = subprocess.run(
            ["stat", "-f", "-c", "%T", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
