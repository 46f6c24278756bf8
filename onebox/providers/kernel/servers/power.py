"""Stop and start a server."""

from __future__ import annotations

import time

from onebox.errors import Gone, Unclear
from onebox.providers.kernel.errors import Pending
from onebox.providers.kernel.servers.api import Server, ServerAPI, Switch


def stop(api: ServerAPI, server: Server) -> None:
    """
    Shut a server down, cut its power if it does not react, and wait until it is off.

    Raises:
        Unclear: The server is still on after the time limit.
    """
    limits = api.timeouts
    began = time.monotonic()
    sent: dict[Switch, float] = {}
    state = server.state

    def is_off() -> bool:
        nonlocal state
        now = api.server(server)
        if now is None or now.state == "stopped":
            return True
        state = now.state
        waited = time.monotonic() - began
        how: Switch = "off" if waited > limits.shutdown else "shutdown"
        # The call is made again after a while, because it may have been lost, or the
        # system may have ignored it.
        due = how not in sent or waited - sent[how] > limits.shutdown
        if state == "running" and due and _switch(api, server, how):
            sent[how] = waited
        return False

    if not api.poller.until(is_off, limits.action):
        raise Unclear(
            f"{server.kind} {server.id} is still {state} after {limits.action:.0f} s "
            "of stopping",
            next="inv status",
        )


def start(api: ServerAPI, server: Server) -> Server:
    """
    Power a server on, wait until it runs, and return it.

    Raises:
        Unclear: The server is still off after the time limit.
    """
    limits = api.timeouts
    sent = -limits.action

    def running() -> Server | None:
        nonlocal sent
        now = api.server(server)
        if now is None:
            raise Gone(f"{server.kind} {server.id} does not exist any more")
        if now.state == "running":
            return now
        moment = time.monotonic()
        if moment - sent > limits.shutdown and _switch(api, server, "on"):
            sent = moment
        return None

    started = api.poller.until(running, limits.action)
    if started is None:
        raise Unclear(
            f"{server.kind} {server.id} is still off after {limits.action:.0f} s",
            next="inv status",
        )
    return started


def _switch(api: ServerAPI, server: Server, how: Switch) -> bool:
    """
    Switch a server; return whether the call was accepted or may have been.

    Return False if the server is busy or in the requested state already.
    """
    try:
        api.switch(server, how)
    except Pending:
        return False
    except (Gone, Unclear):
        # The call may have been accepted. The next poll shows the server's state, and a
        # repetition would be harmless.
        return True
    return True
