"""
The loop that answers requests, and the requests that every agent answers.

The user data has room for a small agent only, which answers `hello`, `renew` and
`poweroff` and runs the watchdog. The first client to connect sends the complete
agent with `renew`.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict

from . import protocol, watchdog
from .box import BoxConfig, facts, touch, version
from .jobs import job_state

Op = Callable[[protocol.Channel, BoxConfig, Dict[str, Any]], Dict[str, Any]]


def serve(channel: protocol.Channel, root: str, ops: Dict[str, Op]) -> None:
    """Answer one client's requests, in order, until it closes the connection."""
    # This call caches the version of the running agent, because another client may
    # replace the agent's file later.
    version()
    try:
        while True:
            kind, payload = channel.receive()
            touch(os.path.join(root, "lease"))
            if kind == b"Q":
                answer(channel, root, ops, protocol.loads(payload))
    except protocol.Closed:
        return


def answer(
    channel: protocol.Channel, root: str, ops: Dict[str, Op], request: Dict[str, Any]
) -> None:
    """
    Answer one request; a failure is answered with an error frame.

    Raises `Closed` if the connection breaks.
    """
    try:
        op = ops.get(str(request.get("op")))
        if op is None:
            raise protocol.Refused("op", "there is no op %r" % request.get("op"))
        channel.send_json(b"A", op(channel, BoxConfig.load(root), request))
    except protocol.Refused as refusal:
        channel.send_json(b"E", {"kind": refusal.kind, "message": refusal.message})
    except OSError as error:
        channel.send_json(b"E", {"kind": "system", "message": str(error)})
    except protocol.Closed:
        raise
    except Exception as error:
        # Without an answer the client would assume a lost connection, and retry for
        # minutes.
        import traceback

        place = traceback.extract_tb(error.__traceback__)[-1]
        where = os.path.basename(place.filename), place.lineno
        message = "a bug in the agent: %r (%s, line %s)" % (error, *where)
        channel.send_json(b"E", {"kind": "mistake", "message": message})


def hello(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Return the facts about the box and about its latest job."""
    return dict(facts(box), job=job_state.latest(box))


def renew(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """
    Replace the agent's file with the version that the client sends.

    The next start uses the new version. On a cloud machine the file belongs to root,
    so that no job can replace it. If the agent's user may not become root, the new
    version is stored in the folder `files` instead. The answer then has `own` set,
    and the client must start the agent from `files`.
    """
    path = os.path.abspath(sys.argv[0])
    replaceable = os.access(os.path.dirname(path), os.W_OK)
    own = path if replaceable else box.path("files", "agent.pyz")
    fresh = "%s.%d" % (own, os.getpid())
    os.makedirs(os.path.dirname(own), exist_ok=True)
    with open(fresh, "wb") as file:
        while True:
            kind, payload = channel.receive()
            if kind == b"D":
                file.write(payload)
            elif kind == b"Z":
                break
        file.flush()
        os.fsync(file.fileno())
    if replaceable or not _install(box, fresh, path):
        os.replace(fresh, own)
        return {"own": not replaceable}
    os.unlink(fresh)
    return {"own": False}


def _install(box: BoxConfig, fresh: str, path: str) -> bool:
    """
    Replace *path*, which belongs to root, with a copy of *fresh*.

    Return whether that succeeded.
    """
    copy = "%s.%d" % (path, os.getpid())
    return (
        watchdog.run(box, ["install", "-m", "644", fresh, copy])
        and watchdog.run(box, ["sync", copy])
        and watchdog.run(box, ["mv", "-f", copy, path])
    )


def poweroff(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Power the box off from a background process, so that the answer can be sent."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return {}
    try:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            watchdog.note(box, "power off: requested by a client")
            watchdog.power_off(box, "poweroff")
    finally:
        os._exit(0)


OPS: Dict[str, Op] = {"hello": hello, "renew": renew, "poweroff": poweroff}
