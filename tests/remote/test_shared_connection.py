"""One ssh connection is shared by several commands until it breaks."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from onebox.errors import (
    ConnectionLost,
)
from onebox.remote import connection
from tests.fakes.relay import Relay
from tests.fakes.sshd import Server
from tests.providers.sshbox import Keys
from tests.remote.steps import OpenDoor, check_master, start_job


def test_a_second_process_shares_the_connection(
    ssh: connection.SSHConnection, relay: Relay, keys: Keys, tmp_path: Path
) -> None:
    """Another command uses the same connection; `forget` closes it for both."""
    ssh.channel()
    assert run_client(
        ssh, keys, tmp_path, "print(ssh.channel().request('hello')['box'])"
    ) == [ssh.box.id]
    assert relay.opened == 1
    assert stat.S_ISSOCK(ssh.socket.stat().st_mode)
    ssh.forget()
    assert not ssh.socket.exists()
    assert list(ssh.directory.iterdir()) == []


@pytest.mark.parametrize("what", ["line", "master"])
def test_stalled_connection_is_not_shared_again(
    what: str, ssh: connection.SSHConnection, relay: Relay
) -> None:
    """After a stall of the network or of ssh, the next connection is a new one."""
    ssh.channel()
    master = int(check_master(ssh).split("pid=")[1].rstrip(")"))
    if what == "line":
        relay.stall()
    else:
        os.kill(master, signal.SIGSTOP)
    try:
        ssh.close(force=True)
        assert ssh.channel().request("hello")["box"] == ssh.box.id
        assert relay.opened == 2
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(master, signal.SIGKILL)


def test_dead_network_ends_a_follow(
    ssh: connection.SSHConnection, relay: Relay
) -> None:
    """If no data arrive any more, a waiting follow raises ConnectionLost."""
    text = ssh.config.read_text()
    assert "ServerAliveInterval 15\n" in text
    text = text.replace("ServerAliveInterval 15", "ServerAliveInterval 1")
    ssh.config.write_text(text.replace("CountMax 4", "CountMax 2"))
    start_job(ssh, "j-1", "sleep 60")
    link = ssh.channel()
    link.begin("follow", job="j-1", offset=0)
    relay.stall()
    with pytest.raises(ConnectionLost, match="broke"):
        link.finish()
    ssh.close(force=True)
    assert ssh.channel().request("cancel", job="j-1")["state"] == "exited"


def test_connection_is_shared_only_for_the_same_address_and_key(
    server: Server, ssh: connection.SSHConnection, relay: Relay, open_ssh: OpenDoor
) -> None:
    """A box that has moved gets a new connection."""
    ssh.channel()
    with Relay(server.box.port) as other:
        moved = open_ssh(server.at(other.port))
        moved.channel()
        assert other.opened == 1
        moved.forget()


def test_ctrl_c_does_not_reach_the_connection(
    ssh: connection.SSHConnection, keys: Keys, tmp_path: Path
) -> None:
    """SIGINT to the client's whole process group does not end the connection."""
    code = (
        # A shell's background command ignores SIGINT.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "ssh.channel()\n"
        "try: print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt: print(ssh.channel().request('hello')['box'])\n"
        "print(ssh.channel().process.poll())"
    )
    with start_client(ssh, keys, tmp_path, code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.killpg(process.pid, signal.SIGINT)
        printed = process.stdout.read().decode().split()
    assert printed == [ssh.box.id, "None"]
    assert "running" in check_master(ssh)


def test_interrupted_request_is_not_mixed_with_the_next_one(
    ssh: connection.SSHConnection, server: Server
) -> None:
    """After an interrupted request a new channel is opened."""
    first = ssh.channel()
    start_job(ssh, "j-1", "sleep 60")
    first.begin("follow", job="j-1", offset=0)
    with pytest.raises(ConnectionLost):
        first.begin("hello")
    assert ssh.channel() is not first
    assert ssh.channel().request("hello")["box"] == server.box.id
    ssh.channel().request("cancel", job="j-1")


def test_closed_channel_writes_to_no_other_file(
    ssh: connection.SSHConnection, tmp_path: Path
) -> None:
    """A closed channel never writes to a file that has its descriptor's number now."""
    link = ssh.channel()
    numbers = {link.wire.read_fd, link.wire.write_fd}
    link.close()
    files = [(tmp_path / str(n)).open("w+b", buffering=0) for n in range(4)]
    try:
        assert numbers & {file.fileno() for file in files}
        with pytest.raises(ConnectionLost):
            link.request("hello")
        assert all(file.tell() == 0 for file in files)
        assert all(os.fstat(file.fileno()).st_size == 0 for file in files)
    finally:
        for file in files:
            file.close()


def start_client(
    ssh: connection.SSHConnection, keys: Keys, scratch: Path, code: str
) -> subprocess.Popen[bytes]:
    """Start another process that runs code with an `ssh` to the same box."""
    box = scratch / "box.pickle"
    box.write_bytes(pickle.dumps(ssh.box))
    whole = (
        "import pathlib, pickle, sys, time\n"
        "from onebox.remote.connection import SSHConnection\n"
        "box, folder, key = map(pathlib.Path, sys.argv[1:])\n"
        f"ssh = SSHConnection(pickle.loads(box.read_bytes()), folder, key)\n{code}"
    )
    words = [str(box), str(ssh.directory), str(keys.directory / "user")]
    return subprocess.Popen(
        [sys.executable, "-c", whole, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def run_client(
    ssh: connection.SSHConnection, keys: Keys, scratch: Path, code: str
) -> list[str]:
    """Run code in another process to its end; return the words that it prints."""
    with start_client(ssh, keys, scratch, code) as process:
        out = process.communicate()[0]
    assert process.returncode == 0
    return out.decode().split()
