"""Kill the client at every call that changes something, then look at the world."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from onebox.providers.base import Request
from onebox.providers.gcp import sdk
from onebox.providers.gcp.provider import GCP
from tests.fakes.compute.server import Server

from ..boxes import MakeRequest, image_of, remove_free_objects, when_up
from .conftest import MakeProvider

# Two rules, instance, host key; stop; image; four for the start; image, instance
# and two rules again.
CALLS = 14

# Forking beside the server's threads is fine here: the child uses none of them.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def live(provider: GCP, request: Request) -> None:
    """Lead a whole life of a box: make, save, start again, remove."""
    box = when_up(provider, provider.create(request))
    provider.stop(box)
    image = provider.save(box, image_of(request))
    started = when_up(provider, provider.start(box, time.time() + 600))
    provider.delete_image(image)
    provider.delete(started)


def in_a_process(work: Callable[[], None]) -> int:
    """Begin something in a process of its own, and return its id."""
    # The library may still be imported by a thread, which the child has not, though
    # it has the locks that the thread holds.
    sdk.failures()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return process


def test_the_number_of_changing_calls_is_known(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """The test below kills at each of them."""
    live(make_provider(), make_request())
    reading = ("get", "list", "aggregatedList", "getGuestAttributes", "getFromFamily")
    changes = [
        one.method
        for one in server.requests
        if one.method.rpartition(".")[2] not in reading
    ]
    assert len(changes) == CALLS


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(CALLS))
def test_a_kill_at_any_call_leaves_at_most_one_box(
    server: Server,
    make_provider: MakeProvider,
    make_request: MakeRequest,
    call: int,
    after: bool,
) -> None:
    """The next command can delete everything."""
    request = make_request()
    provider = make_provider()
    ready = os.pipe()

    def work() -> None:
        os.read(ready[0], 1)
        live(provider, request)

    process = in_a_process(work)
    server.victim = process, call, after
    os.write(ready[1], b"x")
    _, status = os.waitpid(process, 0)
    for end in ready:
        os.close(end)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL

    survivor = make_provider()
    found = [survivor.get(request.box), *survivor.find(request.tags.owner)]
    assert {box.id for box in found if box} <= {request.box}
    for image in survivor.images(request.tags.owner):
        survivor.delete_image(image)
    for box in found:
        if box is not None:
            survivor.delete(box)
    remove_free_objects(survivor, request.tags.owner)
    assert not survivor.leftovers(request.box)
    world = server.account
    assert max(world.instances.mutations.values(), default=1) == 1
    assert not world.instances.all
    assert not world.instances.disks
    assert not world.images
    assert not world.firewalls
