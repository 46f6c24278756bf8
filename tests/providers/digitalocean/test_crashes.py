"""A client that is killed at any changing call leaves nothing that is not found."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest

from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.values import Box, Request
from tests.fakes.digitalocean.account import Account
from tests.fakes.digitalocean.server import Server

from ..boxes import MakeRequest
from ..crashes import fork, live
from . import conftest
from .conftest import provider_of

TIMEOUTS = replace(conftest.TIMEOUTS, consistency_lag=0.15)
# No life takes more changing calls than this.
MOST = 60

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def survives(server: Server, request: Request, at: int) -> bool:
    """
    Run the life of a box in a process that is killed at its *at*th changing call.

    The process dies after the call has taken effect: for the account that is the same
    as before the next call. Return whether it survived, because it made fewer calls.
    """
    ready = os.pipe()

    def work() -> None:
        os.read(ready[0], 1)
        live(provider_of(TIMEOUTS), request)

    process = fork(work)

    def killing(number: int, moment: str) -> bool:
        if (number, moment) == (at, "after"):
            os.kill(process, signal.SIGKILL)
            return True
        return False

    server.changes, server.killing = 0, killing
    os.write(ready[1], b"x")
    _, status = os.waitpid(process, 0)
    server.killing = lambda number, moment: False
    for end in ready:
        os.close(end)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code == 0


def delete_what_is_left(provider: DigitalOcean, request: Request) -> Box | None:
    """Find and delete what is left of the box, as the next command does."""
    owner = request.tags.owner
    end = time.monotonic() + TIMEOUTS.consistency_lag
    box = provider.get(request.box)
    while box is None and time.monotonic() < end:
        time.sleep(0.05)
        box = provider.get(request.box)
    if box is not None:
        # A list that lags may still show what is gone.
        assert {one.id for one in provider.find(owner)} <= {request.box}
        provider.delete(box)
    for image in provider.images(owner):
        provider.delete_image(image)
    return box


def test_a_kill_at_any_call_leaves_at_most_one_box(
    server: Server, make_request: MakeRequest
) -> None:
    """
    The next command finds and deletes everything that costs.

    A firewall without a box may be left; the next create deletes it.
    """
    request = make_request()
    at = 1
    while True:
        account = server.account = Account()
        account.behavior.lag, account.behavior.action = 0.05, 0.02
        foreign = {"name": request.box, "size": "c-4", "image": "debian-12-x64"}
        account.create({**foreign, "region": "nyc3"})
        if survives(server, request, at):
            break
        provider = provider_of(TIMEOUTS)
        where = f"killed after change {at}: {server.requests[-1].path}"
        delete_what_is_left(provider, request)
        assert len(account.all_droplets) <= 2, where
        assert len(account.droplets) == 1, where
        assert account.snapshots() == [], where
        left = provider.leftovers(request.box)
        assert not [one for one in left if one.kind != "firewall"], where
        for firewall in account.firewalls.values():
            firewall["created_at"] = "2020-01-01T00:00:00Z"
        assert len(account.firewalls) <= 1, where
        provider._remove_stale(request.tags.owner)
        assert account.firewalls == {}, where
        at += 1
        assert at < MOST
    assert at > 20
    assert list(account.droplets) == [account.all_droplets[0].id]
    assert account.firewalls == {}
