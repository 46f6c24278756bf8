"""The owner's ssh key."""

from __future__ import annotations

import subprocess
from pathlib import Path

from onebox.remote import keys


def test_stale_public_key_file_is_replaced(tmp_path: Path) -> None:
    """
    A public key file of a killed command is not kept beside a new private key.

    OpenSSH offers the public key that lies beside a private key, even one of
    another pair, and the server would refuse it.
    """
    other = tmp_path / "other"
    other.mkdir()
    stale = keys.public_half(keys.ssh_key_file(other))
    (tmp_path / "identity.pub").write_text(f"{stale}\n")

    path = keys.ssh_key_file(tmp_path)
    # Like ssh itself, it reads the public half beside the key if there is one.
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = [
        subprocess.run(
            ["ssh-keygen", "-l", "-f", name], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        for name in (str(path), _written(tmp_path / "own.pub", shown.stdout))
    ]

    assert listed[0] == listed[1]


def test_identity_is_created_once_and_private(tmp_path: Path) -> None:
    """The key is created once, is readable by its owner only, and is reused."""
    first = keys.ssh_key_file(tmp_path).read_bytes()

    assert keys.ssh_key_file(tmp_path).read_bytes() == first
    assert (tmp_path / "identity").stat().st_mode & 0o077 == 0


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)
