"""Fixtures for the tests of every provider: ssh keys, and real machines."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from onebox.providers import CLOUDS, PROVIDERS
from onebox.remote import keys as ssh_keys
from tests.fakes.machines.boxes import machines as machines

from .sshbox import Keys

# A library that needs a newer Python may be missing; its cloud is not tested then.
collect_ignore = [
    name for name in CLOUDS if not find_spec(PROVIDERS[name].library.partition(".")[0])
]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The user's key, the host key of every box, and the key of a stranger."""
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def ssh_key_file(tmp_path: Path) -> Path:
    """The user's ssh key."""
    return ssh_keys.ssh_key_file(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _needs_ssh() -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no OpenSSH client")
    subprocess.run(["ssh", "-V"], capture_output=True, check=True)
