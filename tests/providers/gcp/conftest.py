"""A fake Compute Engine server, a provider that uses it, and requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.providers.gcp.client import Cloud
from onebox.providers.gcp.provider import GCP
from onebox.providers.gcp.settings import GCPSettings
from onebox.providers.values import Offer
from tests.fakes.gcp.account import Account
from tests.fakes.gcp.credentials import key_file
from tests.fakes.gcp.server import Server, serving
from tests.fakes.world import MY_IP

from ..boxes import MakeRequest, request_maker
from ..sshbox import Keys
from ..tables import table

ZONE = "us-central1-a"
OFFER = Offer(
    "small", "n2d-standard-4", 4, 16 << 30, 0.0491, 0.169, place=ZONE, arch="x86_64"
)

MakeProvider = Callable[..., GCP]


@pytest.fixture(scope="session")
def service_account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service account's key file."""
    return key_file(tmp_path_factory.mktemp("gcp") / "key.json")


@pytest.fixture(autouse=True)
def environment(
    service_account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment: the tests' credentials, and no proxy to the internet."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    """The fake; each request of a test must match Google's description."""
    with serving(Account()) as server:
        yield server
    assert server.refused == []


@pytest.fixture
def make_provider(server: Server) -> MakeProvider:
    """A function that returns a provider; other keywords are settings of [gcp]."""

    def make(
        timeout: float = 5.0,
        sleep: Callable[[float], None] = short_pause,
        my_ip: Callable[[], str] = lambda: MY_IP,
        **settings: object,
    ) -> GCP:
        keys = {
            "endpoint": server.address,
            "billing_endpoint": server.address,
            "iam_endpoint": server.address,
            "ssh_cidr": f"{MY_IP}/32",
            **settings,
        }
        values = table(GCPSettings, keys)
        cloud = Cloud(values, sleep=sleep, timeout=timeout)
        return GCP(values, Path("/"), cloud=cloud, my_ip=my_ip)

    return make


@pytest.fixture
def provider(make_provider: MakeProvider) -> GCP:
    """A provider whose settings are the defaults."""
    return make_provider()


@pytest.fixture
def make_request(keys: Keys) -> MakeRequest:
    """A function that returns a new request, as the provision stage makes it."""
    return request_maker(keys, OFFER, base="ubuntu-24.04")


def short_pause(seconds: float) -> None:
    """Sleep for a fortieth of the time, at most 10 ms."""
    time.sleep(min(seconds / 40, 0.01))
