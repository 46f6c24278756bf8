"""A request whose connection broke may be done; one that was never sent is not."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from onebox import agent_bundle
from onebox.errors import ConfigError, NotAllowed, OneboxError, Throttled, Unclear
from onebox.providers.slurm.login_node import NO_AGENT, LoginNode
from onebox.providers.slurm.settings import SlurmSettings


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `ssh`, which runs instead of OpenSSH's."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "ssh"
    path.touch(0o700)
    return path


def error_of(op: str) -> OneboxError:
    """Return the error of a request to the login node."""
    with pytest.raises(OneboxError) as raised:
        LoginNode(SlurmSettings(host="login")).call(op)
    return raised.value


@pytest.mark.parametrize("op", ["save", "delete", "create", "power", "delete_image"])
@pytest.mark.parametrize(
    "message",
    [
        "",
        "Shared connection to login closed.",
        "client_loop: send disconnect: Broken pipe",
        "Timeout, server login not responding.",
        "Connection closed by 10.0.0.1 port 22",
        "mux_client_read_packet: read header failed: Broken pipe",
    ],
)
def test_change_whose_connection_broke_may_be_done_or_not(
    ssh: Path, op: str, message: str
) -> None:
    """So the builder of an image stays, for example."""
    ssh.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(message)} >&2; exit 255\n")
    error = error_of(op)

    assert type(error) is Unclear
    assert f"{op} may be done or not" in error.message
    assert message in error.message


def test_what_the_login_has_printed_shows_that_it_was_reached(ssh: Path) -> None:
    """Its files may print a message of another ssh."""
    line = "ssh: connect to host other port 22: Connection refused"
    ssh.write_text(f"#!/bin/sh\necho hello; echo {line} >&2; exit 255\n")

    assert type(error_of("save")) is Unclear


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("ssh: connect to host login port 22: Connection refused", Throttled),
        ("ssh: connect to host login port 22: Connection timed out", Throttled),
        ("Connection timed out during banner exchange", Throttled),
        ("kex_exchange_identification: read: Connection reset by peer", Throttled),
        ("ssh: Could not resolve hostname login: Name unknown", ConfigError),
        ("me@login: Permission denied (publickey,password).", NotAllowed),
    ],
)
def test_request_that_was_not_sent_is_not_done(
    ssh: Path, message: str, kind: type[OneboxError]
) -> None:
    """These messages come before ssh sends the command."""
    ssh.write_text(f"#!/bin/sh\necho {shlex.quote(message)} >&2; exit 255\n")
    error = error_of("save")

    assert type(error) is kind
    assert message in error.message


def test_request_whose_agent_could_not_be_sent_is_not_done(
    ssh: Path, tmp_path: Path
) -> None:
    """The agent is sent before the request is repeated."""
    ssh.write_text(
        f'#!/bin/sh\n[ "$1" = -G ] && exit\n[ -e {tmp_path}/second ] && exit 255\n'
        f"touch {tmp_path}/second; exit {NO_AGENT}\n"
    )

    assert type(error_of("save")) is Throttled


@pytest.fixture
def shell(ssh: Path, tmp_path: Path) -> LoginNode:
    """A login node that is a shell of this machine; `cut` there cuts uploads off."""
    ssh.write_text(
        "#!/bin/sh\n"
        "for last; do :; done\n"
        f"case $last in *copyfileobj*) [ -e {tmp_path}/cut ] && "
        '{ head -c 1000 | sh -c "$last"; exit 255; };; esac\n'
        'exec sh -c "$last"\n'
    )
    return LoginNode(SlurmSettings(host="login", root=str(tmp_path / "root")))


def test_agent_whose_upload_was_cut_off_is_sent_again(
    shell: LoginNode, tmp_path: Path
) -> None:
    """The input of an upload ends like a complete one if the connection breaks."""
    (tmp_path / "cut").touch()
    with pytest.raises(Throttled):
        shell.call("find", owner="me")
    assert [] == list((tmp_path / "root/agents").iterdir())
    (tmp_path / "cut").unlink()

    assert [] == shell.call("find", owner="me")["boxes"]


def test_changed_ssh_configuration_leads_to_another_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that is kept open may be one to another machine."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    config, seen = tmp_path / "config", []
    for line in ("HostName 127.0.0.1", "HostName 127.0.0.2", "User other", ""):
        config.write_text(f"Host login\n{line}\n")
        node = LoginNode(SlurmSettings(host="login", ssh_config=str(config)))
        seen += [word for word in node.options() if word.startswith("ControlPath=")]

    assert 4 == len(set(seen)), seen


def test_incomplete_agent_is_replaced(shell: LoginNode, tmp_path: Path) -> None:
    """A crash of the cluster's filesystem can leave one."""
    agent = tmp_path / f"root/agents/{agent_bundle.version()}.pyz"
    agent.parent.mkdir(parents=True)
    agent.write_bytes(agent_bundle.bundle()[:1000])

    assert [] == shell.call("find", owner="me")["boxes"]
    assert agent_bundle.bundle() == agent.read_bytes()
