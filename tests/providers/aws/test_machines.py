"""Boxes on EC2 that are real machines: user data, host keys, deadlines, rescue."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onebox.providers.aws import AWS
from onebox.providers.base import Arming, Box, HostKey, Request
from onebox.transport import bundle, keys
from onebox.transport.link import Link
from onebox.transport.ssh import Door

from ...machines import Machines, missing
from .account import Account
from .behind import Behind
from .conftest import MakeAws, MakeRequest

# A boot takes three seconds; this is for a machine that others work on as well.
UP = 90.0

pytestmark = pytest.mark.skipif(bool(missing()), reason=str(missing()))


@pytest.fixture
def behind(account: Account) -> Iterator[Behind]:
    """Machines behind the account's instances."""
    with Machines() as machines, Behind(account, machines).standing() as standing:
        yield standing


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """The user's own key."""
    return keys.identity(tmp_path)


@pytest.fixture
def host_key(tmp_path: Path) -> HostKey:
    """A new host key."""
    return keys.new_host_key(tmp_path)


def real(
    request: Request, identity: Path, host_key: HostKey, seconds: float
) -> Request:
    """Return a request for a box that is told all that a box is told."""
    until = time.time() + seconds
    told = Arming(until, 2700, 1800, bundle.bundle(), bundle.seed())
    public = keys.public_half(identity)
    return dataclasses.replace(request, arming=told, user_key=public, host_key=host_key)


def running(provider: AWS, box: Box) -> Box:
    """Wait until a box has an address."""
    until = time.monotonic() + UP
    while box.state != "running":
        assert time.monotonic() < until
        time.sleep(0.2)
        box = provider.get(box.id, box.place) or box
    return box


@contextmanager
def linked(box: Box, identity: Path, tmp_path: Path) -> Iterator[Link]:
    """Log in on a box, as soon as it lets us in."""
    door = Door(box, tmp_path / "door", identity)
    try:
        yield door.open_when_up(UP, lambda: None, lambda: None)
    finally:
        door.forget()


def test_box(
    make_aws: MakeAws,
    make_request: MakeRequest,
    behind: Behind,
    account: Account,
    identity: Path,
    host_key: HostKey,
    tmp_path: Path,
) -> None:
    """A box answers with its own host key, knows its id, and ends at its deadline."""
    provider = make_aws()
    request = real(make_request(), identity, host_key, 3600)
    box = running(provider, provider.create(request))
    with linked(box, identity, tmp_path) as link:
        hello = link.ask("hello")
        assert hello["box"] == box.id
        assert hello["deadline"] == pytest.approx(box.deadline, abs=1)
    provider.stop(box)
    # So short that it powers itself off, and long enough to be seen running.
    started = running(provider, provider.start(box, time.time() + 25))
    with linked(started, identity, tmp_path) as link:
        assert link.ask("hello")["deadline"] == pytest.approx(started.deadline, abs=1)
    until = time.monotonic() + UP
    found = provider.get(box.id, box.place)
    while found is not None and found.state != "stopped":
        assert time.monotonic() < until
        time.sleep(0.5)
        found = provider.get(box.id, box.place)
    assert found is not None
    assert found.why == "deadline"
    provider.delete(found)
    assert not provider.leftovers(box.id)


def test_rescue(
    make_aws: MakeAws,
    make_request: MakeRequest,
    behind: Behind,
    account: Account,
    identity: Path,
    host_key: HostKey,
    tmp_path: Path,
) -> None:
    """What a box that was taken back had on its disk is there in the next machine."""
    provider = make_aws()
    request = real(make_request(spot=True), identity, host_key, 3600)
    box = running(provider, provider.create(request))
    (first,) = account.alive(box.id)
    with linked(box, identity, tmp_path) as link:
        assert link.ask("hello")["box"] == box.id
    behind.machines[first.id].run(
        "sh", "-c", "echo precious >/home/onebox/work/x; sync"
    )
    account.preempt(box.id)
    account.wait(box.id, "terminated")
    found = provider.get(box.id, box.place)
    assert found is not None
    assert found.disk_only
    started = running(provider, provider.start(found, time.time() + 1800))
    with linked(started, identity, tmp_path) as link:
        hello = link.ask("hello")
        assert hello["box"] == box.id
        assert hello["deadline"] == pytest.approx(started.deadline, abs=1)
    (second,) = account.alive(box.id)
    assert second.id != first.id
    said = behind.machines[second.id].run("cat", "/home/onebox/work/x")
    assert said.strip() == "precious"
    provider.delete(started)
    assert not provider.leftovers(box.id)
