"""A box that ssh reaches through a program, which is a proxy."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox import subprocess_env
from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    HostKeyMismatch,
    OneboxError,
    SetupError,
)
from onebox.images import ssh_tunnel
from onebox.providers.values import Box, Proxy
from onebox.remote import connection, failures
from onebox.remote.channel import AgentChannel
from onebox.remote.ssh_config import host_entry
from tests.fakes.sshd import OpenSsh
from tests.providers.sshbox import Keys
from tests.remote.steps import OpenDoor, needs_sshd, never

pytestmark = needs_sshd

# It passes bytes between its stdin and stdout and a port, as the tools of clouds do.
PASSES_ON = """\
import os, socket, sys, threading
far = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def send():
    while data := os.read(0, 65536):
        far.sendall(data)
threading.Thread(target=send, daemon=True).start()
while data := far.recv(65536):
    os.write(1, data)
os._exit(0)
"""
# An address that is not routed: nothing but the proxy leads to the box.
NOWHERE = "192.0.2.1"

MakeProxy = Callable[..., Box]


@pytest.fixture
def by_proxy(
    sshd: OpenSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MakeProxy:
    """A function that returns the box behind a proxy, whose shell text it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    passes_on = shlex.join([sys.executable, "-I", "-S", "-c", PASSES_ON])

    def make(
        shell: str = "", words: tuple[str, ...] = (), **fields: str | tuple[str, ...]
    ) -> Box:
        program = folder / "cloudtool"
        log = shlex.quote(str(tmp_path / "proxies"))
        program.write_text(
            f'#!/bin/sh\necho $$ "$*" >>{log}\n{shell or f"exec {passes_on} $2"}\n'
        )
        program.chmod(0o755)
        argv = ("cloudtool", "--port", str(sshd.box.port), *words)
        proxy = Proxy(argv, **fields)  # type: ignore[arg-type] # any field
        return dataclasses.replace(sshd.box, host=NOWHERE, port=22, proxy=proxy)

    return make


def proxies(tmp_path: Path) -> list[int]:
    """Return the pids of all proxies so far."""
    return [
        int(one.split()[0]) for one in (tmp_path / "proxies").read_text().splitlines()
    ]


def test_every_connection_goes_through_the_proxy(
    by_proxy: MakeProxy, open_ssh: OpenDoor, tmp_path: Path
) -> None:
    """The shared one uses one proxy, and each separate one another."""
    ssh = open_ssh(by_proxy())
    assert ssh.channel().request("hello")["box"] == ssh.box.id
    subprocess.run([*ssh.argv(), "true"], env=ssh.environment(), check=True)
    assert len(proxies(tmp_path)) == 1
    with ssh.open_separate_channel() as channel:
        assert channel.request("hello")["box"] == ssh.box.id
    assert len(proxies(tmp_path)) == 2
    with ssh_tunnel.forward(ssh, ssh.box) as (host, _):
        assert host == "127.0.0.1"
        assert len(proxies(tmp_path)) == 3


def test_packers_tunnel_to_a_loopback_address_uses_the_proxy_too(
    by_proxy: MakeProxy, open_ssh: OpenDoor, tmp_path: Path
) -> None:
    """The address only names the box."""
    ssh = open_ssh(dataclasses.replace(by_proxy(), host="127.0.0.1"))
    with ssh_tunnel.forward(ssh, ssh.box):
        assert len(proxies(tmp_path)) == 1


def test_host_key_is_pinned_through_a_proxy(
    by_proxy: MakeProxy, open_ssh: OpenDoor, keys: Keys
) -> None:
    """Another machine at the end of the proxy gets nothing."""
    box = dataclasses.replace(by_proxy(), host_key=keys.public("stranger"))
    with pytest.raises(HostKeyMismatch):
        open_ssh(box).open_when_up(60, never, never)


def test_a_proxy_that_ends_is_started_again(
    by_proxy: MakeProxy, open_ssh: OpenDoor, tmp_path: Path
) -> None:
    """The step that it has interrupted is called again."""
    ssh = open_ssh(by_proxy())
    tried: list[int] = []

    def step(channel: AgentChannel) -> str:
        tried.append(len(proxies(tmp_path)))
        if len(tried) == 1:
            os.kill(proxies(tmp_path)[-1], signal.SIGKILL)
            time.sleep(0.2)
        return str(channel.request("hello")["box"])

    assert ssh.call_resuming(step, lambda error, attempt: None) == ssh.box.id
    assert tried == [1, 2]


FAILS = """\
echo >&2; echo "WARNING: install NumPy" >&2
echo "ERROR: the target i-1 is not connected" >&2; echo "see https://x" >&2; exit 254
"""


def test_message_of_a_proxy_is_that_of_the_error(
    by_proxy: MakeProxy, open_ssh: OpenDoor
) -> None:
    """Neither its warnings, nor ssh's line about the closed connection, hide it."""
    ssh = open_ssh(by_proxy(FAILS))
    with pytest.raises(ConnectionLost) as caught:
        ssh.channel()
    text = "cloudtool: ERROR: the target i-1 is not connected"
    assert (caught.value.message, caught.value.next) == (text, "inv doctor")
    assert type(caught.value) is ConnectionLost
    left = [path.name for path in ssh.directory.iterdir()]
    assert sorted(left) == ["config", "known_hosts"]


def test_message_of_a_proxy_is_escaped(by_proxy: MakeProxy, open_ssh: OpenDoor) -> None:
    """It may quote what a stranger has sent."""
    ssh = open_ssh(by_proxy(r"printf 'error \033[31mred\n' >&2; exit 1"))
    with pytest.raises(ConnectionLost) as caught:
        ssh.channel()
    assert "\033" not in caught.value.message


def test_a_proxy_that_is_refused_ends_the_wait_for_a_box(
    by_proxy: MakeProxy, open_ssh: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another failure is one that a booting box may cause, so the wait goes on."""
    monkeypatch.setattr(connection, "REFUSED_SECONDS", 0.3)
    ssh = open_ssh(by_proxy(FAILS, refusals="AccessDenied"))
    with pytest.raises(BoxFailed, match="did not answer within 2 s") as caught:
        ssh.open_when_up(2, lambda: None, lambda: None)
    denied = "echo 'An error occurred (AccessDenied): no' >&2; exit 254"
    ssh = open_ssh(by_proxy(denied, refusals="AccessDenied"))
    with pytest.raises(BoxFailed, match="cannot be reached") as caught:
        ssh.open_when_up(240, lambda: None, lambda: None)
    assert "cloudtool: An error occurred (AccessDenied): no" in caught.value.message
    assert caught.value.next == "inv doctor"


def test_a_missing_program_is_named_before_ssh_starts(
    by_proxy: MakeProxy, open_ssh: OpenDoor
) -> None:
    """The next step is how to install it."""
    box = by_proxy(install="install the cloud's tool: https://x")
    box = dataclasses.replace(
        box,
        proxy=dataclasses.replace(box.proxy, words=("nosuchtool",)),  # type: ignore[type-var] # it is set
    )
    with pytest.raises(SetupError, match="nosuchtool") as caught:
        open_ssh(box).channel()
    assert caught.value.next == "install the cloud's tool: https://x"


@pytest.mark.parametrize(
    "word", ["", "a b", "$(id)", "a;b", "%h", "'", '"', "a\nb", "-oX", "~", "*", "=ls"]
)
def test_a_word_that_a_shell_could_interpret_is_refused(
    by_proxy: MakeProxy, open_ssh: OpenDoor, word: str
) -> None:
    """ssh gives the command to a shell, and expands "%" itself."""
    with pytest.raises(OneboxError, match="ssh cannot connect by"):
        open_ssh(by_proxy(words=(word,)))


def test_only_a_proxy_gets_hidden_variables_and_only_those_it_needs(
    by_proxy: MakeProxy,
    open_ssh: OpenDoor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user may pass the credentials of the cloud to the job as secrets."""
    monkeypatch.setattr(subprocess_env, "_secrets", set())
    for name in ("CLOUD_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "x")
    subprocess_env.hide(["CLOUD_KEY", "HF_TOKEN"])
    shell = f"env >{shlex.quote(str(tmp_path))}/env; exit 1"
    ssh = open_ssh(by_proxy(shell, variables=("CLOUD_",)))
    with pytest.raises(ConnectionLost):
        ssh.channel()
    seen = (tmp_path / "env").read_text()
    assert "CLOUD_KEY=x\n" in seen
    assert "HF_TOKEN" not in seen
    assert "CLOUD_KEY" not in subprocess_env.environment()


def test_users_own_ssh_goes_through_the_proxy(
    by_proxy: MakeProxy, keys: Keys, tmp_path: Path
) -> None:
    """The entry of `inv ssh --install` has the command itself, for any shell."""
    box = by_proxy()
    known = tmp_path / "known"
    known.write_text(f"{box.id} {keys.public('host')}\n")
    config = tmp_path / "config"
    key = keys.directory / "user"
    config.write_text(host_entry("onebox-census", box, known, key))
    port = dict(line.split(None, 1) for line in config.read_text().splitlines())
    assert port["ProxyCommand"] == " ".join(box.proxy.words if box.proxy else ())
    argv = ["ssh", "-F", str(config), "onebox-census", "echo here"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "here\n"
    assert len(proxies(tmp_path)) == 1


def test_messages_of_a_proxy_are_private(
    by_proxy: MakeProxy, open_ssh: OpenDoor, tmp_path: Path
) -> None:
    """They are in a file of the user's, which is removed."""
    mode = shlex.quote(str(tmp_path / "mode"))
    ssh = open_ssh(by_proxy(f'stat -c %a "$ONEBOX_PROXY_MESSAGES" >{mode}; exit 1'))
    with pytest.raises(ConnectionLost):
        ssh.channel()
    assert (tmp_path / "mode").read_text() == "600\n"
    assert not stat.S_IMODE(ssh.directory.stat().st_mode) & 0o077


def test_failure_without_a_message_is_the_connections_own() -> None:
    """ssh's own line says nothing about the cause."""
    proxy = Proxy(("cloudtool",))
    lines = ["kex_exchange_identification: Connection closed by remote host"]
    error = failures._by_proxy(proxy, lines, ConnectionLost("the connection broke"))
    assert error.message == "cloudtool: the connection broke"
