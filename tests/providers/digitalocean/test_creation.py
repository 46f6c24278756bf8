"""One request creates one droplet, also if responses are lost."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from onebox.errors import (
    ConfigError,
    NotAllowed,
    QuotaExceeded,
    Unclear,
)
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.values import Request, Requirements
from tests.fakes.digitalocean.server import ENDING, TOKEN, Server

from ..boxes import MakeRequest, public_key, when_up
from .conftest import TIMEOUTS, MakeProvider

AFTER = ["500 after", "html after", "cut after", "half", "hang after"]
BEFORE = ["500 before", "html before", "cut before", "hang before"]
# Short time limits, for servers that do not respond.
SHORT = dataclasses.replace(TIMEOUTS, read=0.5)
# The same, but lists may take longer to show what the lost call created.
LOOKING = dataclasses.replace(SHORT, consistency_lag=60)


def box_tag(request: Request) -> str:
    """Return the tag that names the box."""
    return metadata.tag("box", request.box)


class TestCreate:
    def test_the_create_call_has_tags_and_user_data(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """Monitoring is off."""
        request = make_request()
        provider.create(request)
        [droplet] = server.account.all_droplets
        assert server.count("POST", "droplets") == 1
        body = droplet.body
        assert {"onebox-managed", box_tag(request)} <= set(body["tags"])
        assert metadata.tag("owner", request.tags.owner) in body["tags"]
        assert (body["monitoring"], body["with_droplet_agent"]) == (False, False)
        assert body["user_data"].startswith("#cloud-config\n")
        assert body["user_data"].isascii()
        assert len(body["user_data"]) < 64 << 10
        key = " ".join(request.user_key.split()[:2])
        assert key in body["user_data"]

    def test_a_private_box_is_in_the_users_network(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """It has no public address."""
        vpc = "0f1e2d3c-0000-4000-8000-000000000000"
        provider = make_provider(
            private=True, vpc=vpc, jump="me@bastion", ssh_cidr="10.10.0.0/16"
        )
        box = when_up(provider, provider.create(make_request()))
        body = server.account.all_droplets[0].body
        assert (body["vpc_uuid"], body["public_networking"]) == (vpc, False)
        assert (box.host, box.jump) == ("10.10.0.5", "me@bastion")

    def test_a_droplet_is_starting_until_it_has_an_address(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The API calls it active earlier."""
        behavior = server.account.behavior
        behavior.boot, behavior.address_after = 0.1, 3600.0
        box = provider.create(make_request())
        [droplet] = server.account.all_droplets
        while droplet.status != "active":
            assert (box.state, box.host) == ("starting", "")
            box = provider.get(box.id) or box
        assert (box.state, box.host) == ("starting", "")
        behavior.address_after = 0.0
        assert when_up(provider, box).host == droplet.host

    @pytest.mark.parametrize("kind", AFTER)
    def test_a_lost_response_is_searched_for_by_its_tag(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        kind: str,
    ) -> None:
        """The create call is not repeated."""
        provider, request = make_provider(LOOKING), make_request()
        server.account.behavior.lag = 0.2
        server.fail("POST", "droplets", kind, times=100)
        box = provider.create(request)
        assert box.id == request.box
        assert server.faults[0].times == 99
        assert len(server.account.all_droplets) == 1
        provider.delete(when_up(provider, box))
        assert not server.account.droplets
        assert not server.account.firewalls

    @pytest.mark.parametrize("kind", BEFORE)
    def test_a_droplet_that_does_not_show_in_time_is_unclear(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        kind: str,
    ) -> None:
        """The create call is not repeated."""
        provider, request = make_provider(SHORT), make_request()
        server.fail("POST", "droplets", kind, times=100)
        with pytest.raises(Unclear, match=request.box):
            provider.create(request)
        answered = kind in ("500 before", "html before")
        assert server.faults[0].times == 100 - (
            SHORT.create_attempts if answered else 1
        )
        assert not server.account.all_droplets

    @pytest.mark.parametrize("kind", ["500 before", "html before"])
    def test_one_failure_of_the_api_does_not_end_it(
        self,
        server: Server,
        provider: DigitalOcean,
        make_request: MakeRequest,
        kind: str,
    ) -> None:
        """A call that the API has failed at is sent again, once it shows nothing."""
        server.fail("POST", "droplets", kind)
        box = when_up(provider, provider.create(make_request()))
        assert len(server.account.all_droplets) == 1
        assert len(server.account.firewalls) == 1
        provider.delete(box)
        assert not server.account.firewalls

    def test_a_failed_call_that_made_one_all_the_same(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The repeated call makes a second droplet; the older one stays."""
        provider, request = make_provider(SHORT), make_request()
        server.account.behavior.lag = SHORT.consistency_lag + 0.4
        server.fail("POST", "droplets", "500 after")
        made = when_up(provider, provider.create(request))
        first = server.account.all_droplets[0]
        while [one.kind for one in provider.leftovers(made.id)].count("droplet") < 2:
            assert first.id in server.account.droplets
        provider.create(request)
        assert list(server.account.droplets) == [first.id]

    def test_a_refusal_after_a_failed_call_is_raised(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The first call has created nothing."""
        server.fail("POST", "droplets", "500 before")
        server.account.behavior.droplet_limit = 0
        with pytest.raises(QuotaExceeded):
            provider.create(make_request())
        assert not server.account.firewalls

    def test_a_late_droplet_is_the_only_one(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """It shows up after the command has given up."""
        provider, request = make_provider(LOOKING), make_request()
        server.late = SHORT.read + 0.3
        server.fail("POST", "droplets", "late", times=100)
        assert provider.create(request).id == request.box
        assert len(server.account.all_droplets) == 1

    def test_a_very_late_droplet_is_found_by_the_next_command(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """It is the box of that request."""
        provider, request = make_provider(SHORT), make_request()
        server.late = 3600.0
        server.fail("POST", "droplets", "late", times=100)
        with pytest.raises(Unclear):
            provider.create(request)
        server.now.set()
        until = time.monotonic() + 60
        box = None
        while box is None and time.monotonic() < until:
            box = provider.get(request.box)
        assert box is not None
        provider.delete(when_up(provider, box))
        assert len(server.account.all_droplets) == 1
        assert not server.account.droplets
        assert not server.account.firewalls

    def test_lost_answer_while_all_is_broken(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The lists fail for a while before they show the droplet."""
        provider, request = make_provider(), make_request()
        server.fail("POST", "droplets", "cut after")
        # The search before the create call has its response.
        server.fail("GET", "droplets", "none")
        server.fail("GET", "droplets", "500 before", times=2 * TIMEOUTS.attempts)
        assert provider.create(request).id == request.box
        assert len(server.account.all_droplets) == 1

    def test_a_throttled_create_call_is_repeated(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The pause is that of the API."""
        server.fail("POST", "droplets", "429", Retry_After="0")
        provider.create(make_request())
        assert len(server.account.all_droplets) == 1

    def test_the_later_of_two_droplets_is_deleted(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """Both were created for one request."""
        request = make_request()
        provider.create(request)
        double = server.account.create(server.account.all_droplets[0].body)
        server.account.tick()
        box = provider.create(request)
        assert box.id == request.box
        assert list(server.account.droplets) == [server.account.all_droplets[0].id]
        assert double["droplet"]["id"] not in server.account.droplets

    def test_a_late_duplicate_belongs_to_the_box(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The lists show one box, and its delete removes both."""
        request, provider = make_request(), make_provider()
        provider.create(request)
        server.account.create(server.account.all_droplets[0].body)
        server.account.tick()
        later = make_provider()
        [box] = later.find(request.tags.owner)
        assert [left.kind for left in later.leftovers(box.id)].count("droplet") == 2
        later.delete(box)
        assert not server.account.droplets

    def test_a_droplet_of_another_owner_with_the_box_id_is_not_touched(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """Neither of the two is."""
        request = make_request()
        provider.create(request)
        body = server.account.all_droplets[0].body
        words = [word.replace("project-1", "project-2") for word in body["tags"]]
        server.account.create({**body, "tags": words})
        server.account.tick()
        with pytest.raises(NotAllowed):
            provider.create(request)
        assert len(server.account.droplets) == 2

    def test_a_new_box_is_known_before_the_lists_show_it(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The process that created it has its number."""
        server.account.behavior.lag = 60
        provider, request = make_provider(), make_request()
        box = when_up(provider, provider.create(request))
        assert list(provider.find(request.tags.owner)) == [box]
        assert provider.create(request) == box
        assert make_provider().get(box.id) is None
        assert len(server.account.all_droplets) == 1

    def test_a_droplet_with_only_the_tag_of_the_box_is_not_touched(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """It is neither returned nor deleted."""
        request = make_request()
        body = {
            "name": "pet",
            "size": "c-4",
            "image": "debian-12-x64",
            "region": "nyc3",
            "tags": [box_tag(request)],
        }
        server.account.create(body)
        with pytest.raises(NotAllowed):
            provider.create(request)
        assert len(server.account.droplets) == 1
        assert server.count("POST", "droplets") == 0


class TestTags:
    def test_a_box_is_read_back_from_its_tags_alone(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """No other record exists."""
        size = dataclasses.replace(
            make_request().offer, name="cpus=4,memory=16 GB", machine_price=0.15
        )
        request = make_request(offer=size)
        first = make_provider()
        box = when_up(first, first.create(request))
        [found] = make_provider().find(request.tags.owner)
        assert found == box
        assert found.offer == size
        assert found.tags == request.tags
        assert found.bootstrap_key

    def test_a_tag_in_another_case_is_the_same_tag(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The case is that of its first use."""
        request = make_request()
        for word in metadata.of_box(request):
            server.account.tag(word.upper())
        box = when_up(provider, provider.create(request))
        assert any(word.isupper() for word in server.account.all_droplets[0].tags)
        assert box.tags == request.tags
        assert box.host_key == request.host_key.public
        assert provider.get(box.id) == box

    def test_a_new_host_key_replaces_the_bootstrap_key(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The key that a box has given itself is in its tags, and not exposed."""
        provider, request = make_provider(), make_request()
        box = when_up(provider, provider.create(request))
        fresh = public_key(7)
        pinned = provider.set_host_key(box, fresh)
        assert pinned == dataclasses.replace(box, host_key=fresh, bootstrap_key=False)
        assert make_provider().get(box.id) == pinned
        assert provider.set_host_key(pinned, fresh) == pinned


class TestDeadline:
    def test_a_box_that_nothing_ends_needs_consent(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """Without it, no box is created."""
        provider = make_provider(accept_no_watchdog=False)
        with pytest.raises(ConfigError, match="bills"):
            provider.offers(Requirements("small", 4, 16 << 30))
        with pytest.raises(ConfigError, match="bills") as caught:
            provider.create(make_request())
        assert "accept_no_watchdog = true" in caught.value.next
        assert "destroy_token" in caught.value.next
        assert "\n" not in caught.value.message
        assert server.count("POST", ".*") == 0

    def test_each_box_without_a_watchdog_has_a_note(
        self, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """Only a cleanup ends its billing."""
        box = provider.create(make_request())
        assert any("inv cleanup" in note for note in box.notes)
        found = provider.get(box.id)
        assert found is not None
        assert found.notes == box.notes

    def test_a_stopped_box_has_a_note_about_its_price(
        self, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """A droplet that is off is billed in full."""
        box = when_up(provider, provider.create(make_request()))
        provider.stop(box)
        stopped = provider.get(box.id)
        assert stopped is not None
        assert stopped.why == "poweroff"
        assert any("$0.19/h" in note for note in stopped.notes)
        assert provider.leftovers(box.id)[0].hourly == 0.1875

    def test_a_box_that_stopped_after_its_deadline_has_that_reason(
        self, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The API gives no reason."""
        request = make_request()
        over = dataclasses.replace(request.boot_config, deadline=1000.0)
        expired = dataclasses.replace(request.tags, deadline=1000.0)
        box = provider.create(
            dataclasses.replace(request, boot_config=over, tags=expired)
        )
        box = when_up(provider, box)
        provider.stop(box)
        stopped = provider.get(box.id)
        assert stopped is not None
        assert stopped.why == "deadline"

    def test_the_destroy_token_is_not_in_the_create_call(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """It is sent to the box later."""
        provider = make_provider(
            accept_no_watchdog=False,
            destroy_token="DO_END",
            environ={"DO_END": ENDING},
        )
        box = provider.create(make_request())
        assert any("deletes itself" in note for note in box.notes)
        sent = json.dumps([(one.query, one.body, one.path) for one in server.requests])
        assert ENDING not in sent
        assert TOKEN not in sent

    @pytest.mark.parametrize(
        ("environ", "message"), [({}, "not set"), ({"DO_END": TOKEN}, "same token")]
    )
    def test_a_bad_destroy_token_is_refused(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        environ: dict[str, str],
        message: str,
    ) -> None:
        """It is missing, or is the token for all calls."""
        provider = make_provider(destroy_token="DO_END", environ=environ)
        with pytest.raises(ConfigError, match=message) as caught:
            provider.create(make_request())
        assert "droplet:delete" in caught.value.next
        assert TOKEN not in caught.value.message
        assert not server.account.all_droplets
