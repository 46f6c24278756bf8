"""A client that is killed at any changing call leaves nothing that is not found."""

from __future__ import annotations

import os
import signal

import pytest

from onebox.providers.gcp import sdk
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest, remove_free_objects
from ..crashes import fork, live
from .conftest import MakeProvider

# The changing calls of a life: two rules, instance, host key; stop; image; four for the
# start; image, instance and two rules.
CALLS = 14

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def test_the_number_of_changing_calls_is_known(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """The next test kills at each of them."""
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

    # A lock that a thread of the import holds would never be free in the fork.
    sdk.failures()
    process = fork(work)
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
    account = server.account
    assert max(account.instances.mutations.values(), default=1) == 1
    assert not account.instances.all
    assert not account.instances.disks
    assert not account.images
    assert not account.firewalls
