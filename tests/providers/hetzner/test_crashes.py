"""A client that is killed at any changing call leaves nothing that is not found."""

from __future__ import annotations

import os
import signal

import pytest

from onebox.providers.hetzner.provider import Hetzner
from onebox.providers.values import Request
from tests.fakes.hetzner.account import Project
from tests.fakes.hetzner.server import Server

from ..boxes import MakeRequest
from ..crashes import fork, live
from .conftest import MakeProvider

# No life takes more changing calls than this.
MOST = 40

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def survives(server: Server, provider: Hetzner, request: Request, at: int) -> bool:
    """
    Run the life of a box in a process that is killed at its *at*th changing call.

    The process dies after the call has taken effect: for the project that is the same
    as before the next call. Return whether it survived, because it made fewer calls.
    """
    ready = os.pipe()

    def work() -> None:
        os.read(ready[0], 1)
        live(provider, request)

    process = fork(work)

    def killing(number: int) -> bool:
        if number == at:
            os.kill(process, signal.SIGKILL)
        return number == at

    server.changes, server.killing = 0, killing
    os.write(ready[1], b"x")
    _, status = os.waitpid(process, 0)
    server.killing = lambda number: False
    for end in ready:
        os.close(end)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code == 0


def delete_what_is_left(server: Server, provider: Hetzner, request: Request) -> None:
    """Find and delete everything of the box and its owner, as later commands do."""
    owner, project = request.tags.owner, server.project
    box = provider.get(request.box)
    if box is not None:
        # A server that is being deleted is still listed.
        assert {one.id for one in provider.find(owner)} <= {request.box}
        provider.delete(box)
    while any(one.shown["status"] == "creating" for one in project.snapshots()):
        project.tick()
    for image in provider.images(owner):
        provider.delete_image(image)
    left = provider.leftovers(request.box)
    assert not [one for one in left if one.kind != "firewall"]
    for resource in provider.free_objects(owner, [request.box]):
        provider.remove_free(owner, resource)


def test_a_kill_at_any_call_leaves_at_most_one_box(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """The next commands find and delete everything; only one server was created."""
    request = make_request()
    at = 1
    while True:
        server.project = project = Project()
        project.behavior.action = 0.02
        others = set(project.resources)
        if survives(server, make_provider(), request, at):
            break
        where = f"killed after change {at}: {server.requests[-1]}"
        assert len(project.all_servers) <= 1, where
        delete_what_is_left(server, make_provider(), request)
        assert set(project.resources) == others, where
        at += 1
        assert at < MOST
    assert at > 12
    assert not project.servers
    assert not project.snapshots()
