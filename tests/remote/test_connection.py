"""Connecting to a box with the right keys, and without the user's ssh settings."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import shutil
import socket
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from onebox import agent_bundle
from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    HostKeyMismatch,
    OneboxError,
)
from onebox.remote import connection
from onebox.remote import keys as owner_keys
from tests.fakes.relay import Relay
from tests.fakes.sshd import OpenSsh, Server
from tests.providers.sshbox import Keys, wait_until
from tests.remote.steps import OpenDoor, box_at, needs_sshd, never


def test_connection_accepts_the_pinned_host_key(
    ssh: connection.SSHConnection, server: Server
) -> None:
    """The first connection accepts the pinned key, and the right box answers."""
    assert ssh.channel().request("hello")["box"] == server.box.id
    assert ssh.channel() is ssh.channel()


def test_agent_of_another_version_is_replaced(
    server: Server, open_ssh: OpenDoor
) -> None:
    """A box with the agent of another version gets the current one, and keeps it."""
    pyz = server.pyz
    with zipfile.ZipFile(pyz, "a") as archive:
        archive.writestr("agent/of_old.py", "")
    assert pyz.read_bytes() != agent_bundle.bundle()

    answer = open_ssh(server.box).channel().request("hello")

    assert agent_bundle.version() == answer["agent"]
    assert pyz.read_bytes() == agent_bundle.bundle()


def test_wrong_host_key_ends_the_connection_before_authentication(
    server: Server, relay: Relay, keys: Keys, open_ssh: OpenDoor
) -> None:
    """With another host key, neither a user name nor a key is offered."""
    stranger = dataclasses.replace(
        server.at(relay.port), host_key=keys.public("stranger")
    )
    before = server.log.stat().st_size
    with pytest.raises(HostKeyMismatch) as caught:
        open_ssh(stranger).open_when_up(60, never, never)
    assert caught.value.code == 76
    sent = relay.to_server
    # No more than what ssh sends unencrypted before it has checked the host key.
    assert 0 < sent < 3000
    assert b"userauth-request" not in server.log.read_bytes()[before:]
    open_ssh(server.at(relay.port)).channel()
    assert relay.to_server - sent > sent
    if isinstance(server, OpenSsh):
        assert b"userauth-request" in server.log.read_bytes()[before:]


def test_refused_user_key_fails_after_the_grace_time(
    server: Server, open_ssh: OpenDoor
) -> None:
    """A refused key is retried for the grace time only."""
    ssh = open_ssh(server.box, key="stranger")
    with pytest.raises(ConnectionLost, match="Permission denied"):
        ssh.channel()
    ticks: list[float] = []
    with pytest.raises(BoxFailed, match="does not accept our ssh key"):
        ssh.open_when_up(60, never, lambda: ticks.append(1), grace=0.2)
    assert ticks


@needs_sshd
def test_wait_retries_until_the_box_has_our_key(
    sshd: OpenSsh, open_ssh: OpenDoor
) -> None:
    """A key that is installed after sshd has started is waited for."""
    keys_file = sshd.root.parent / "authorized_keys"
    late = keys_file.rename(keys_file.with_name("late"))
    ssh = open_ssh(sshd.box)

    def tick() -> None:
        if late.exists():
            late.rename(keys_file)

    assert ssh.open_when_up(60, never, tick).request("hello")["box"] == sshd.box.id


def test_wait_retries_until_the_port_opens(server: Server, open_ssh: OpenDoor) -> None:
    """A closed port is tried again until it opens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with contextlib.ExitStack() as later:

        def tick() -> None:
            with contextlib.suppress(OSError):
                later.enter_context(Relay(server.box.port, at=port))

        ssh = open_ssh(server.at(port))
        link = ssh.open_when_up(60, never, tick)
        assert link.request("hello")["box"] == server.box.id
        ssh.forget()


@pytest.mark.parametrize("how", ["closed", "mute", "chatty"])
def test_wait_ends_at_its_timeout(how: str, keys: Keys, open_ssh: OpenDoor) -> None:
    """
    The wait ends at its timeout for a closed port, a silent server and a wrong one.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        box = box_at(listener.getsockname()[1], keys)
        if how == "chatty":
            threading.Thread(target=greet_all, args=[listener], daemon=True).start()
        elif how == "closed":
            listener.close()
        with pytest.raises(BoxFailed, match="did not answer within 1 s"):
            open_ssh(box).open_when_up(1, never, never)
        if how == "chatty":
            listener.shutdown(socket.SHUT_RDWR)


def test_wait_ends_when_the_box_is_gone(keys: Keys, open_ssh: OpenDoor) -> None:
    """An exception of the `alive` callback ends the wait at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        box = box_at(taken.getsockname()[1], keys)

    def gone() -> None:
        raise BoxFailed("gone")

    with pytest.raises(BoxFailed, match=r"^gone$"):
        open_ssh(box).open_when_up(3600, gone, never)


def test_wait_ends_for_a_box_that_is_silent_after_the_handshake(
    server: Server, relay: Relay, open_ssh: OpenDoor
) -> None:
    """A box that becomes silent after the handshake ends the wait, too."""
    ssh = open_ssh(server.at(relay.port))
    ssh.channel()
    relay.stall()
    second = open_ssh(server.at(relay.port))
    with pytest.raises(ConnectionLost, match="does not answer"):
        # It uses the shared connection, which has stalled.
        second.channel(within=1.0)
    assert second.channel().request("hello")["box"] == server.box.id
    assert relay.opened == 2


@needs_sshd
def test_ssh_settings_of_the_user_are_not_used(
    sshd: OpenSsh,
    open_ssh: OpenDoor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No ssh configuration, agent or known_hosts of the user or the system is used."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    trap = tmp_path / "trapped"
    (home / ".ssh" / "config").write_text(f"Host *\nProxyCommand touch {trap}\n")
    monkeypatch.setenv("HOME", str(home))
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(home / "agent"))
        agent.listen()
        agent.settimeout(0)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
        ssh = open_ssh(sshd.box)
        ssh.channel()
        with pytest.raises(BlockingIOError):
            agent.accept()
    assert not trap.exists()
    options = subprocess.check_output(
        ["ssh", "-G", *ssh.argv()[1:]], text=True
    ).splitlines()
    real = {line.split()[0]: line.partition(" ")[2] for line in options}
    assert "proxycommand" not in real
    assert real["userknownhostsfile"].strip('"') == str(ssh.directory / "known_hosts")
    assert real["globalknownhostsfile"] == "/dev/null"
    assert real["identityagent"] == "none"
    assert sum(line.startswith("identityfile ") for line in options) == 1


@needs_sshd
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_ssh_opens_no_file_of_the_user(
    sshd: OpenSsh, open_ssh: OpenDoor, tmp_path: Path
) -> None:
    """ssh opens no file in ~/.ssh or /etc/ssh."""
    ssh = open_ssh(sshd.box)
    trace = tmp_path / "trace"
    calls = ["strace", "-f", "-o", str(trace), "-e", "trace=open,openat"]
    subprocess.run(
        [*calls, *ssh.argv("-o", "ControlMaster=no"), "true"],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    opened = trace.read_text()
    assert str(ssh.config) in opened
    assert "/.ssh/" not in opened
    assert "/etc/ssh/" not in opened


@pytest.mark.parametrize(
    "change",
    [
        {"id": "-oProxyCommand=x"},
        {"id": "a b"},
        {"id": "a\nb"},
        {"host": "h\n  ProxyCommand x"},
        {"host": "-oX"},
        {"user": "u\n  ProxyCommand x"},
        {"user": ""},
    ],
)
def test_id_host_or_user_that_ssh_could_misread_is_refused(
    change: dict[str, Any], keys: Keys, open_ssh: OpenDoor
) -> None:
    """An id, host or user that is not a plain word is never passed to ssh."""
    box = dataclasses.replace(box_at(1, keys), **change)
    with pytest.raises(OneboxError):
        open_ssh(box)


@needs_sshd
def test_path_of_the_agent_is_quoted_for_the_shell(
    sshd: OpenSsh, tmp_path: Path, open_ssh: OpenDoor
) -> None:
    """Special characters in the agent's path are not interpreted by the box's shell."""
    odd = tmp_path / "$(touch trap) '`;&"
    sshd.root.rename(odd)
    box = dataclasses.replace(sshd.box, agent=str(odd / "agent.pyz"))
    assert open_ssh(box).channel().request("hello")["box"] == sshd.box.id
    assert list(tmp_path.rglob("trap")) == []


def test_missing_openssh_client_names_what_to_install(
    keys: Keys, open_ssh: OpenDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an OpenSSH client, one error names what to install."""
    ssh = open_ssh(box_at(1, keys))
    monkeypatch.setenv("PATH", str(tmp_path))
    for what in (ssh.channel, lambda: owner_keys.ssh_key_file(tmp_path / "own")):
        with pytest.raises(OneboxError, match="no OpenSSH client") as caught:
            what()
        assert not isinstance(caught.value, ConnectionLost)
        assert "install" in caught.value.next


def test_secrets_stay_off_the_disk_and_the_command_line(
    ssh: connection.SSHConnection, server: Server
) -> None:
    """A secret is sent in a frame; no local file and no command line contains it."""
    word = secrets.token_hex(16)
    (server.work / "out").mkdir()
    ssh.channel().request(
        "start",
        job="j-1",
        shell="echo $WORD > out/word; sleep 60",
        env={},
        secrets={"WORD": word},
        outputs=[],
        cancel_grace=1,
    )
    for _ in range(3):
        ssh.close(force=True)
        ssh.channel()
    wait_until(lambda: (server.work / "out" / "word").exists())
    for path in ssh.directory.iterdir():
        assert word not in path.read_text()
    assert len(list(ssh.directory.iterdir())) == 2
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert word.encode() not in path.read_bytes()
    ssh.channel().request("cancel", job="j-1")


def greet_all(listener: socket.socket) -> None:
    """Send each client a greeting that is not ssh's."""
    while True:
        try:
            guest, _ = listener.accept()
        except OSError:
            return
        with guest, contextlib.suppress(OSError):
            guest.sendall(b"220 mail ready\r\n" * 2000)
