"""Create the owner's ssh key, and the host keys of new boxes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from onebox import subprocess_env
from onebox.errors import OneboxError, SetupError
from onebox.providers.values import HostKey
from onebox.store.atomic_files import clear_drafts, private_dir

# The prefix of the names of incomplete files; `store.identity` uses the same prefix.
DRAFT = ".draft-"


def ssh_key_file(directory: Path) -> Path:
    """Return the path of the owner's private ssh key; create it the first time."""
    path = private_dir(directory) / "identity"
    clear_drafts(directory, f"{DRAFT}*")
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix=DRAFT, dir=directory) as scratch:
            draft = Path(scratch) / "identity"
            _keygen(draft, "onebox")
            # An old public key file is removed, because ssh would offer the key in it
            # even if it belongs to another private key. No new public key file is
            # needed, because the private key includes its public half.
            path.with_suffix(".pub").unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
    return path


def public_half(path: Path) -> str:
    """Return the public key that belongs to the private key in the file *path*."""
    done = _ssh_keygen(["-y", "-f", str(path)])
    return done.strip()


def new_host_key(directory: Path) -> HostKey:
    """Return a new pair of host keys for a box; no copy stays on this machine."""
    with tempfile.TemporaryDirectory(
        prefix=DRAFT, dir=private_dir(directory)
    ) as scratch:
        path = Path(scratch) / "key"
        _keygen(path, "")
        public = " ".join(Path(f"{path}.pub").read_text("ascii").split()[:2])
        return HostKey(private=path.read_text("ascii"), public=public)


def require_client() -> None:
    """Raise SetupError if a program of the OpenSSH client is missing."""
    for program in ("ssh-keygen", "ssh"):
        if shutil.which(program) is None:
            raise missing_client_error(program)


def missing_client_error(program: str) -> SetupError:
    """Return the error for a missing OpenSSH client."""
    return SetupError(
        f"there is no OpenSSH client on this machine ({program} is missing)",
        next="install it, for example: apt install openssh-client",
    )


def _keygen(path: Path, comment: str) -> None:
    _ssh_keygen(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def _ssh_keygen(arguments: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            ["ssh-keygen", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=subprocess_env.environment(),
        )
    except FileNotFoundError as error:
        raise missing_client_error("ssh-keygen") from error
    if done.returncode:
        raise OneboxError(f"ssh-keygen failed: {done.stderr.strip()}")
    return done.stdout
