"""Calls that fail, and the errors that they end in."""

from __future__ import annotations

import dataclasses

import pytest

from onebox.errors import (
    ConfigError,
    NoCapacity,
    NotAllowed,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unclear,
    UsageError,
)
from onebox.providers import PROVIDERS
from onebox.providers.hetzner.client import Invalid
from onebox.providers.hetzner.metadata import to_labels
from onebox.providers.hetzner.provider import Hetzner
from onebox.providers.hetzner.settings import HetznerSettings
from onebox.providers.values import Requirements
from onebox.settings.fields import keys_of
from tests.fakes.hetzner.server import ENDING, READ_ONLY, Server

from ...conftest import Project
from ..boxes import MakeRequest, image_of, when_up
from .conftest import MakeProvider

TOML = """\
provider = "hetzner"
[run]
command = "true"
[hetzner]
ssh_cidr = "203.0.113.7/32"
accept_no_watchdog = true
"""


def test_its_machine_types_are_recognized_by_name() -> None:
    """A mistyped size is not read as one."""
    row = PROVIDERS["hetzner"]
    assert all(map(row.has_type, ("ccx33", "cx22", "cpx11", "cax41")))
    assert not any(map(row.has_type, ("cx", "large", "c-4", "ccx33-x")))


class TestToken:
    @pytest.mark.parametrize(
        ("token", "error", "message"),
        [
            ("", NotAllowed, "there is no token for Hetzner"),
            ("wrong", NotAllowed, "unable to authenticate (unauthorized)"),
            ("tökén", ConfigError, "HCLOUD_TOKEN holds no token"),
        ],
    )
    def test_an_unusable_token_is_one_clear_error(
        self,
        make_provider: MakeProvider,
        token: str,
        error: type[Exception],
        message: str,
    ) -> None:
        """It names the variable and not the token, also in `inv doctor`."""
        provider = make_provider(environ={"HCLOUD_TOKEN": token})
        with pytest.raises(error) as caught:
            provider.find("owner")
        assert message in str(caught.value)
        [line] = provider.checks()
        assert line.ok is False
        assert "HCLOUD_TOKEN" in line.next
        assert not token or token not in line.detail

    def test_doctor_finds_a_token_that_can_only_read(
        self, make_provider: MakeProvider
    ) -> None:
        """It then checks nothing else."""
        [line] = make_provider(environ={"HCLOUD_TOKEN": READ_ONLY}).checks()
        assert line.ok is False
        assert "token_readonly" in line.detail
        assert "Read & Write" in line.next

    def test_doctor_creates_nothing(self, server: Server, provider: Hetzner) -> None:
        """Its line about the deadline informs that a stopped box is billed."""
        before = set(server.project.resources)
        lines = {line.name: line for line in provider.checks()}
        assert lines["token"].ok is True
        assert lines["deadline"].ok is None
        assert "ccx13" in lines["machine types"].detail
        assert set(server.project.resources) == before

    def test_at_a_command_line_a_wrong_token_is_one_line(
        self, server: Server, project: Project
    ) -> None:
        """The line does not contain the token."""
        project.write("onebox.toml", TOML)
        project.environ["HCLOUD_ENDPOINT"] = server.address
        for token in ("wrong-token", "t\u00f6ken"):
            done = project.inv("provision", env={"HCLOUD_TOKEN": token})
            assert done.code in (77, 78), done.err
            assert done.err.count("onebox[") == 1, done.err
            assert "HCLOUD_TOKEN" in done.err
            assert token not in done.err
            assert "Traceback" not in done.err

    def test_the_token_is_not_sent_without_encryption(
        self, make_provider: MakeProvider
    ) -> None:
        """Only within this machine it is."""
        at = {"HCLOUD_ENDPOINT": "http://203.0.113.9/v1"}
        with pytest.raises(ConfigError, match="must use https"):
            make_provider(environ=at).find("owner")


class TestMoney:
    def test_without_a_choice_about_the_deadline_nothing_is_created(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """Nothing would end the billing of a box that is off."""
        provider = make_provider(accept_no_watchdog=None)
        with pytest.raises(ConfigError, match="bills a server that is powered off"):
            provider.offers(Requirements("small", 1, 1))
        with pytest.raises(ConfigError):
            provider.create(make_request())
        assert not server.count("POST", ".*")

    def test_prices_are_in_dollars_with_taxes(
        self, make_provider: MakeProvider
    ) -> None:
        """The address is a separate cost; images and traffic have rates."""
        provider = make_provider(usd_per_euro=1.5)
        [best, *_] = provider.offers(Requirements("small", 4, 16 << 30))
        assert (best.type, best.place) == ("ccx23", "fsn1")
        assert best.machine_price == pytest.approx(0.04 * 1.19 * 1.5)
        [address] = best.extras
        assert address.hourly == pytest.approx(0.0008 * 1.19 * 1.5)
        assert provider.egress_rate("fsn1") == pytest.approx(1.19 * 1.5 / 1024)
        assert not provider.images("owner")
        assert provider.image_rate == pytest.approx(0.011 * 1.19 * 1.5)

    def test_a_type_with_shared_cpus_is_offered_only_by_name(
        self, provider: Hetzner
    ) -> None:
        """An unknown name is an error."""
        need = Requirements("small", 1, 1)
        assert all(one.type[:3] == "ccx" for one in provider.offers(need))
        [named, *_] = provider.offers(dataclasses.replace(need, types=("cpx51",)))
        assert named.type == "cpx51"
        with pytest.raises(UsageError, match="no machine type ccx99"):
            provider.offers(dataclasses.replace(need, types=("ccx99",)))

    def test_kept_addresses_and_volumes_of_a_box_are_leftovers(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """A delete removes them too."""
        box = when_up(provider, provider.create(make_request()))
        [address] = server.project.all("primary_ips")
        address.shown["auto_delete"] = False
        server.project.create_volume("scratch", to_labels({"box": box.id}))
        [volume] = server.project.all("volumes")
        volume.labels.update(address.labels)
        prices = {left.kind: left.hourly for left in provider.leftovers(box.id)}
        assert prices.keys() == {"server", "primary IP", "volume", "firewall"}
        assert (prices["server"], prices["firewall"]) == (box.offer.machine_price, 0.0)
        provider.delete(box)
        assert not provider.leftovers(box.id)
        assert not server.project.all("primary_ips")

    def test_no_password_is_mailed(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The user has registered the key under another name, which stays."""
        request = make_request()
        words = " ".join(request.user_key.split()[:2])
        mine = {"name": "laptop", "public_key": words}
        server.project.create_key(mine)
        provider = make_provider()
        provider.delete(when_up(provider, provider.create(request)))
        assert not server.project.mailed
        assert len(server.project.all("ssh_keys")) == 1
        assert not provider.free_objects(request.tags.owner, [request.box])


class TestLostAndBusy:
    @pytest.mark.parametrize("kind", ["cut after", "503 after", "html after"])
    @pytest.mark.parametrize("path", ["servers", "firewalls", "ssh_keys"])
    def test_a_lost_response_leads_to_one_object_of_each_kind(
        self,
        server: Server,
        provider: Hetzner,
        make_request: MakeRequest,
        path: str,
        kind: str,
    ) -> None:
        """The object is found, or the call is repeated under the same name."""
        server.fail("POST", path, kind)
        request = make_request()
        box = provider.create(request)
        assert (box.id, len(server.project.all(path))) == (request.box, 1)
        assert provider.leftovers(box.id)

    def test_a_create_call_without_any_response_is_unclear(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """The firewall stays, because it may protect a server."""
        server.fail("POST", "servers", "cut before", times=9)
        with pytest.raises(Unclear):
            provider.create(make_request())
        assert server.project.all("firewalls")

    def test_a_firewall_without_a_response_is_no_unclear_box(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """No server was created, so nothing costs money."""
        server.fail("POST", "firewalls", "cut before", times=9)
        with pytest.raises(ProviderError, match="was not created") as caught:
            provider.create(make_request())
        assert not isinstance(caught.value, Unclear)
        assert not server.project.all_servers

    def test_a_foreign_firewall_with_the_name_of_the_box_is_not_used(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """It could be open to everyone, so no server is created."""
        request = make_request()
        server.project.create_firewall({"name": request.box})
        with pytest.raises(NotAllowed, match="another firewall"):
            provider.create(request)
        assert not server.project.all_servers

    def test_a_create_succeeds_although_the_address_gets_no_label(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """Hetzner deletes the address with its server."""
        server.fail("PUT", "primary_ips/.*", "503 before", times=9)
        box = when_up(provider, provider.create(make_request()))
        provider.delete(box)
        assert not server.project.all("primary_ips")

    def test_a_lost_snapshot_call_saves_once(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """A second call would make a second snapshot."""
        request = make_request()
        box = when_up(provider, provider.create(request))
        provider.stop(box)
        server.fail("POST", "servers/.*/create_image", "cut after")
        assert provider.save(box, image_of(request)).tags.owner == box.tags.owner
        assert len(server.project.snapshots()) == 1

    @pytest.mark.parametrize("lost", [False, True])
    def test_the_progress_of_the_action_is_reported(
        self,
        server: Server,
        provider: Hetzner,
        make_request: MakeRequest,
        lost: bool,
    ) -> None:
        """If the call for the action fails, the image is saved all the same."""
        request = make_request()
        box = when_up(provider, provider.create(request))
        provider.stop(box)
        server.project.behavior.action = 0.5
        if lost:
            server.fail("GET", "servers/.*/actions", "503 before", times=99)
        reported: list[float] = []
        provider.save(box, image_of(request), lambda done, total: reported.append(done))
        assert set(reported) == (set() if lost else {0.5})

    def test_a_snapshot_that_was_never_begun_is_unclear(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """The same command again saves the image."""
        request = make_request()
        box = when_up(provider, provider.create(request))
        provider.stop(box)
        server.fail("POST", "servers/.*/create_image", "cut before")
        with pytest.raises(Unclear):
            provider.save(box, image_of(request))
        assert provider.save(box, image_of(request)).id

    def test_throttled_calls_are_repeated_for_a_while(
        self, server: Server, provider: Hetzner
    ) -> None:
        """onebox does not wait until the end of the hour, which the header names."""
        server.fail("GET", "servers", "429", times=99)
        with pytest.raises(Throttled, match="accepts no more calls"):
            provider.find("owner")

    def test_a_call_waits_for_a_locked_server(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """A server that ignores the shutdown is powered off."""
        behavior = server.project.behavior
        behavior.boot, behavior.action, behavior.ignores_shutdown = 0.2, 0.1, True
        box = provider.create(make_request())
        provider.stop(box)
        provider.delete(box)
        assert not server.project.servers
        assert server.count("POST", "servers/.*/poweroff") >= 1

    def test_lists_are_read_to_their_last_page(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """A page has at most 50 entries."""
        server.project.behavior.limit = 99
        owner = make_request().tags.owner
        for _ in range(53):
            provider.create(make_request())
        assert len(provider.find(owner)) == 53
        assert len(provider.free_objects(owner)) == 54


class TestRefused:
    def test_missing_capacity_a_limit_and_a_wrong_field_have_their_classes(
        self, server: Server, provider: Hetzner, make_request: MakeRequest
    ) -> None:
        """Another offer is tried only if it can help."""
        request = make_request()
        server.project.behavior.sold_out = ("ccx23",)
        with pytest.raises(NoCapacity):
            provider.create(request)
        server.project.behavior.limit = 0
        with pytest.raises(QuotaExceeded):
            provider.create(request)
        offer = dataclasses.replace(request.offer, type="ccx99")
        with pytest.raises(Invalid, match="server_type"):
            provider.create(dataclasses.replace(request, offer=offer))
        assert not server.project.all("firewalls")

    @pytest.mark.parametrize(
        "labels", [{"a": "-b"}, {"a": "b_"}, {"a": "x" * 64}, {"-a": "b"}, {"a": "é"}]
    )
    def test_the_fake_server_is_strict(
        self, provider: Hetzner, labels: dict[str, str]
    ) -> None:
        """It refuses labels outside the rules of Kubernetes, and unknown fields."""
        with pytest.raises(Invalid, match="labels"):
            provider._cloud.firewalls.create("wall", [], labels)  # type: ignore[arg-type] # a dict
        with pytest.raises(Invalid, match="colour"):
            body = {"name": "wall", "colour": "red"}
            provider._cloud.request("POST", "/firewalls", json=body)

    def test_private_is_no_key_of_its_table(self) -> None:
        """A firewall of Hetzner would not protect a private address."""
        assert "private" not in {key.name for key in keys_of(HetznerSettings)}
        assert HetznerSettings.private is False


class TestDestroyToken:
    def test_a_box_gets_the_token_over_ssh_and_a_builder_gets_none(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """It is never in the user data."""
        provider = make_provider(
            accept_no_watchdog=None, destroy_token="END", environ={"END": ENDING}
        )
        assert provider.stopped_is_free
        box = provider.create(make_request())
        script = provider.post_boot_script(box).decode("ascii")
        assert ENDING in script
        assert f"{server.address}/servers/" in script
        assert ENDING not in server.project.all_servers[0].body["user_data"]
        tags = dataclasses.replace(box.tags, kind="builder")
        script = provider.post_boot_script(dataclasses.replace(box, tags=tags)).decode()
        assert ENDING not in script
        assert "deadline" in script
