"""What costs nothing is not left behind either: at DigitalOcean, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onebox.providers.base import Box
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.digitalocean.settings import Settings
from onebox.store.identity import owner
from onebox.store.paths import config_dir
from tests.fakes.digitalocean.server import TOKEN, Server

from ..conftest import Project
from ..providers.boxes import MakeRequest, when_up
from ..providers.conftest import keys
from ..providers.digitalocean.conftest import (
    SETTINGS,
    TIMEOUTS,
    make_request,
    server,
)
from ..providers.tables import table

__all__ = ["keys", "make_request", "server"]

TOML = """\
provider = "digitalocean"
[run]
command = "true"
[digitalocean]
ssh_cidr = "203.0.113.7/32"
accept_no_watchdog = true
"""


@pytest.fixture
def cloud(project: Project, server: Server) -> Iterator[Server]:
    """A project at DigitalOcean."""
    project.write("onebox.toml", TOML)
    project.environ["DIGITALOCEAN_END_POINT"] = server.address
    project.environ["DIGITALOCEAN_ACCESS_TOKEN"] = TOKEN
    yield server


def box_of(project: Project, make_request: MakeRequest) -> Box:
    """Return a box of this user's, in another project."""
    provider = DigitalOcean(table(Settings, SETTINGS), Path("/"), timeouts=TIMEOUTS)
    request = make_request()
    ours = replace(request.tags, owner=owner(config_dir(project.environ)))
    return when_up(provider, provider.create(replace(request, tags=ours)))


def end(cloud: Server) -> None:
    """Have the droplets removed, as by their own tokens."""
    for number in list(cloud.account.droplets):
        cloud.account.destroy(number)


def test_a_refused_create_leaves_nothing(project: Project, cloud: Server) -> None:
    """
    Where no box could be made, nothing that was made for it is left.
    """
    cloud.account.behavior.droplet_limit = 0
    done = project.inv("provision")
    assert 69 == done.code, done.err
    assert {} == cloud.account.firewalls
    assert {} == cloud.account.keys


def test_teardown_removes_what_no_box_uses(
    project: Project, cloud: Server, make_request: MakeRequest
) -> None:
    """
    Without a box, teardown removes what is of no use, and says why the rest stays.
    """
    box = box_of(project, make_request)
    done = project.inv("teardown")
    assert 0 == done.code, done.err
    assert f"{box.id} uses it" in done.err
    assert cloud.account.firewalls and cloud.account.keys
    end(cloud)
    done = project.inv("teardown")
    assert {} == cloud.account.keys
    assert "free of charge, and stays: firewall" in done.err
    assert f"{box.id} may still be created" in done.err


def test_sweep_lists_and_removes_it(
    project: Project, cloud: Server, make_request: MakeRequest
) -> None:
    """
    Sweep lists all that bears the owner's name; with --yes it removes what may go.
    """
    box_of(project, make_request)
    end(cloud)
    [wall] = cloud.account.firewalls.values()
    made = time.gmtime(time.time() - 3700)
    wall["created_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", made)
    theirs = {**wall, "name": "onebox.somebodyelse.ob-1", "id": "theirs"}
    theirs["tags"] = [cloud.account.tag("onebox-box:ob-1")]
    cloud.account.firewalls["theirs"] = theirs
    shown = project.inv("sweep")
    assert 0 == shown.code, shown.err
    for word in (wall["id"], "ssh key", "onebox-owner:"):
        assert word in shown.out
    assert "theirs" not in shown.out
    assert "inv sweep --yes" in shown.err
    assert 2 == len(cloud.account.firewalls)

    swept = project.inv("sweep", "--yes")
    assert 0 == swept.code, swept.err
    assert ["theirs"] == list(cloud.account.firewalls)
    assert {} == cloud.account.keys
    again = project.inv("sweep")
    assert "inv sweep --yes" not in again.err
