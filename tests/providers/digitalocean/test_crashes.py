"""The client is killed at every call that changes something; then the world is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from onebox.providers.base import Box
from onebox.providers.digitalocean.provider import DigitalOcean
from tests.fakes.digitalocean.account import Account
from tests.fakes.digitalocean.server import Server

from .box_life import BOX, OWNER, TIMEOUTS
from .conftest import provider_of

ROOT = Path(__file__).parents[3]
# No life takes more calls than this.
MOST = 60


def lives(server: Server, at: int) -> bool:
    """
    Run the life of a box in a process that dies at a call; return whether it lived.

    It dies when the call has taken effect: to the world that is the same as dying
    before the next one.
    """
    server.changes = 0
    argv = [sys.executable, "-m", "tests.providers.digitalocean.box_life"]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def killing(number: int, moment: str) -> bool:
        if (number, moment) == (at, "after"):
            os.kill(process.pid, signal.SIGKILL)
            return True
        return False

    server.killing = killing
    try:
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        server.killing = lambda number, moment: False
    assert process.returncode == (0 if out == "lived\n" else -signal.SIGKILL)
    return out == "lived\n"


def see_to(provider: DigitalOcean) -> Box | None:
    """Find what is left, as the next command does, and remove it."""
    until = time.monotonic() + TIMEOUTS.consistency_lag
    box = provider.get(BOX)
    while box is None and time.monotonic() < until:
        time.sleep(0.05)
        box = provider.get(BOX)
    if box is not None:
        # A list may have shown what is gone by now.
        assert {one.id for one in provider.find(OWNER)} <= {BOX}
        provider.delete(box)
    for image in provider.images(OWNER):
        provider.delete_image(image)
    return box


def test_a_kill_at_any_call_leaves_nothing_unfound(server: Server) -> None:
    """
    The next command finds and deletes everything.
    Never more than one droplet; nothing that costs is left; only a firewall without
    a box may be, and it is gone with a later launch.
    """
    at = 1
    while True:
        server.account = Account()
        behavior = server.account.behavior
        behavior.lag, behavior.action = 0.1, 0.02
        server.account.create(
            {"name": BOX, "size": "c-4", "image": "debian-12-x64", "region": "nyc3"}
        )
        if lives(server, at):
            break
        account, provider = server.account, provider_of(TIMEOUTS)
        here = f"killed after change {at}: {server.requests[-1].path}"
        see_to(provider)
        assert len(account.all_droplets) <= 2, here
        assert len(account.droplets) == 1, here
        assert account.snapshots() == [], here
        left = provider.leftovers(BOX)
        assert not [one for one in left if one.kind != "firewall"], here
        for wall in account.firewalls.values():
            wall["created_at"] = "2020-01-01T00:00:00Z"
        assert len(account.firewalls) <= 1, here
        provider._remove_stale(OWNER)
        assert account.firewalls == {}, here
        at += 1
        assert at < MOST
    assert at > 20
    assert list(server.account.droplets) == [server.account.all_droplets[0].id]
    assert server.account.firewalls == {}
