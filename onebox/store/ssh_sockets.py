"""Choose a folder for the sockets of shared ssh connections."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from onebox.errors import OneboxError
from onebox.store.atomic_files import private_dir
from onebox.store.paths import state_dir

# The file name of a socket has at most this many bytes.
NAME_BYTES = 27
# The path of a socket's folder has at most this many bytes. The whole path of a socket
# has at most 103 bytes on macOS and 107 on Linux. It consists of the folder, a slash,
# the name, and 17 bytes that ssh appends while it creates the socket.
FOLDER_BYTES = 103 - 1 - NAME_BYTES - 17
SHARED_TMP = Path("/tmp")  # noqa: S108 - our folder there is checked


def socket_dir(environ: Mapping[str, str]) -> Path:
    """
    Return a short private folder for control sockets.

    Several places are tried, because in /tmp another user may have created a folder of
    our name, which we cannot remove.

    Raises:
        OneboxError: None of the places is both short and private.
    """
    refused = []
    for path in _socket_places(environ):
        if len(os.fsencode(path)) > FOLDER_BYTES:
            refused.append(f"{path} is too long")
        elif not _is_private(path):
            refused.append(f"{path} belongs to another user or is open to others")
        else:
            return path
    raise OneboxError(
        f"ssh has no folder for its sockets: {'; '.join(refused)}",
        next="mkdir -m 700 ~/t, then set TMPDIR=~/t (a short path of your own)",
    )


def _socket_places(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the possible folders for control sockets, the best one first."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir():
        yield Path(runtime) / "onebox"
    temporary = Path(tempfile.gettempdir())
    for folder in dict.fromkeys([temporary, SHARED_TMP]):
        yield folder / f"onebox-{os.getuid()}"
    yield state_dir(environ) / "ssh"


def _is_private(path: Path) -> bool:
    """Create a folder if it is missing; return whether only this user can access it."""
    try:
        private_dir(path)
        st = path.lstat()
    except OSError:
        return False
    own_folder = stat.S_ISDIR(st.st_mode) and st.st_uid == os.getuid()
    return own_folder and not st.st_mode & 0o077
