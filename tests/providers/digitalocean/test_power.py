"""Stop and start, also if shutdowns are ignored or responses are lost."""

from __future__ import annotations

import dataclasses
import time

import pytest

from onebox.errors import Gone, NotAllowed, Unclear
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.values import Box
from tests.fakes.digitalocean.server import Server

from ..boxes import MakeRequest, when_up
from .conftest import TIMEOUTS, MakeProvider


@pytest.fixture
def box(provider: DigitalOcean, make_request: MakeRequest) -> Box:
    """A running box."""
    return when_up(provider, provider.create(make_request()))


def sent_actions(server: Server) -> list[str]:
    """Return the types of the requested actions, in order."""
    return [
        one.body["type"]
        for one in server.requests
        if one.method == "POST" and one.path.endswith("/actions")
    ]


def test_stop_waits_for_a_clean_shutdown(
    server: Server, make_provider: MakeProvider, box: Box
) -> None:
    """The droplet is off when it returns."""
    provider = make_provider(dataclasses.replace(TIMEOUTS, shutdown=20))
    server.account.behavior.action = 0.2
    provider.stop(box)
    assert server.account.all_droplets[0].status == "off"
    assert sent_actions(server) == ["shutdown"]
    provider.stop(box)
    assert sent_actions(server) == ["shutdown"]


def test_a_droplet_that_ignores_the_shutdown_is_powered_off(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """It has some time for it first."""
    server.account.behavior.ignores_shutdown = True
    provider.stop(box)
    assert sent_actions(server) == ["shutdown", "power_off"]


def test_a_busy_droplet_is_waited_for(
    server: Server, provider: DigitalOcean, box: Box
) -> None:
    """The action is sent when it is free."""
    server.account.behavior.action = 0.3
    server.account.start_action(
        server.account.all_droplets[0].id, {"type": "snapshot", "name": "x"}
    )
    provider.stop(box)
    assert server.account.all_droplets[0].status == "off"


def test_a_starting_droplet_is_stopped_once_it_can_be(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """It is busy until then."""
    server.account.behavior.boot = 0.3
    provider.stop(provider.create(make_request()))
    assert server.account.all_droplets[0].status == "off"


@pytest.mark.parametrize("kind", ["500 before", "500 after", "cut after", "half"])
def test_a_lost_response_does_not_end_a_stop_or_a_start(
    server: Server, provider: DigitalOcean, box: Box, kind: str
) -> None:
    """The next look shows the outcome."""
    server.fail("POST", "droplets/.*/actions", kind)
    provider.stop(box)
    assert server.account.all_droplets[0].status == "off"
    server.fail("POST", "droplets/.*/actions", kind)
    deadline = time.time() + 99
    assert provider.start(box, deadline).state == "running"


def test_a_droplet_that_stays_on_is_not_reported_as_off(
    server: Server, make_provider: MakeProvider, provider: DigitalOcean, box: Box
) -> None:
    """The stop ends as unclear."""
    server.account.behavior.action = 60
    timeouts = dataclasses.replace(TIMEOUTS, action=0.5)
    with pytest.raises(Unclear, match="still running"):
        make_provider(timeouts).stop(box)


class TestDeadline:
    def test_the_new_deadline_is_in_the_tags_before_the_boot(
        self,
        server: Server,
        make_provider: MakeProvider,
        provider: DigitalOcean,
        box: Box,
    ) -> None:
        """The former one is removed."""
        provider.stop(box)
        deadline = time.time() + 4321.5
        started = provider.start(box, deadline)
        assert started.deadline == deadline
        assert started.tags.deadline == deadline
        words = [w for w in server.account.all_droplets[0].tags if "expires" in w]
        assert words == [metadata.tag("expires", repr(deadline))]
        paths = [one.path for one in server.requests if one.method == "POST"]
        assert paths[-2].endswith("/resources")
        assert paths[-1].endswith("/actions")
        assert make_provider().get(box.id) == started
        assert metadata.tag("expires", repr(box.deadline)) not in server.account.tags

    def test_the_same_deadline_changes_no_tag(
        self, server: Server, provider: DigitalOcean, box: Box
    ) -> None:
        """No call is necessary."""
        provider.stop(box)
        before = list(server.account.all_droplets[0].tags)
        assert provider.start(box, box.deadline).deadline == box.deadline
        assert server.account.all_droplets[0].tags == before

    def test_the_later_of_two_deadlines_holds(
        self, server: Server, provider: DigitalOcean, box: Box
    ) -> None:
        """An interrupted start leaves two tags."""
        later = box.deadline + 1000
        word = metadata.tag("expires", repr(later))
        server.account.all_droplets[0].tags.append(server.account.tag(word))
        found = provider.get(box.id)
        assert found is not None
        assert found.deadline == later

    def test_a_missing_box_cannot_be_started(
        self, server: Server, provider: DigitalOcean, box: Box
    ) -> None:
        """The error is Gone."""
        provider.stop(box)
        provider.delete(box)
        with pytest.raises(Gone):
            provider.start(box, time.time() + 99)

    def test_a_box_of_another_project_is_not_touched(
        self, provider: DigitalOcean, box: Box
    ) -> None:
        """It is neither started nor stopped."""
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
