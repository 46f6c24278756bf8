"""Snapshots as images: complete, in the right regions, with their tag."""

from __future__ import annotations

import dataclasses

import pytest

from onebox.errors import NotAllowed, OneboxError, ProviderError, Unclear, UsageError
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.values import Box, Image
from tests.fakes.digitalocean.server import Server

from ..boxes import MakeRequest, image_of, when_up
from .conftest import MakeProvider


@pytest.fixture
def stopped(provider: DigitalOcean, make_request: MakeRequest) -> Box:
    """A stopped box."""
    box = when_up(provider, provider.create(make_request()))
    provider.stop(box)
    return box


def image_for(box: Box, **changes: object) -> Image:
    """Return the image to save a box as."""
    image = Image(
        id="oi-1",
        name="census",
        recipe="0123456789abcdef",
        created=0.0,
        stored=0,
        arch="x86_64",
        tags=dataclasses.replace(box.tags, kind="image"),
        base="ubuntu-24-04-x64 1000",
    )
    return dataclasses.replace(image, **changes)  # type: ignore[arg-type] # any field


def test_an_image_is_read_back_completely(
    server: Server, make_provider: MakeProvider, provider: DigitalOcean, stopped: Box
) -> None:
    """Any process with the token finds it."""
    requests = image_for(stopped, name="A name, with more", base="")
    saved = provider.save(stopped, requests)
    [found] = make_provider().images(stopped.tags.owner)
    assert found == saved
    made = {"created": saved.created, "stored": saved.stored, "places": saved.places}
    assert saved == dataclasses.replace(requests, **made)  # type: ignore[arg-type] # any
    assert saved.places == ("nyc3",)
    assert saved.stored > 1 << 30


def test_a_running_box_is_not_saved(
    provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """Its disk may change meanwhile."""
    box = when_up(provider, provider.create(make_request()))
    with pytest.raises(ProviderError, match="must be stopped"):
        provider.save(box, image_for(box))


@pytest.mark.parametrize("kind", ["500 after", "cut after", "half", "cut before"])
def test_a_lost_response_makes_one_snapshot(
    server: Server, provider: DigitalOcean, stopped: Box, kind: str
) -> None:
    """The action is found among those of the droplet."""
    server.account.behavior.action = 0.1
    server.fail("POST", "droplets/.*/actions", kind)
    if kind == "cut before":
        with pytest.raises(Unclear):
            provider.save(stopped, image_for(stopped))
        assert server.account.snapshots() == []
    else:
        provider.save(stopped, image_for(stopped))
        assert len(server.account.snapshots()) == 1


def test_an_earlier_snapshot_of_the_droplet_is_not_taken_for_the_new_one(
    server: Server, provider: DigitalOcean, stopped: Box
) -> None:
    """The call got no response and had no effect, so no snapshot is awaited."""
    server.account.behavior.action = 0.1
    provider.save(stopped, image_for(stopped))
    server.fail("POST", "droplets/.*/actions", "cut before")
    with pytest.raises(Unclear) as unclear:
        provider.save(stopped, image_for(stopped, id="oi-2"))
    assert "has taken longer than" not in unclear.value.message
    assert len(server.account.snapshots()) == 1


@pytest.mark.parametrize("path", ["tags", "tags/.*/resources"])
@pytest.mark.parametrize("kind", ["500 before", "cut after", "429"])
def test_tagging_an_image_is_repeated_until_it_succeeds(
    server: Server, provider: DigitalOcean, stopped: Box, path: str, kind: str
) -> None:
    """Without its tag the image would not be found."""
    server.fail("POST", path, kind, times=2)
    provider.save(stopped, image_for(stopped))
    assert len(provider.images(stopped.tags.owner)) == 1


def test_a_snapshot_without_its_tag_is_no_image(
    server: Server, make_provider: MakeProvider, provider: DigitalOcean, stopped: Box
) -> None:
    """It is deleted with its box."""
    server.fail("POST", "tags/.*/resources", "500 before", times=100)
    with pytest.raises(OneboxError):
        provider.save(stopped, image_for(stopped))
    server.faults.clear()
    later = make_provider()
    assert list(later.images(stopped.tags.owner)) == []
    left = {one.kind: one.hourly for one in later.leftovers(stopped.id)}
    assert 0 < (left["snapshot"] or 0) < 0.001
    later.delete(stopped)
    assert server.account.snapshots() == []
    assert not later.leftovers(stopped.id)


def test_a_repeated_save_continues_with_the_same_snapshot(
    server: Server, provider: DigitalOcean, stopped: Box
) -> None:
    """A crash interrupted the first one."""
    server.fail("POST", "tags/.*/resources", "500 before", times=100)
    with pytest.raises(OneboxError):
        provider.save(stopped, image_for(stopped))
    server.faults.clear()
    provider.save(stopped, image_for(stopped))
    assert len(server.account.snapshots()) == 1


def test_an_image_stays_after_the_delete_of_its_box(
    server: Server, provider: DigitalOcean, stopped: Box
) -> None:
    """Only an unfinished snapshot is deleted with the box."""
    provider.save(stopped, image_for(stopped))
    provider.delete(stopped)
    assert len(provider.images(stopped.tags.owner)) == 1
    assert not provider.leftovers(stopped.id)


def test_a_failed_snapshot_is_an_error(
    server: Server, provider: DigitalOcean, stopped: Box
) -> None:
    """The wait for it ends."""
    begin = server.account._start_action

    def fail(*args: object) -> object:
        shown = begin(*args)  # type: ignore[arg-type] # as called
        server.account.actions[int(shown["id"])].errored = True
        return server.account.action(int(shown["id"]))

    server.account._start_action = fail  # type: ignore[assignment,method-assign] # a fault
    with pytest.raises(ProviderError, match="gave up"):
        provider.save(stopped, image_for(stopped))


@pytest.mark.parametrize("kind", ["none", "cut after", "500 before", "429"])
def test_an_image_is_copied_to_the_region_of_a_box(
    server: Server,
    provider: DigitalOcean,
    stopped: Box,
    make_request: MakeRequest,
    kind: str,
) -> None:
    """The copy happens before the create call."""
    server.account.behavior.action = 0.1
    image = provider.save(stopped, image_for(stopped))
    server.fail("POST", "images/.*/actions", kind)
    size = dataclasses.replace(make_request().offer, place="fra1")
    if kind == "500 before":
        # The failed call started no copy, but the client cannot know: it waits for one.
        server.account.transfer(server.account.snapshots()[0]["id"], "fra1")
    box = provider.create(make_request(image=image, offer=size))
    assert box.place == "fra1"
    assert box.image == image.id
    [found] = provider.images(stopped.tags.owner)
    assert found.places == ("nyc3", "fra1")


def test_the_snapshots_of_others_are_no_images(
    server: Server, provider: DigitalOcean, stopped: Box, make_request: MakeRequest
) -> None:
    """They stay."""
    account = server.account
    account._image("onebox.of.somebody", None, ["nyc3"], 25, [])
    account._image("backup", None, ["nyc3"], 25, ["onebox-image:broken"])
    theirs = image_for(stopped, tags=dataclasses.replace(stopped.tags, owner="other"))
    account._image("x", None, ["nyc3"], 25, [account.tag(metadata.of_image(theirs))])
    image = provider.save(stopped, image_for(stopped, id="oi-2"))
    assert [one.id for one in provider.images(stopped.tags.owner)] == ["oi-2"]
    with pytest.raises(NotAllowed):
        provider.delete_image(image_for(stopped))
    provider.delete_image(image)
    provider.delete(stopped)
    assert len(account.snapshots()) == 3
    assert metadata.of_image(image) not in account.tags
    assert metadata.of_image(theirs) in account.tags


@pytest.mark.parametrize("kind", ["500 before", "500 after", "cut after", "429"])
def test_a_delete_is_repeated_until_the_image_is_gone(
    server: Server, provider: DigitalOcean, stopped: Box, kind: str
) -> None:
    """A lost response does not end it."""
    image = provider.save(stopped, image_for(stopped))
    server.fail("DELETE", "images/.*", kind)
    provider.delete_image(image)
    assert server.account.snapshots() == []


def test_names_too_long_for_a_tag_are_refused(
    server: Server, provider: DigitalOcean, stopped: Box
) -> None:
    """No snapshot is begun."""
    with pytest.raises(ProviderError, match="too long"):
        provider.save(stopped, image_for(stopped, name="ä" * 100))
    assert server.account.snapshots() == []


def test_a_snapshot_of_packer_becomes_an_image(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """A second adoption changes nothing."""
    account = server.account
    account._image("packer-1", None, ["nyc3", "fra1"], 25, [])
    [snapshot] = account.snapshots()
    image = image_of(make_request())
    taken = provider.adopt_image(f"nyc3,fra1:{snapshot['id']}", image)
    assert (taken.id, taken.recipe) == (image.id, image.recipe)
    assert taken.places == ("nyc3", "fra1")
    assert provider.adopt_image(f"nyc3:{snapshot['id']}", image) == taken
    assert list(provider.images(image.tags.owner)) == [taken]
    with pytest.raises(UsageError, match="nyc3:4711"):
        provider.adopt_image("nyc3:4711", dataclasses.replace(image, id="oi-9"))
