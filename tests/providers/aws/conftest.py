"""A fake AWS account, a provider that uses it, and requests for boxes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.client import ClientCreator
from botocore.hooks import EventAliaser

from onebox.providers.aws.client import Cloud
from onebox.providers.aws.provider import AWS
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.values import Offer, Request
from tests.fakes.aws.account import Account
from tests.fakes.aws.server import Server
from tests.fakes.world import MY_IP

from ..boxes import MakeRequest, request_maker
from ..sshbox import Keys
from ..tables import table

MakeProvider = Callable[..., AWS]

# The product's pauses are divided by this.
FASTER = 40.0
OFFER = Offer(
    "small",
    "m7i.large",
    2,
    8 << 30,
    0.1008,
    0.1008,
    place="us-east-1a",
    cores=1,
    arch="x86_64",
)


@pytest.fixture(scope="session", autouse=True)
def _shared_models() -> Iterator[None]:
    """
    Let all sessions of the SDK share what each computes from the same service models.

    Each provider has a session of its own. A session takes a fifth of a second of CPU
    for the class of EC2's client, with 700 methods, for the shapes of its requests and
    errors, and for the names of events.
    """
    made: dict[tuple[str, str], Any] = {}

    def share(patch: pytest.MonkeyPatch, name: str) -> None:
        make = getattr(ClientCreator, name)

        def shared(self: ClientCreator, service: str, *rest: Any, **more: Any) -> Any:
            if (name, service) not in made:
                made[name, service] = make(self, service, *rest, **more)
            return made[name, service]

        patch.setattr(ClientCreator, name, shared)

    begin = EventAliaser.__init__
    names: dict[str, str] = {}

    def begin_with_names(self: EventAliaser, *rest: Any, **more: Any) -> None:
        begin(self, *rest, **more)
        self._alias_name_cache = names

    with pytest.MonkeyPatch.context() as patch:
        share(patch, "_load_service_model")
        share(patch, "_create_client_class")
        patch.setattr(EventAliaser, "__init__", begin_with_names)
        yield


@pytest.fixture(scope="session")
def _the_account() -> Iterator[tuple[Account, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        account = Account()
        with Server(account).running() as url:
            yield account, url


@pytest.fixture
def account(_the_account: tuple[Account, str]) -> Iterator[Account]:
    """The account without faults; those of a test are removed at its end."""
    account, _ = _the_account
    account.calls.clear()
    yield account
    account.faults.clear()
    account.forget_ended()
    account.expired, account.skew = False, 0.0
    account.released.set()
    account.released.clear()
    broken, account.broken = account.broken, []
    for error in broken:
        raise error


@pytest.fixture
def aws_environment(
    _the_account: tuple[Account, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> str:
    """The environment: credentials, and the address of the fake; return the address."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _the_account[1])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not a secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return _the_account[1]


@pytest.fixture
def make_provider(
    account: Account, aws_environment: str, tmp_path: Path
) -> MakeProvider:
    """A function that returns a provider; other keywords are settings of [aws]."""

    def make(
        timeout: float = 20.0,
        faster: float = FASTER,
        my_ip: Callable[[], str] = lambda: MY_IP,
        **settings: object,
    ) -> AWS:
        values = table(AWSSettings, {"ssh_cidr": f"{MY_IP}/32", **settings})
        cloud = Cloud(
            values.region,
            sleep=lambda seconds: time.sleep(seconds / faster),
            timeout=timeout,
        )
        return AWS(values, tmp_path, cloud=cloud, my_ip=my_ip)

    return make


@pytest.fixture
def provider(make_provider: MakeProvider) -> AWS:
    """A provider whose settings are the defaults."""
    return make_provider()


@pytest.fixture
def make_request(keys: Keys) -> MakeRequest:
    """A function that returns a new request; *spot* and *zone* change its offer."""
    make = request_maker(keys, OFFER, base="ubuntu-24.04")

    def make_request(
        *, spot: bool = False, zone: str = "us-east-1a", **changes: object
    ) -> Request:
        price = 0.03 if spot else OFFER.machine_on_demand
        offer = dataclasses.replace(OFFER, machine_price=price, spot=spot, place=zone)
        return make(**{"offer": offer, **changes})

    return make_request
