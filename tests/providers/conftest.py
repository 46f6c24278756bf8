"""Fixtures for the tests of every provider: ssh keys, and real machines."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from onebox.remote.keys import identity as identity_file
from tests.fakes.machines.boxes import machines as machines

from .sshbox import Keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The user's key, the host key of every box, and the key of a stranger."""
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """The user's ssh key."""
    return identity_file(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _needs_ssh() -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no OpenSSH client")
    subprocess.run(["ssh", "-V"], capture_output=True, check=True)
