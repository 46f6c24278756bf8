"""A box with a destroy token deletes itself; no job can read the token."""

from __future__ import annotations

import dataclasses
import json
import stat
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.values import Box
from tests.fakes.digitalocean.server import ENDING, Server

from ..boxes import MakeRequest, when_up
from ..post_boot import BoxFolders, metadata_server
from .conftest import MakeProvider


@pytest.fixture
def machine(tmp_path: Path) -> BoxFolders:
    """The directories of a box."""
    return BoxFolders(tmp_path)


@pytest.fixture
def self_destroying(make_provider: MakeProvider) -> DigitalOcean:
    """A provider whose boxes delete themselves."""
    return make_provider(destroy_token="DO_END", environ={"DO_END": ENDING})


@pytest.fixture
def box(self_destroying: DigitalOcean, make_request: MakeRequest) -> Box:
    """A running box."""
    return when_up(self_destroying, self_destroying.create(make_request()))


def test_the_token_is_readable_by_root_only(
    machine: BoxFolders, self_destroying: DigitalOcean, box: Box
) -> None:
    """After its delivery the box's user cannot become root."""
    done = machine.deliver(self_destroying.post_boot_script(box))
    assert ENDING not in done.stdout + done.stderr
    where = machine.root / "run" / "onebox-end"
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert ENDING in (where / "access").read_text()
    for file in where.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not (machine.root / "sudoers.d" / "90-onebox").exists()
    assert machine.config["poweroff_force"] == []
    assert ENDING not in json.dumps(machine.config)
    box_json = machine.root / "lib" / "box.json"
    assert stat.S_IMODE(box_json.stat().st_mode) == 0o644
    machine.deliver(self_destroying.post_boot_script(box))


def test_the_droplet_deletes_itself_at_its_deadline(
    server: Server, machine: BoxFolders, self_destroying: DigitalOcean, box: Box
) -> None:
    """Its token can do nothing else."""
    machine.deliver(self_destroying.post_boot_script(box))
    machine.configure(**{**machine.config, "deadline": time.time() - 1})
    (machine.root / "lib" / "jobs" / "j-1").mkdir(parents=True)
    [droplet] = server.account.all_droplets
    with metadata_id(droplet.id) as service:
        machine.end(service)
    assert not server.account.droplets
    assert server.requests[-1].token == ENDING
    assert machine.systemctl_calls == "poweroff"


def test_an_idle_box_with_outputs_stays_on(
    server: Server, machine: BoxFolders, self_destroying: DigitalOcean, box: Box
) -> None:
    """A droplet that is off costs as much until its deadline."""
    machine.deliver(self_destroying.post_boot_script(box))
    (machine.root / "lib" / "jobs" / "j-1").mkdir(parents=True)
    with metadata_id(server.account.all_droplets[0].id) as service:
        machine.end(service)
    assert server.account.droplets
    assert machine.systemctl_calls == ""


def test_a_box_without_any_job_destroys_itself_when_idle(
    server: Server, machine: BoxFolders, self_destroying: DigitalOcean, box: Box
) -> None:
    """It has no outputs to lose."""
    machine.deliver(self_destroying.post_boot_script(box))
    with metadata_id(server.account.all_droplets[0].id) as service:
        machine.end(service)
    assert not server.account.droplets


def test_without_a_network_the_box_powers_off(
    server: Server, machine: BoxFolders, self_destroying: DigitalOcean, box: Box
) -> None:
    """The API cannot be reached."""
    machine.deliver(self_destroying.post_boot_script(box))
    machine.configure(**{**machine.config, "deadline": 0})
    machine.end("http://127.0.0.1:1")
    assert server.account.droplets
    assert machine.systemctl_calls == "poweroff"


def test_a_failed_deletion_is_repeated(
    server: Server, machine: BoxFolders, self_destroying: DigitalOcean, box: Box
) -> None:
    """The API answers with an error at first."""
    machine.deliver(self_destroying.post_boot_script(box))
    machine.configure(**{**machine.config, "deadline": 0})
    server.fail("DELETE", "droplets/.*", "500 before")
    with metadata_id(server.account.all_droplets[0].id) as service:
        machine.end(service)
    assert not server.account.droplets


def test_a_builder_gets_no_token(
    self_destroying: DigitalOcean, make_provider: MakeProvider, box: Box
) -> None:
    """Neither does a box of a user without such a token."""
    tags = dataclasses.replace(box.tags, kind="builder")
    assert self_destroying.post_boot_script(dataclasses.replace(box, tags=tags)) == b""
    assert make_provider().post_boot_script(box) == b""


def metadata_id(number: int) -> AbstractContextManager[str]:
    """A metadata server with the id of a droplet."""
    return metadata_server(str(number).encode(), path="/metadata/v1/id")
