"""A local provider, requests for it, and the system's ssh to reach its boxes."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.providers.base import BootConfig, HostKey, Offer, Request, Tags
from onebox.providers.local import processes
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from tests.fakes.machines.boxes import machines as machines

from ..ending import ends_with_us
from .sshbox import Keys, SshBox
from .tables import table

# An agent that does nothing: the provider's tests are not the agent's.
AGENT = b"import time\ntime.sleep(3600)\n"

OpenBox = Callable[..., SshBox]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The user's key, the host key of every box, and one of a stranger."""
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory outside /tmp, which a box may write to, as a user's own is."""
    with tempfile.TemporaryDirectory(prefix="onebox-", dir="/var/tmp") as path:
        ends_with_us(Path(path))
        yield Path(path)


@pytest.fixture
def make_request(keys: Keys) -> Callable[..., Request]:
    """A function that returns a new request, as the provision stage makes it."""
    return requests(keys)


def requests(keys: Keys) -> Callable[..., Request]:
    """Return a maker of requests whose boxes have ids of equal length."""
    stem = f"box-{secrets.token_hex(4)}"
    numbers = itertools.count(1)

    def make(**changes: object) -> Request:
        now = time.time()
        request = Request(
            box=f"{stem}-{next(numbers):02}",
            tags=Tags(f"owner-{stem}", "project", "main", now + 3600, "0"),
            offer=Offer("small", "this machine", 1, 1 << 30, 0.0, 0.0),
            image=None,
            user_key=keys.public("user"),
            host_key=HostKey(keys.private("host"), keys.public("host")),
            boot_config=BootConfig(now + 3600, 600, 600, AGENT),
        )
        return dataclasses.replace(request, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def open_box(place: Path, keys: Keys) -> Iterator[OpenBox]:
    """A function that makes a box and returns ssh to it; all gone afterwards."""
    yield from boxes(place, keys)


def boxes(place: Path, keys: Keys) -> Iterator[OpenBox]:
    """Yield a maker of boxes below *place*; then remove them and prove it."""
    make = requests(keys)
    made: list[SshBox] = []

    def open_one(
        settings: dict[str, object] | None = None, **changes: object
    ) -> SshBox:
        local = Local(table(LocalSettings, settings or {}), place / "root")
        box = local.create(make(**changes))
        made.append(SshBox(local, box, keys))
        return made[-1]

    yield open_one
    for one in made:
        one.close()
        present = one.local.get(one.box.id)
        if present is not None:
            one.local.delete(present)
        assert not one.local.leftovers(one.box.id)
        assert not processes.marked(one.box.id)


@pytest.fixture(scope="session", autouse=True)
def _needs_ssh() -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no OpenSSH client")
    subprocess.run(["ssh", "-V"], capture_output=True, check=True)
