"""
Let the user's own ssh reach boxes by a name such as onebox-census.

Each box has a file HOST in the folder of its state, which exists as long as the box.
One Include line in the user's configuration makes ssh read these files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from onebox.errors import OneboxError, UsageError
from onebox.providers.values import Box
from onebox.remote.ssh_config import host_entry
from onebox.store.atomic_files import private_dir, read_regular, write_atomically

HOST = "host.conf"
KNOWN_HOSTS = "host.known"
# ssh would interpret these characters in the path of an Include line.
_INTERPRETED = re.compile(r"[\"*?\[\]{}%$\\\n]")


class Alias:
    """
    The name of a box for the user's own ssh, and the files that define it.

    Args:
        directory: The folder of the box's ssh files.

        names: The name, and another one if the files of another box have the first.

        state: The folder that all files of all boxes are below.

    Attributes:
        name: The name that `ssh` takes, such as onebox-census.
    """

    def __init__(self, directory: Path, names: tuple[str, str], state: Path) -> None:
        self.name = names[0]
        self._names = names
        self._directory = directory
        self._state = state
        self._box: Box | None = None

    def lead_to(self, box: Box, ssh_key_file: Path) -> None:
        """Write the files for *box*, unless they are up to date."""
        if self._box == box:
            return
        self._box = box
        others = {
            name
            for path in _files(self._state)
            if path.parent != self._directory
            for name in _names(path)
        }
        self.name = self._names[1] if self._names[0] in others else self._names[0]
        keys = [" ".join(line.split()[:2]) for line in box.host_key.splitlines()]
        known_hosts = self._directory / KNOWN_HOSTS
        texts = {
            KNOWN_HOSTS: "".join(f"{box.id} {key}\n" for key in keys),
            HOST: host_entry(self.name, box, known_hosts, ssh_key_file),
        }
        private_dir(self._directory)
        for name, text in texts.items():
            if _read(self._directory / name) != os.fsencode(text):
                write_atomically(self._directory / name, os.fsencode(text))

    def remove(self, box_id: str = "") -> None:
        """Remove the files if they are of this box; "" means any box."""
        self._box = None
        entry = os.fsdecode(_read(self._directory / HOST) or b"")
        if box_id and f"  HostKeyAlias {box_id}\n" not in entry:
            return
        for name in (HOST, KNOWN_HOSTS):
            with contextlib.suppress(OSError):
                (self._directory / name).unlink(missing_ok=True)


def install(folder: Path, state: Path) -> bool:
    """
    Put the Include line at the top of the user's configuration.

    The line must be the first one, because ssh uses the first value that it reads.

    Args:
        folder: The folder of the user's own ssh configuration.

    Returns:
        Whether the file has been changed.

    Raises:
        UsageError: The configuration is a link, through which onebox does not write, or
            it has several names, of which only one would change, or is no file.
    """
    line = include_line(state)
    path = folder / "config"
    by_hand = f"add this line at its top: {line}"
    before = _read_config(path, by_hand)
    lines = (before or b"").splitlines(keepends=True)
    first = lines[0] if lines and _is_ours(lines[0], line) else f"{line}\n".encode()
    return _replace(path, before, first + _without(lines, line), by_hand)


def uninstall(folder: Path, state: Path) -> bool:
    """Take the Include line away; return whether it was there. Raises UsageError."""
    line = include_line(state)
    path = folder / "config"
    by_hand = f"remove this line: {line}"
    before = _read_config(path, by_hand)
    if before is None:
        return False
    after = _without(before.splitlines(keepends=True), line)
    return _replace(path, before, after, by_hand)


def is_installed(folder: Path, state: Path) -> bool:
    """Return whether the user's own ssh may reach boxes by their names."""
    with contextlib.suppress(OneboxError):
        line = include_line(state)
        config = _read(folder / "config") or b""
        return any(_is_ours(one, line) for one in config.splitlines())
    return False


def include_line(state: Path) -> str:
    """Return the line that makes ssh read the files of all boxes."""
    if _INTERPRETED.search(str(state)):
        raise OneboxError(
            f"ssh cannot include files from {str(state)!r}",
            next="set ONEBOX_STATE to a folder with a plain name",
        )
    return f'Include "{state}/projects/*/*/ssh/{HOST}"'


def _files(state: Path) -> Iterator[Path]:
    return state.glob(f"projects/*/*/ssh/{HOST}")


def _names(path: Path) -> list[str]:
    first = os.fsdecode(_read(path) or b"").partition("\n")[0]
    return first.split()[1:]


def _read(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        return read_regular(path)
    return None


def _read_config(path: Path, by_hand: str) -> bytes | None:
    """Return the content of the user's configuration, None if there is none."""
    if path.is_symlink():
        raise UsageError(
            f"{path} is a link, and onebox does not write through a link", next=by_hand
        )
    try:
        return read_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENXIO, errno.EISDIR):
            raise
        raise UsageError(f"{path} is no regular file", next="move it away") from None


def _replace(path: Path, before: bytes | None, after: bytes, by_hand: str) -> bool:
    """Write the user's configuration, with the owner and the mode that it had."""
    if before == after:
        return False
    private_dir(path.parent)
    if before is None:
        write_atomically(path, after)
        return True
    st = path.stat()
    if st.st_nlink > 1:
        raise UsageError(
            f"{path} has another name (a hard link), which would keep the old text",
            next=by_hand,
        )
    mode, owner = st.st_mode & 0o777, (st.st_uid, st.st_gid)
    write_atomically(path, after, mode, owner)
    return True


def _without(lines: Iterable[bytes], line: str) -> bytes:
    return b"".join(one for one in lines if not _is_ours(one, line))


def _is_ours(found: bytes, line: str) -> bool:
    """Return whether *found* is the Include line, also with a comment after it."""
    ours, text = line.encode(), found.strip()
    rest = text[len(ours) :].lstrip()
    return text.startswith(ours) and (not rest or rest.startswith(b"#"))
