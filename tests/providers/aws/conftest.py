"""An AWS account over HTTP, a provider that is pointed at it, and requests."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.providers.aws.provider import AWS
from onebox.providers.aws.settings import Settings
from onebox.providers.base import BootConfig, Box, HostKey, Offer, Request, Tags
from onebox.providers.kernel.metadata import without_comment
from tests.fakes.ec2.account import Account

from ..sshbox import Keys
from ..tables import table

MakeProvider = Callable[..., AWS]
MakeRequest = Callable[..., Request]

# The product waits as it would; so much faster goes the time in these tests.
FASTER = 40.0
HERE = "198.51.100.7"


@pytest.fixture(scope="session")
def _the_account() -> Iterator[tuple[Account, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        account = Account()
        with account.serving() as url:
            yield account, url


@pytest.fixture
def account(_the_account: tuple[Account, str]) -> Iterator[Account]:
    """The account, in which all goes well; what a test has made go wrong ends."""
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
    """The user's own variables: credentials, and where AWS is."""
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
def make_provider(account: Account, aws_environment: str, tmp_path: Path) -> MakeProvider:
    """A function that returns a provider; keywords are settings of [aws]."""

    def make(
        kind: type[AWS] = AWS,
        timeout: float = 20.0,
        here: str = HERE,
        faster: float = FASTER,
        address: Callable[[], str] | None = None,
        **settings: object,
    ) -> AWS:
        values = {"ssh_cidr": "198.51.100.7/32", **settings}
        return kind(
            table(Settings, values),
            tmp_path,
            sleep=lambda seconds: time.sleep(seconds / faster),
            my_ip=address or (lambda: here),
            timeout=timeout,
        )

    return make


@pytest.fixture
def provider(make_provider: MakeProvider) -> AWS:
    """A provider with plain settings."""
    return make_provider()


@pytest.fixture
def make_request(keys: Keys) -> MakeRequest:
    """A function that returns a new request, as the provision stage makes it."""
    stem = secrets.token_hex(4)
    numbers = itertools.count(1)

    def make(
        *, spot: bool = False, zone: str = "us-east-1a", **changes: object
    ) -> Request:
        deadline, public = time.time() + 3600, keys.public("host")
        request = Request(
            box=f"ob-{stem}{next(numbers):02}",
            tags=Tags(f"owner-{stem}", "project", "main", deadline, "0"),
            offer=Offer(
                "small",
                "m7i.large",
                2,
                8 << 30,
                0.03 if spot else 0.1008,
                0.1008,
                spot,
                zone,
                1,
                "x86_64",
            ),
            image=None,
            user_key=keys.public("user"),
            host_key=HostKey(keys.private("host"), without_comment(public)),
            boot_config=BootConfig(deadline, 2700, 1800, b"agent", b"seed"),
            base="ubuntu-24.04",
        )
        return dataclasses.replace(request, **changes)  # type: ignore[arg-type]

    return make


def up(provider: AWS, box: Box, pause: float = 1.0) -> Box:
    """Wait until a box runs; return it as it is then."""
    until = time.monotonic() + 120
    while box.state == "starting":
        assert time.monotonic() < until
        time.sleep(pause / FASTER)
        box = provider.get(box.id, box.place) or box
    return box
