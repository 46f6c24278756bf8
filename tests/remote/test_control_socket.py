"""The folder of ssh's sockets is private, and its path is short enough."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import pytest

from onebox.errors import (
    OneboxError,
)
from onebox.store import ssh_sockets
from tests.fakes.sshd import Server
from tests.remote.steps import OpenDoor


def test_socket_path_is_short_enough_for_any_tmpdir(
    server: Server,
    open_ssh: OpenDoor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long TMPDIR and the box's id are, the socket's path is short enough."""
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    named = dataclasses.replace(server.box, id="b" * 64)
    ssh = open_ssh(named)
    ssh.channel()
    assert ssh.socket.exists()
    # ssh makes the socket under a name that is 17 characters longer.
    assert len(os.fsencode(ssh.socket)) + 17 < 104
    assert f"/onebox-{os.getuid()}/" in str(ssh.socket)


def make_unsafe(path: Path, how: str) -> None:
    """Change a socket folder so that it must not be used."""
    if how == "open":
        path.chmod(0o777)
    elif how == "file":
        path.rmdir()
        path.touch()
    elif how == "link":
        path.rmdir()
        path.symlink_to(tempfile.mkdtemp(dir=path.parent))
    elif os.getuid() == 0:
        os.chown(path, 1, 1)
    else:
        pytest.skip("only root can make a folder that is another user's")


@pytest.mark.parametrize("where", ["TMPDIR", "XDG_RUNTIME_DIR"])
@pytest.mark.parametrize("how", ["open", "link", "file", "foreign"])
def test_socket_folder_that_others_can_enter_or_own_is_skipped(
    where: str, how: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A folder that others can enter or have created is not used.

    The next candidate is used, at the latest the one below the state directory.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    environ = {"ONEBOX_STATE": str(short_path / "state"), where: str(short_path)}
    name = "onebox" if where == "XDG_RUNTIME_DIR" else f"onebox-{os.getuid()}"
    path = short_path / name
    assert ssh_sockets.socket_dir(environ) == path
    make_unsafe(path, how)
    found = ssh_sockets.socket_dir(environ)
    assert found != path
    assert found.lstat().st_mode & 0o777 == 0o700


def test_sockets_are_below_the_state_directory_if_no_tmp_folder_is_safe(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another user owns all names in /tmp, the state directory is used."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    monkeypatch.setattr(ssh_sockets, "SHARED_TMP", short_path)
    make_unsafe(ssh_sockets.socket_dir({}), "open")
    environ = {"ONEBOX_STATE": str(short_path / "state")}
    assert ssh_sockets.socket_dir(environ) == short_path / "state" / "ssh"
    environ = {"ONEBOX_STATE": str(short_path / ("long" * 20))}
    with pytest.raises(OneboxError, match=r"open to others; .*is too long") as caught:
        ssh_sockets.socket_dir(environ)
    assert "TMPDIR" in caught.value.next


def test_the_longest_socket_folder_is_short_enough_for_ssh(
    server: Server,
    open_ssh: OpenDoor,
    short_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ssh can create its socket in the longest folder that is accepted."""
    runtime = short_path / (
        "r" * (ssh_sockets.FOLDER_BYTES - len(f"{short_path}//onebox"))
    )
    runtime.mkdir()
    found = ssh_sockets.socket_dir({"XDG_RUNTIME_DIR": str(runtime)})
    assert len(str(found)) == ssh_sockets.FOLDER_BYTES
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    box = dataclasses.replace(server.box, id=f"box-{'x' * 10}")
    way = open_ssh(box)
    way.channel()
    assert way.socket.parent == found
    assert len(way.socket.name) == 27
    assert way.socket.exists()
