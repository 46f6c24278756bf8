"""Stop and start, though shutdowns are not heard and answers get lost."""

from __future__ import annotations

import dataclasses
import time

import pytest

from onebox.errors import Gone, NotAllowed, Unclear
from onebox.providers.base import Box
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.provider import DigitalOcean

from .conftest import TIMEOUTS, Make, Open, when_up
from .server import Server


@pytest.fixture
def box(provider: DigitalOcean, make_request: Make) -> Box:
    """A box that runs."""
    return when_up(provider, provider.create(make_request()))


def asked(server: Server) -> list[str]:
    """Return the actions that were asked for, in order."""
    return [
        one.body["type"]
        for one in server.asked
        if one.method == "POST" and one.path.endswith("/actions")
    ]


def test_graceful(server: Server, open_provider: Open, box: Box) -> None:
    """A droplet is asked to shut down, and has been off when stop returns."""
    provider = open_provider(dataclasses.replace(TIMEOUTS, shutdown=20))
    server.world.laws.action = 0.2
    provider.stop(box)
    assert server.world.made[0].status == "off"
    assert asked(server) == ["shutdown"]
    provider.stop(box)
    assert asked(server) == ["shutdown"]


def test_deaf(server: Server, provider: DigitalOcean, box: Box) -> None:
    """A system that does not listen has its plug pulled."""
    server.world.laws.deaf = True
    provider.stop(box)
    assert asked(server) == ["shutdown", "power_off"]


def test_busy(server: Server, provider: DigitalOcean, box: Box) -> None:
    """A droplet that is busy is waited for."""
    server.world.laws.action = 0.3
    server.world.act(server.world.made[0].id, {"type": "snapshot", "name": "x"})
    provider.stop(box)
    assert server.world.made[0].status == "off"


def test_stop_while_starting(
    server: Server, provider: DigitalOcean, make_request: Make
) -> None:
    """A droplet that is still being made is stopped once it can be."""
    server.world.laws.boot = 0.3
    provider.stop(provider.create(make_request()))
    assert server.world.made[0].status == "off"


@pytest.mark.parametrize("kind", ["500 before", "500 after", "cut after", "half"])
def test_lost_answer(
    server: Server, provider: DigitalOcean, box: Box, kind: str
) -> None:
    """A stop or a start whose answer is lost comes about all the same."""
    server.fail("POST", "droplets/.*/actions", kind)
    provider.stop(box)
    assert server.world.made[0].status == "off"
    server.fail("POST", "droplets/.*/actions", kind)
    deadline = time.time() + 99
    assert provider.start(box, deadline).state == "running"


def test_never_off(
    server: Server, open_provider: Open, provider: DigitalOcean, box: Box
) -> None:
    """A droplet that will not go off is not said to be off."""
    server.world.laws.action = 60
    timeouts = dataclasses.replace(TIMEOUTS, action=0.5)
    with pytest.raises(Unclear, match="still active"):
        open_provider(timeouts).stop(box)


class TestDeadline:
    def test_in_the_tags(
        self, server: Server, open_provider: Open, provider: DigitalOcean, box: Box
    ) -> None:
        """A new deadline is in the tags before the droplet boots, the old one not."""
        provider.stop(box)
        deadline = time.time() + 4321.5
        started = provider.start(box, deadline)
        assert started.deadline == deadline
        assert started.tags.expires == deadline
        words = [w for w in server.world.made[0].tags if "expires" in w]
        assert words == [metadata.tag("expires", repr(deadline))]
        paths = [one.path for one in server.asked if one.method == "POST"]
        assert paths[-2].endswith("/resources")
        assert paths[-1].endswith("/actions")
        assert open_provider().get(box.id) == started
        assert metadata.tag("expires", repr(box.deadline)) not in server.world.tags

    def test_same(self, server: Server, provider: DigitalOcean, box: Box) -> None:
        """The same deadline again changes no tag."""
        provider.stop(box)
        before = list(server.world.made[0].tags)
        assert provider.start(box, box.deadline).deadline == box.deadline
        assert server.world.made[0].tags == before

    def test_interrupted(
        self, server: Server, provider: DigitalOcean, box: Box
    ) -> None:
        """Of two deadlines that an interrupted start leaves, the later one holds."""
        later = box.deadline + 1000
        word = metadata.tag("expires", repr(later))
        server.world.made[0].tags.append(server.world.tag(word))
        found = provider.get(box.id)
        assert found is not None
        assert found.deadline == later

    def test_gone(self, server: Server, provider: DigitalOcean, box: Box) -> None:
        """A box that is not there any more cannot be started."""
        provider.stop(box)
        provider.delete(box)
        with pytest.raises(Gone):
            provider.start(box, time.time() + 99)

    def test_another(self, provider: DigitalOcean, box: Box) -> None:
        """A box of another project is neither started nor stopped, nor changed."""
        provider.stop(box)
        tags_of_another = dataclasses.replace(box.tags, project="another")
        other = dataclasses.replace(box, tags=tags_of_another)
        for call in (
            lambda: provider.start(other, 9e9),
            lambda: provider.stop(other),
            lambda: provider.set_host_key(other, box.host_key),
            lambda: provider.allow_my_ip(other),
        ):
            with pytest.raises(NotAllowed):
                call()
