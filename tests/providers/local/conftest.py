"""A local provider, and boxes of it that are reached by the system's ssh."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.providers.local import box_processes, power
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from tests.box_reaper import ends_with_us

from ..boxes import MakeRequest, request_maker
from ..sshbox import Keys, SshBox
from ..tables import table

OpenBox = Callable[..., SshBox]


@pytest.fixture(autouse=True, scope="package")
def _as_for_users() -> Iterator[None]:
    """Start boxes as for users: other tests fork the processes of a box."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(power, "subprocess", subprocess)
        yield


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory outside /tmp, which a box may write to, as the user's own is."""
    with tempfile.TemporaryDirectory(prefix="onebox-", dir="/var/tmp") as path:
        ends_with_us(Path(path))
        yield Path(path)


@pytest.fixture
def make_request(keys: Keys) -> MakeRequest:
    """A function that returns a new request, as the provision stage makes it."""
    return request_maker(keys)


@pytest.fixture
def open_box(place: Path, keys: Keys) -> Iterator[OpenBox]:
    """A function that creates a box and returns ssh to it; deleted afterwards."""
    yield from boxes(place, keys)


@pytest.fixture(scope="module")
def box(keys: Keys) -> Iterator[SshBox]:
    """A running box that the tests of a module share: they must not change it."""
    with tempfile.TemporaryDirectory(prefix="onebox-", dir="/var/tmp") as path:
        ends_with_us(Path(path))
        for open_box in boxes(Path(path), keys):
            yield open_box()


def boxes(place: Path, keys: Keys) -> Iterator[OpenBox]:
    """Yield a function that creates boxes in *place*; delete them at the end."""
    make_request = request_maker(keys)
    opened: list[SshBox] = []

    def open_box(
        settings: dict[str, object] | None = None, **changes: object
    ) -> SshBox:
        local = Local(table(LocalSettings, settings or {}), place / "root")
        box = local.create(make_request(**changes))
        opened.append(SshBox(local, box, keys))
        return opened[-1]

    yield open_box
    for one in opened:
        one.close()
        present = one.local.get(one.box.id)
        if present is not None:
            one.local.delete(present)
        assert not one.local.leftovers(one.box.id)
        assert not box_processes.marked(one.box.id)
