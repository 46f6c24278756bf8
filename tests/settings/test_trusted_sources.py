"""Where a setting may come from that decides where the user's credentials go."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from onebox.errors import ConfigError
from onebox.settings import InvokeLevel, Places, load
from tests.conftest import Project

URL = "http://127.0.0.1:1234"
SETTINGS = [
    ("gcp", "endpoint", URL, "your credentials are sent there"),
    ("gcp", "billing_endpoint", URL, "your credentials are sent there"),
    ("gcp", "iam_endpoint", URL, "your credentials are sent there"),
    ("hetzner", "destroy_token", "AWS_KEY", "it names a credential of yours"),
    ("digitalocean", "destroy_token", "AWS_KEY", "it names a credential of yours"),
]


@pytest.mark.parametrize(("table", "key", "value", "why"), SETTINGS)
@pytest.mark.parametrize("profile", ["", "profile.gpu."])
def test_project_cannot_send_credentials_anywhere(
    tmp_path: Path, table: str, key: str, value: str, why: str, profile: str
) -> None:
    """The error names the file, the key, and where the user can set it."""
    text = f'[{profile}{table}]\n{key} = "{value}"\n'
    (tmp_path / "onebox.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {}, {})

    label = f"[{profile}{table}] {key}"
    expected = f"onebox.toml:2: {label}: a project cannot set it, because {why}"
    assert expected == caught.value.message
    assert "~/.config/onebox/config.toml" in caught.value.next
    assert f"ONEBOX_{table}_{key}".upper() in caught.value.next
    (tmp_path / "onebox.toml").write_text(text.replace(value, ""))
    load(tmp_path, {}, {})


@pytest.mark.parametrize(("table", "key", "value", "why"), SETTINGS)
def test_user_can_send_credentials_anywhere(
    tmp_path: Path, table: str, key: str, value: str, why: str
) -> None:
    """The user-wide file, a variable and Invoke's user-wide configuration count."""
    user = tmp_path / "config.toml"
    user.write_text(f'[{table}]\n{key} = "{value}"\n')
    variable = {f"ONEBOX_{table}_{key}".upper(): value}
    values = {table: {key: value}}
    own = InvokeLevel("~/.invoke.yaml", True, values)
    for environ, places in (
        ({}, Places(user_file=user)),
        (variable, Places()),
        ({}, Places(invoke=(own,))),
    ):
        settings = load(tmp_path, environ, {}, places)
        assert value == getattr(settings.providers[table], key)
    theirs = InvokeLevel("invoke.yaml", False, values)
    with pytest.raises(ConfigError, match=f"invoke.yaml.*{why}"):
        load(tmp_path, {}, {}, Places(invoke=(theirs,)))


@pytest.fixture
def thief() -> Iterator[tuple[str, list[str]]]:
    """A server, and the requests that it gets."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(str(self.headers))
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("task", ["status", "plan", "doctor", "offers"])
def test_no_command_sends_a_token_to_an_address_of_the_project(
    project: Project, thief: tuple[str, list[str]], task: str
) -> None:
    """A command that only reads sends nothing to an address that a clone names."""
    address, requests = thief
    project.write("onebox.toml", f'provider = "gcp"\n[gcp]\nendpoint = "{address}"\n')
    done = project.inv(task)

    assert 78 == done.code
    assert "onebox.toml:3: [gcp] endpoint: a project cannot set it" in done.err
    assert [] == requests


@pytest.mark.parametrize("folder", ["~", "/", "~/.ssh", "~/.aws/sso", "~/.config"])
def test_local_box_reads_no_credentials(tmp_path: Path, folder: str) -> None:
    """[local] read cannot name the folders in which programs keep credentials."""
    (tmp_path / "onebox.toml").write_text(f'[local]\nread = ["{folder}"]\n')
    with pytest.raises(ConfigError, match=r"programs keep credentials|would expose"):
        load(tmp_path, {"HOME": str(Path.home())}, {})
    (tmp_path / "onebox.toml").write_text(
        '[local]\nread = ["~/datasets", "/data", "~/.cache/models"]\n'
    )
    load(tmp_path, {"HOME": str(Path.home())}, {})
