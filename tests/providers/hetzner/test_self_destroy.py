"""A box with a destroy token deletes its own server at its deadline."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fakes.hetzner.server import ENDING, Server

from ..boxes import MakeRequest, when_up
from ..post_boot import BoxFolders, metadata_server
from .conftest import MakeProvider

NUMBER = "/hetzner/v1/metadata/instance-id"


@pytest.fixture
def machine(tmp_path: Path) -> BoxFolders:
    """The directories of a box, with its systemd timer."""
    (tmp_path / "timer").write_text("OnActiveSec=1\nOnCalendar=@1\n")
    return BoxFolders(tmp_path)


def test_the_server_deletes_itself_with_its_address(
    server: Server,
    machine: BoxFolders,
    make_provider: MakeProvider,
    make_request: MakeRequest,
) -> None:
    """A server that is powered off would be billed."""
    provider = make_provider(destroy_token="END", environ={"END": ENDING})
    box = when_up(provider, provider.create(make_request()))
    timer = f"{machine.root}/timer"
    script = provider.post_boot_script(box).decode("ascii")
    script = script.replace("/run/systemd/system/onebox-deadline.timer", timer)
    machine.deliver(script.encode("ascii"))
    # The script also sets the deadline of the box.
    assert machine.config["deadline"] == pytest.approx(box.deadline, abs=1)
    machine.configure(**{**machine.config, "deadline": time.time() - 1})
    (machine.root / "lib" / "jobs" / "j-1").mkdir(parents=True)
    [created] = server.project.all_servers
    with metadata_server(str(created.id).encode(), path=NUMBER) as service:
        machine.end(service)
    assert not server.project.servers
    assert not server.project.all("primary_ips")
    assert machine.systemctl_calls.endswith("poweroff")
