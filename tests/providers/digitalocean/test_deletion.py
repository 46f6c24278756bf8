"""A deleted box is gone according to the API; nothing else is deleted."""

from __future__ import annotations

import dataclasses
import re
import time

import pytest

from onebox.errors import NotAllowed, OneboxError
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.values import Box
from tests.fakes.digitalocean.account import Json
from tests.fakes.digitalocean.server import TOKEN, Server

from ..boxes import MakeRequest, when_up
from .conftest import TIMEOUTS, MakeProvider
from .test_images import image_for


@pytest.fixture
def box(provider: DigitalOcean, make_request: MakeRequest) -> Box:
    """A running box."""
    return when_up(provider, provider.create(make_request()))


def decoys(server: Server, box: Box) -> Json:
    """Add objects of others to the account that are as similar as possible."""
    account = server.account
    for words in (
        [],
        ["onebox-managed"],
        [metadata.tag("owner", box.tags.owner)],
        [metadata.tag("owner", "somebody"), metadata.tag("project", box.tags.project)],
    ):
        account.create(
            {
                "name": box.id,
                "size": "c-4",
                "image": "debian-12-x64",
                "region": "nyc3",
                "tags": words,
            }
        )
    account.tag("web")
    account.put_firewall({**_wall(), "name": f"onebox-{box.id}"})
    account.put_firewall({**_wall(), "name": "onebox", "tags": ["web"]})
    account._image(f"snapshot of {box.id}", None, ["nyc3"], 25, ["web"])
    account._image(f"onebox.somebody.other-{box.id}.x", None, ["nyc3"], 25, [])
    account.volumes["v1"] = {"id": "v1", "size_gigabytes": 10, "tags": ["web"]}
    account.tick()
    return everything(server)


def everything(server: Server) -> Json:
    """Return the ids of all objects in the account except tags."""
    account = server.account
    return {
        "droplets": sorted(account.droplets),
        "firewalls": sorted(account.firewalls),
        "images": sorted(account.images),
        "volumes": sorted(account.volumes),
    }


def _wall() -> Json:
    return {"name": "x", "inbound_rules": [], "outbound_rules": []}


def test_the_life_of_a_box_changes_nothing_else(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """Similar objects of others stay as they are."""
    provider, request = make_provider(), make_request()
    strangers = decoys(server, provider.create(request))
    [mine] = [one for one in server.account.all_droplets if len(one.tags) > 5]
    strangers["droplets"].remove(mine.id)
    strangers["firewalls"] = [
        id
        for id in strangers["firewalls"]
        if server.account.firewalls[id].get("tags")
        != [metadata.tag("box", request.box)]
    ]
    box = when_up(provider, provider.create(request))
    provider.stop(box)
    image_tags = dataclasses.replace(box.tags, kind="image")
    image = provider.save(box, image_for(box, tags=image_tags))
    box = provider.start(box, box.deadline + 60)
    provider.delete(box)
    provider.delete_image(image)
    assert everything(server) == strangers
    assert list(provider.find(box.tags.owner)) == []


@pytest.mark.parametrize(
    "kind", ["500 before", "500 after", "html after", "cut after", "half", "429"]
)
@pytest.mark.parametrize("path", ["droplets/.*", "firewalls/.*", "tags/.*"])
def test_a_delete_continues_through_lost_responses(
    server: Server, provider: DigitalOcean, box: Box, path: str, kind: str
) -> None:
    """Everything is gone at its end."""
    server.fail("DELETE", path, kind, times=2)
    provider.delete(box)
    assert not server.account.droplets
    assert not server.account.firewalls
    assert not provider.leftovers(box.id)


def test_an_interrupted_delete_is_finished_by_the_next(
    server: Server, make_provider: MakeProvider, provider: DigitalOcean, box: Box
) -> None:
    """Any later command can do it."""
    server.fail("DELETE", "firewalls/.*", "500 before", times=100)
    with pytest.raises(OneboxError):
        provider.delete(box)
    server.faults.clear()
    assert not server.account.droplets
    later = make_provider()
    assert [left.kind for left in later.leftovers(box.id)] == ["firewall"]
    later.delete(box)
    assert not later.leftovers(box.id)


def test_the_tags_of_the_box_alone_are_deleted(
    server: Server, provider: DigitalOcean, box: Box, make_request: MakeRequest
) -> None:
    """The tags of its owner stay in use."""
    other = provider.create(make_request())
    provider.delete(box)
    words = " ".join(server.account.tags)
    assert box.id not in words
    assert metadata.tag("expires", repr(box.deadline)) not in words
    assert other.id in words
    assert metadata.tag("owner", box.tags.owner) in words


def test_a_delete_needs_no_permission_for_tags(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """A tag that stays is free."""
    server.scopes[TOKEN] = re.compile(r"(?!tag:delete|block_storage).*")
    provider.delete(box)
    assert not server.account.droplets


@pytest.mark.parametrize(
    ("wrong", "lag"), [(0, 60), (86400, 60), (-86400, 60), (-4, 2)]
)
def test_delete_waits_for_a_box_that_is_not_listed_yet(
    server: Server,
    make_provider: MakeProvider,
    make_request: MakeRequest,
    wrong: float,
    lag: float,
) -> None:
    """
    The lists lag behind a create.

    The age of the box is that by DigitalOcean's clock, of which small differences to
    this machine's are ignored.
    """
    server.account.behavior.clock = wrong
    box = make_provider().create(make_request())
    server.account.behavior.lag = 3600.0
    later = make_provider(dataclasses.replace(TIMEOUTS, consistency_lag=lag))
    assert later.get(box.id) is None
    [droplet] = server.account.all_droplets
    server.account.behavior.lag = time.monotonic() - droplet.created_at + 0.4
    later.delete(box)
    assert not server.account.droplets
    assert not later.leftovers(box.id)


def test_a_droplet_that_is_being_created_is_deleted_once_it_can_be(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """It is busy until then."""
    server.account.behavior.boot = 0.3
    provider.delete(provider.create(make_request()))
    assert not server.account.droplets


def test_a_snapshot_that_was_still_being_saved_is_deleted(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """A killed command has begun it; it does not show in the lists yet."""
    account, image = server.account, image_for(box)
    account.behavior.action = 0.2
    name = ".".join(
        ["onebox", *map(metadata.escape, (box.tags.owner, box.id, image.id))]
    )
    account.start_action(account.all_droplets[0].id, {"type": "snapshot", "name": name})
    provider.delete(box)
    time.sleep(0.2)
    account.tick()
    assert account.snapshots() == []


def test_a_snapshot_of_another_owner_with_the_id_of_the_box_is_not_deleted(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """The name of a snapshot that was not tagged yet holds its owner."""
    account = server.account
    account.behavior.action = 0.0
    name = ".".join(["onebox", *map(metadata.escape, ("other", box.id, "oi-1"))])
    account.start_action(account.all_droplets[0].id, {"type": "snapshot", "name": name})
    account.tick()
    with pytest.raises(NotAllowed):
        provider.delete(box)
    assert [one["name"] for one in account.snapshots()] == [name]


def test_a_volume_with_the_tag_of_the_box_is_deleted(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """It is listed with its price before."""
    word = metadata.tag("box", box.id)
    server.account.volumes["v1"] = {"id": "v1", "size_gigabytes": 100, "tags": [word]}
    left = {one.kind: one for one in provider.leftovers(box.id)}
    assert left["volume"].hourly == pytest.approx(10 / 730)
    assert (left["droplet"].hourly, left["firewall"].hourly) == (0.1875, 0.0)
    provider.delete(box)
    assert not server.account.volumes


def test_no_droplet_is_deleted_if_one_is_of_another_owner(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """Both have the id of the box."""
    [droplet] = server.account.all_droplets
    words = [
        metadata.tag("owner", "other") if "owner" in word else word
        for word in droplet.tags
    ]
    server.account.create({**droplet.body, "tags": words})
    server.account.tick()
    with pytest.raises(NotAllowed):
        provider.delete(box)
    assert len(server.account.droplets) == 2
    assert server.count("DELETE", "droplets/.*") == 0


def test_a_droplet_without_its_tags_is_not_touched(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """Another user of the account removed them."""
    [droplet] = server.account.all_droplets
    droplet.tags = [word for word in droplet.tags if "project" not in word]
    with pytest.raises(NotAllowed, match="not touched"):
        provider.delete(box)
    assert server.account.droplets


def test_console_returns_actions_and_the_url(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """The API has no console output."""
    console = provider.console(box)
    assert "create: completed" in console
    assert (
        f"https://cloud.digitalocean.com/droplets/{server.account.all_droplets[0].id}"
        in console
    )
