"""A fake Hetzner server, a provider that uses it, and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.providers.hetzner.provider import Hetzner
from onebox.providers.hetzner.settings import HetznerSettings
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.values import Offer
from tests.fakes.hetzner.server import TOKEN, Server
from tests.fakes.world import MY_IP

from ..boxes import SERVER_TIMEOUTS, MakeRequest, forget_proxies, request_maker
from ..sshbox import Keys
from ..tables import table

TIMEOUTS = SERVER_TIMEOUTS
OFFER = Offer(
    "small",
    "ccx23",
    4,
    16 << 30,
    0.0595,
    0.0595,
    place="fsn1",
    arch="x86_64",
)
SETTINGS: dict[str, object] = {
    "region": "fsn1",
    "regions": ("hel1",),
    "ssh_cidr": f"{MY_IP}/32",
    "accept_no_watchdog": True,
}

MakeProvider = Callable[..., Hetzner]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running fake."""
    server = Server()
    forget_proxies(monkeypatch)
    with server.running():
        yield server


@pytest.fixture
def make_provider(server: Server) -> MakeProvider:
    """A function that returns a provider; keywords are settings of [hetzner]."""

    def make(
        timeouts: Timeouts = TIMEOUTS,
        *,
        my_ip: Callable[[], str] = lambda: MY_IP,
        environ: dict[str, str] | None = None,
        **settings: object,
    ) -> Hetzner:
        variables = {"HCLOUD_ENDPOINT": server.address, "HCLOUD_TOKEN": TOKEN}
        return Hetzner(
            table(HetznerSettings, {**SETTINGS, **settings}),
            Path("/"),
            timeouts=timeouts,
            my_ip=my_ip,
            environ={**variables, **(environ or {})},
        )

    return make


@pytest.fixture
def provider(make_provider: MakeProvider) -> Hetzner:
    """A provider with the settings of `SETTINGS`."""
    return make_provider()


@pytest.fixture
def make_request(keys: Keys) -> MakeRequest:
    """A function that returns a new request, as the provision stage makes it."""
    return request_maker(keys, OFFER)
