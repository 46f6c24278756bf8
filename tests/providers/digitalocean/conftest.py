"""A fake DigitalOcean server, a provider that uses it, and requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.values import Offer
from tests.fakes.digitalocean.server import TOKEN, Server
from tests.fakes.world import MY_IP

from ..boxes import SERVER_TIMEOUTS, MakeRequest, forget_proxies, request_maker
from ..sshbox import Keys
from ..tables import table

TIMEOUTS = dataclasses.replace(SERVER_TIMEOUTS, request=30, price_cache=60)
OFFER = Offer(
    "small",
    "g-4vcpu-16gb",
    4,
    16 << 30,
    0.1875,
    0.1875,
    place="nyc3",
    arch="x86_64",
)
SETTINGS: dict[str, object] = {
    "region": "nyc3",
    "regions": ("fra1",),
    "ssh_cidr": f"{MY_IP}/32",
    "accept_no_watchdog": True,
}

MakeProvider = Callable[..., DigitalOcean]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running fake; the environment points the SDK at it."""
    server = Server()
    monkeypatch.setenv("DIGITALOCEAN_END_POINT", server.address)
    monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", TOKEN)
    forget_proxies(monkeypatch)
    with server.running():
        yield server


@pytest.fixture
def make_provider(server: Server) -> MakeProvider:
    """A function that returns a provider; see `provider_of`."""
    return provider_of


def provider_of(
    timeouts: Timeouts = TIMEOUTS,
    *,
    my_ip: Callable[[], str] = lambda: MY_IP,
    environ: dict[str, str] | None = None,
    **settings: object,
) -> DigitalOcean:
    """Return a provider; other keywords are settings of [digitalocean]."""
    return DigitalOcean(
        table(DigitalOceanSettings, {**SETTINGS, **settings}),
        Path("/"),
        timeouts=timeouts,
        my_ip=my_ip,
        environ=environ or {},
    )


@pytest.fixture
def provider(make_provider: MakeProvider) -> DigitalOcean:
    """A provider with the settings of `SETTINGS`."""
    return make_provider()


@pytest.fixture
def make_request(keys: Keys) -> MakeRequest:
    """A function that returns a new request, as the provision stage makes it."""
    return request_maker(keys, OFFER)
