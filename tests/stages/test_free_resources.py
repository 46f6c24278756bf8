"""Free resources are deleted too: DigitalOcean, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.values import Box
from onebox.store.identity import owner
from onebox.store.paths import config_dir
from tests.conftest import Project
from tests.fakes.digitalocean.server import TOKEN, Server
from tests.providers.boxes import MakeRequest, when_up
from tests.providers.conftest import keys
from tests.providers.digitalocean.conftest import (
    SETTINGS,
    TIMEOUTS,
    make_request,
    server,
)
from tests.providers.tables import table

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


def create_box(project: Project, make_request: MakeRequest) -> Box:
    """Return a box of this owner in another project."""
    provider = DigitalOcean(
        table(DigitalOceanSettings, SETTINGS), Path("/"), timeouts=TIMEOUTS
    )
    request = make_request()
    ours = replace(request.tags, owner=owner(config_dir(project.environ)))
    return when_up(provider, provider.create(replace(request, tags=ours)))


def delete_droplets(cloud: Server) -> None:
    """Delete the droplets, as they do with their own tokens."""
    for number in list(cloud.account.droplets):
        cloud.account.destroy(number)


def test_refused_create_leaves_no_resource(project: Project, cloud: Server) -> None:
    """If no box could be created, nothing that was created for it is left."""
    cloud.account.behavior.droplet_limit = 0
    done = project.inv("provision")
    assert 69 == done.code, done.err
    assert {} == cloud.account.firewalls
    assert {} == cloud.account.keys


def test_teardown_deletes_unused_resources_and_explains_the_rest(
    project: Project, cloud: Server, make_request: MakeRequest
) -> None:
    """Without a box, teardown deletes unused resources and says why others stay."""
    box = create_box(project, make_request)
    done = project.inv("teardown")
    assert 0 == done.code, done.err
    assert f"{box.id} uses it" in done.err
    assert cloud.account.firewalls and cloud.account.keys
    delete_droplets(cloud)
    done = project.inv("teardown")
    assert {} == cloud.account.keys
    assert "kept, free of charge: firewall" in done.err
    assert f"{box.id} may still be created" in done.err


def test_cleanup_lists_all_resources_and_deletes_unused_ones_with_yes(
    project: Project, cloud: Server, make_request: MakeRequest
) -> None:
    """Cleanup lists all resources with the owner's name."""
    create_box(project, make_request)
    delete_droplets(cloud)
    [wall] = cloud.account.firewalls.values()
    made = time.gmtime(time.time() - 3700)
    wall["created_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", made)
    theirs = {**wall, "name": "onebox.somebodyelse.ob-1", "id": "theirs"}
    theirs["tags"] = [cloud.account.tag("onebox-box:ob-1")]
    cloud.account.firewalls["theirs"] = theirs
    shown = project.inv("cleanup")
    assert 0 == shown.code, shown.err
    for word in (wall["id"], "ssh key", "onebox-owner:"):
        assert word in shown.out
    assert "theirs" not in shown.out
    assert "inv cleanup --yes" in shown.err
    assert 2 == len(cloud.account.firewalls)

    swept = project.inv("cleanup", "--yes")
    assert 0 == swept.code, swept.err
    assert ["theirs"] == list(cloud.account.firewalls)
    assert {} == cloud.account.keys
    again = project.inv("cleanup")
    assert "inv cleanup --yes" not in again.err
