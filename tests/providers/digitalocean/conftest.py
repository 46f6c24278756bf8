"""A server with an account, a provider that uses it, and requests for boxes."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.providers.base import BootConfig, Box, HostKey, Offer, Request, Tags
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.digitalocean.settings import Settings, Timeouts
from tests.fakes.digitalocean.server import TOKEN, Server

from ..sshbox import Keys
from ..tables import table

CIDR = "203.0.113.7/32"
# Long enough for a machine under load, where only the time limit is not the point.
TIMEOUTS = Timeouts(
    connect=5,
    read=20,
    request=30,
    attempts=4,
    first_pause=0.01,
    throttled=2.5,
    consistency_lag=0.8,
    poll_interval=0.02,
    shutdown=0.3,
    action=20,
    image=20,
    deletion=20,
    price_cache=60,
)
SETTINGS: dict[str, object] = {
    "region": "nyc3",
    "regions": ("fra1",),
    "ssh_cidr": CIDR,
    "accept_no_watchdog": True,
}

Make = Callable[..., Request]
Open = Callable[..., DigitalOcean]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server, which the SDK's own variables lead to."""
    server = Server()
    monkeypatch.setenv("DIGITALOCEAN_END_POINT", server.address)
    monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", TOKEN)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with server.running():
        yield server


@pytest.fixture
def open_provider(server: Server) -> Open:
    """A function that returns a provider; keywords are its settings."""
    return provider_of


def provider_of(
    timeouts: Timeouts = TIMEOUTS,
    *,
    address: Callable[[], str] = lambda: "203.0.113.7",
    environ: dict[str, str] | None = None,
    **settings: object,
) -> DigitalOcean:
    """Return a provider with the usual settings, or others."""
    return DigitalOcean(
        table(Settings, {**SETTINGS, **settings}),
        Path("/"),
        timeouts=timeouts,
        my_ip=address,
        environ=environ or {},
    )


@pytest.fixture
def provider(open_provider: Open) -> DigitalOcean:
    """A provider with the usual settings."""
    return open_provider()


@pytest.fixture
def make_request(keys: Keys) -> Make:
    """A function that returns a new request, as the provision stage makes it."""
    stem = secrets.token_hex(3)
    numbers = itertools.count(1)

    def make(**changes: object) -> Request:
        now = time.time()
        public = " ".join(keys.public("host").split()[:2])
        memory = 16 << 30
        size = Offer("small", "g-4vcpu-16gb", 4, memory, 0.1875, 0.1875, place="nyc3")
        request = Request(
            box=f"ob-{stem}{next(numbers):02}",
            tags=Tags(f"owner{stem}", "project-1", "main", now + 3600, "0.1.0"),
            offer=dataclasses.replace(size, arch="x86_64"),
            image=None,
            user_key=keys.public("user"),
            host_key=HostKey(keys.private("host"), public),
            boot_config=BootConfig(now + 3600, 600, 600, b"agent", b"seed"),
        )
        return dataclasses.replace(request, **changes)  # type: ignore[arg-type]

    return make


def when_up(provider: DigitalOcean, box: Box) -> Box:
    """Wait until a box has left the state "starting", as the core does."""
    until = time.monotonic() + 120
    now: Box | None = box
    while now is None or now.state == "starting":
        assert time.monotonic() < until, "the box does not come up"
        time.sleep(0.01)
        now = provider.get(box.id)
    return now
