"""
What a client can ask of any agent, however small: who it is, and to be renewed.

The agent that a box begins its life with knows no more than this, and to watch.
The client that meets it sends the whole one.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict

from . import box, protocol, watchdog
from .box import Box
from .jobs import state

Op = Callable[[protocol.Channel, Box, Dict[str, Any]], Dict[str, Any]]


def serve(channel: protocol.Channel, root: str, ops: Dict[str, Op]) -> None:
    """Answer one client's requests, in order, until it hangs up."""
    # Now: later, another one may have been put in its place.
    box.version()
    try:
        while True:
            kind, payload = channel.receive()
            box.touch(os.path.join(root, "lease"))
            if kind == b"Q":
                answer(channel, root, ops, protocol.loads(payload))
    except protocol.Closed:
        return


def answer(
    channel: protocol.Channel, root: str, ops: Dict[str, Op], request: Dict[str, Any]
) -> None:
    """Answer one request, with an error frame if it is refused."""
    try:
        op = ops.get(str(request.get("op")))
        if op is None:
            raise protocol.Refused("op", "there is no op %r" % request.get("op"))
        channel.send_json(b"A", op(channel, box.load(root), request))
    except protocol.Refused as refusal:
        channel.send_json(b"E", {"kind": refusal.kind, "message": refusal.message})
    except OSError as error:
        channel.send_json(b"E", {"kind": "system", "message": str(error)})
    except protocol.Closed:
        raise
    except Exception as error:
        # Taken for a broken line it would be tried again, for minutes and unnamed.
        import traceback

        place = traceback.extract_tb(error.__traceback__)[-1]
        where = os.path.basename(place.filename), place.lineno
        message = "the agent's own mistake: %r (%s, line %s)" % (error, *where)
        channel.send_json(b"E", {"kind": "mistake", "message": message})


def hello(
    channel: protocol.Channel, at: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Say what this box is and how it is."""
    return dict(box.facts(at), job=state.latest(at))


def renew(
    channel: protocol.Channel, at: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """
    Put another version of the agent in this one's place, for the next start.

    On a machine of its own this one is root's, so that no job can replace it. The
    answer says `own` where we may not become root: the new one lies in the folder
    `files` then, and is to be started from there.
    """
    path = os.path.abspath(sys.argv[0])
    replaceable = os.access(os.path.dirname(path), os.W_OK)
    own = path if replaceable else at.path("files", "agent.pyz")
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
    if replaceable or not _install(at, fresh, path):
        os.replace(fresh, own)
        return {"own": not replaceable}
    os.unlink(fresh)
    return {"own": False}


def _install(at: Box, fresh: str, path: str) -> bool:
    """Put a copy of a file in the place of one of root's; tell whether that is done."""
    copy = "%s.%d" % (path, os.getpid())
    return (
        watchdog.run(at, ["install", "-m", "644", fresh, copy])
        and watchdog.run(at, ["sync", copy])
        and watchdog.run(at, ["mv", "-f", copy, path])
    )


def poweroff(
    channel: protocol.Channel, at: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Have the box power itself off, in a moment: the answer is sent first."""
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
            watchdog.note(at, "power off: asked for")
            watchdog.power_off(at, "poweroff")
    finally:
        os._exit(0)


OPS: Dict[str, Op] = {"hello": hello, "renew": renew, "poweroff": poweroff}
