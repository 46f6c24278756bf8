"""Instances that are reached through Identity-Aware Proxy, with gcloud."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.errors import ProviderError, SetupError
from onebox.providers.gcp import policy, reach
from onebox.providers.gcp.settings import GCPSettings
from onebox.providers.values import Requirements
from onebox.settings.fields import Conflict
from tests.fakes.gcp.server import Server
from tests.fakes.tunnels import Gateway, Tools
from tests.fakes.tunnels.gateway import Query
from tests.fakes.tunnels.gcp import INTERNET, PROXY, admits

from ..boxes import MakeRequest, remove_free_objects, when_up
from .conftest import ZONE, MakeProvider

SMALL = Requirements("small", 2, 8 << 30)


def nowhere(query: Query) -> socket.socket:
    """Lead to no machine: these tests only look at gcloud."""
    raise AssertionError(query)


def no_address() -> str:
    """Fail: the address of this machine is not needed."""
    raise AssertionError


def log_in(folder: Path) -> None:
    """Log in with gcloud, whose folder is *folder*."""
    (folder / "configurations").mkdir(parents=True)
    config = folder / "configurations" / "config_default"
    config.write_text("[core]\naccount = me@example.com\n")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    """gcloud, first in the PATH, with a login."""
    log_in(Path(os.environ["CLOUDSDK_CONFIG"]))
    with Gateway(nowhere) as gateway:
        made = Tools(tmp_path / "bin", gateway)
        monkeypatch.setenv("PATH", made.path)
        yield made


class TestRules:
    @pytest.mark.parametrize("private", [False, True])
    def test_only_the_proxys_range_reaches_ssh(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        tools: Tools,
        private: bool,
    ) -> None:
        """Google's default network would admit everyone otherwise."""
        provider = make_provider(
            reach="iap", private=private, ssh_cidr=None, my_ip=no_address
        )
        box = when_up(provider, provider.create(make_request()))
        (instance,) = server.account.instances.all.values()
        assert admits(server.account, instance, PROXY)
        assert not admits(server.account, instance, INTERNET)
        (interface,) = instance["networkInterfaces"]
        assert bool(interface.get("accessConfigs")) == (not private)
        assert box.host == interface["networkIP"]
        assert provider.allow_my_ip(box) is False
        provider.delete(box)
        assert not server.account.firewalls

    def test_each_way_has_rules_of_its_own(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        tools: Tools,
    ) -> None:
        """A box that is reached directly keeps its rules; the last one takes all."""
        direct, by_proxy = make_provider(), make_provider(reach="iap", ssh_cidr=None)
        boxes = [direct.create(make_request()), by_proxy.create(make_request())]
        assert len(server.account.firewalls) == 4
        for instance in server.account.instances.all.values():
            through = instance["name"] == boxes[1].id
            assert admits(server.account, instance, PROXY) == through
            assert admits(server.account, instance, INTERNET) == (not through)
        direct.delete(boxes[1])
        assert len(server.account.firewalls) == 4
        direct.delete(boxes[0])
        assert not server.account.firewalls
        assert not direct.leftovers(boxes[0].id)

    def test_rules_that_are_deleted_too_early_are_created_again(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        tools: Tools,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Another command creates a box meanwhile; its rules are those of its way."""
        provider = make_provider(reach="iap", ssh_cidr=None, my_ip=no_address)
        box = provider.create(make_request())
        kept = dict(server.account.firewalls)
        provider.delete(box)
        server.account.firewalls.update(kept)
        answers = iter(["", "", "ob-2 uses it", "", "ob-2 uses it"])
        monkeypatch.setattr(
            "onebox.providers.gcp.network.used_by", lambda *about: next(answers, "")
        )
        free = provider.free_objects(box.tags.owner)
        provider.remove_free(box.tags.owner, free[0])
        assert set(server.account.firewalls) == set(kept)

    def test_a_start_restores_the_rules_of_the_boxs_way(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        tools: Tools,
    ) -> None:
        """The setting may have changed since."""
        provider = make_provider(reach="iap", ssh_cidr=None, my_ip=no_address)
        box = when_up(provider, provider.create(make_request()))
        provider.stop(box)
        server.account.firewalls.clear()
        later = make_provider(ssh_cidr=None, my_ip=no_address)
        stopped = later.get(box.id, box.place)
        assert stopped is not None
        later.start(stopped, box.deadline + 60)
        (instance,) = server.account.instances.all.values()
        assert admits(server.account, instance, PROXY)
        assert not admits(server.account, instance, INTERNET)
        remove_free_objects(later, "nobody")


class TestCommand:
    def test_a_box_is_reached_as_it_was_created(
        self, make_provider: MakeProvider, make_request: MakeRequest, tools: Tools
    ) -> None:
        """A later line without the setting finds it in the record of the instance."""
        provider = make_provider(reach="iap", ssh_cidr=None)
        box = when_up(provider, provider.create(make_request()))
        assert box.proxy is not None
        assert " ".join(box.proxy.words) == (
            f"gcloud compute start-iap-tunnel {box.id} 22 --listen-on-stdin --project "
            f"test-project --zone {ZONE} --verbosity error"
        )
        for name in ("CLOUDSDK_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS"):
            assert name.startswith(box.proxy.variables)
        later = make_provider(jump="bastion")
        assert later.get(box.id) == dataclasses.replace(box, jump="bastion")
        (found,) = later.find(box.tags.owner)
        assert found.proxy == box.proxy

    def test_a_box_that_is_reached_directly_has_no_proxy(
        self, make_provider: MakeProvider, make_request: MakeRequest, tools: Tools
    ) -> None:
        """The setting counts for new boxes only."""
        provider = make_provider()
        box = when_up(provider, provider.create(make_request()))
        assert box.proxy is None
        assert make_provider(reach="iap", ssh_cidr=None).get(box.id) == box

    def test_a_value_that_a_shell_could_interpret_is_refused(self) -> None:
        """No such project or zone exists."""
        for project, zone in (("p$(id)", ZONE), ("test-project", "--debug")):
            with pytest.raises(ProviderError, match="cannot be a name in a command"):
                reach.proxy("iap", "ob-1", project, zone)


class TestTools:
    def test_a_missing_gcloud_is_an_error_before_any_call(
        self,
        server: Server,
        make_provider: MakeProvider,
        tools: Tools,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its next step is how to install it."""
        monkeypatch.setenv("PATH", str(tools.folder))
        tools.remove("gcloud")
        with pytest.raises(SetupError, match="gcloud is not on this machine") as no:
            make_provider(reach="iap", ssh_cidr=None).offers(SMALL)
        assert "install" in no.value.next
        assert not server.requests

    def test_a_gcloud_without_a_login_is_an_error_too(
        self,
        server: Server,
        make_provider: MakeProvider,
        tools: Tools,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """It does not use the credentials of onebox; a variable can name others."""
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "empty"))
        provider = make_provider(reach="iap", ssh_cidr=None)
        with pytest.raises(SetupError, match="no active account") as caught:
            provider.offers(SMALL)
        assert caught.value.next == "gcloud auth login"
        assert not server.requests
        monkeypatch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", "/token")
        assert provider.offers(SMALL)


class TestSettings:
    @pytest.mark.parametrize(
        "settings",
        [
            GCPSettings(reach="iap", ssh_cidr="10.0.0.0/8"),
            GCPSettings(reach="iap", allow_world_ssh=True),
            GCPSettings(reach="iap", jump="bastion"),
        ],
    )
    def test_another_way_to_ssh_contradicts_reach(self, settings: GCPSettings) -> None:
        """The error names the other setting."""
        with pytest.raises(Conflict, match='contradicts reach = "iap"') as caught:
            settings.check({})
        assert getattr(settings, caught.value.key)
        GCPSettings(reach="iap", private=True).check({})


class TestDoctor:
    def test_lines_name_gcloud_its_login_and_the_range(
        self, make_provider: MakeProvider, tools: Tools
    ) -> None:
        """This machine's address is not looked up."""
        provider = make_provider(reach="iap", ssh_cidr=None, my_ip=no_address)
        found = {one.name: one for one in provider.checks()}
        names = ("gcloud", "gcloud login", "ssh")
        assert [found[name].ok for name in names] == [True, True, True]
        assert "512.0.0" in found["gcloud"].detail
        assert found["gcloud login"].detail == "me@example.com"
        assert "35.235.240.0/20" in found["ssh"].detail

    def test_what_is_missing_fails(
        self,
        make_provider: MakeProvider,
        tools: Tools,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """Each line has the next step."""
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "empty"))
        provider = make_provider(reach="iap", ssh_cidr=None)
        found = {one.name: one for one in provider.checks()}
        assert (found["gcloud"].ok, found["gcloud login"].ok) == (True, False)
        assert found["gcloud login"].next == "gcloud auth login"
        monkeypatch.setenv("PATH", str(tools.folder))
        tools.remove("gcloud")
        found = {one.name: one for one in provider.checks()}
        assert found["gcloud"].ok is False
        assert "install" in found["gcloud"].next


def test_the_role_has_the_permission_for_the_setting_only(
    make_provider: MakeProvider,
) -> None:
    """A role without the setting does not."""
    line = "- iap.tunnelInstances.accessViaIAP\n"
    assert line not in policy.document()
    assert make_provider().policy() == policy.document()
    assert line in make_provider(reach="iap", ssh_cidr=None).policy()
