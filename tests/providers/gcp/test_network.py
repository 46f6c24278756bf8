"""The firewall rules of an owner's boxes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from onebox.providers.gcp import network
from onebox.providers.gcp.client import Cloud
from onebox.providers.gcp.provider import GCP
from onebox.providers.gcp.settings import GCPSettings
from onebox.settings.fields import Conflict
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest, remove_free_objects
from .conftest import MakeProvider, short_pause


def rules(server: Server) -> dict[str, dict[str, Any]]:
    """Return the firewall rules by the last word of their names."""
    return {n.rpartition("-")[2]: rule for n, rule in server.account.firewalls.items()}


class TestRules:
    def test_one_rule_allows_this_machine_and_a_weaker_one_denies_all(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """A box has the tag of both."""
        provider.create(make_request())
        tags = server.calls("instances.insert")[0].body["tags"]["items"]
        found = rules(server)
        assert found["allow"]["sourceRanges"] == ["198.51.100.7/32"]
        assert found["deny"]["sourceRanges"] == ["0.0.0.0/0"]
        # Stronger than default-allow-ssh, which is 65534.
        assert found["allow"]["priority"] < found["deny"]["priority"] < 65534
        for rule, action in ((found["allow"], "allowed"), (found["deny"], "denied")):
            assert rule["targetTags"] == tags
            assert rule[action] == [{"IPProtocol": "tcp", "ports": ["22"]}]
            assert rule["direction"] == "INGRESS"

    def test_the_rules_are_requested_before_the_box(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """A box is never open to everyone."""
        provider.create(make_request())
        methods = [one.method for one in server.requests]
        first = methods.index("compute.instances.insert")
        assert methods[:first].count("compute.firewalls.insert") == 2

    def test_the_boxes_of_an_owner_share_two_rules(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The delete of the last box removes them."""
        provider = make_provider()
        first, second = (provider.create(make_request()) for _ in range(2))
        assert len(server.calls("firewalls.insert")) == 2
        provider.delete(first)
        assert len(server.account.firewalls) == 2
        make_provider().delete(second)
        assert not server.account.firewalls

    def test_an_unused_rule_is_a_leftover(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """It is free of charge."""
        box = provider.create(make_request())
        kept = dict(server.account.firewalls)
        provider.delete(box)
        server.account.firewalls.update(kept)
        left = provider.leftovers(box.id, box.place)
        assert {(one.kind, one.hourly) for one in left} == {("firewall rule", 0.0)}
        provider.delete(box)
        assert not provider.leftovers(box.id, box.place)

    def test_changed_rules_are_corrected_by_the_next_create(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Another user had changed them."""
        provider.create(make_request())
        found = rules(server)
        found["deny"]["disabled"] = True
        found["allow"]["sourceRanges"] = ["0.0.0.0/0"]
        provider.create(make_request())
        assert rules(server)["deny"]["disabled"] is False
        assert rules(server)["allow"]["sourceRanges"] == ["198.51.100.7/32"]

    def test_rules_that_are_deleted_during_a_create_are_created_again(
        self,
        server: Server,
        provider: GCP,
        make_request: MakeRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Another command deletes its last box."""
        before = provider.create(make_request())
        insert = server.account.instances.insert

        def meanwhile(*arguments: Any) -> dict[str, Any]:
            server.account.firewalls.clear()
            return insert(*arguments)

        monkeypatch.setattr(server.account.instances, "insert", meanwhile)
        provider.create(make_request())
        assert len(server.account.firewalls) == 2
        provider.delete(before)
        assert len(server.account.firewalls) == 2

    def test_a_rule_that_is_deleted_before_its_correction_is_created_again(
        self,
        server: Server,
        provider: GCP,
        make_request: MakeRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Another command deletes its last box."""
        provider.create(make_request())
        rules(server)["deny"]["disabled"] = True
        agrees = network._agrees

        def meanwhile(found: Any, wanted: dict[str, Any]) -> bool:
            right = agrees(found, wanted)
            if not right:
                monkeypatch.setattr(network, "_agrees", agrees)
                server.account.firewalls.clear()
            return right

        monkeypatch.setattr(network, "_agrees", meanwhile)
        provider.create(make_request())
        assert rules(server)["deny"]["disabled"] is False
        assert len(rules(server)) == 2

    def test_unused_rules_are_free_objects(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """A cleanup can delete them."""
        box = provider.create(make_request())
        kept = dict(server.account.firewalls)
        provider.delete(box)
        server.account.firewalls.update(kept)
        server.account.firewalls["theirs"] = {"name": "theirs", "description": "{}"}
        provider.find(box.tags.owner, everywhere=True)
        resources = provider.free_objects(box.tags.owner)
        assert {resource.id: resource.why for resource in resources} == dict.fromkeys(
            kept, ""
        )
        remove_free_objects(provider, box.tags.owner)
        assert list(server.account.firewalls) == ["theirs"]

    def test_each_network_has_its_own_rules(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The rule of one does not protect another."""
        make_provider().create(make_request())
        make_provider(network="lab").create(make_request())
        found = server.account.firewalls.values()
        assert len({rule["network"] for rule in found}) == 2
        assert len(found) == 4

    def test_the_rules_of_a_shared_network_are_in_its_project(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """It belongs to another project."""
        provider = make_provider(network="projects/host-project/global/networks/lab")
        provider.delete(provider.create(make_request()))
        for method in ("firewalls.insert", "firewalls.list", "globalOperations.get"):
            assert {one.path["project"] for one in server.calls(method)} == {
                "host-project"
            }


class TestOpenTo:
    def test_allow_my_ip_replaces_the_former_address(
        self, server: Server, make_request: MakeRequest
    ) -> None:
        """Only the present one has access."""
        addresses = itertools.chain(["192.0.2.1"], itertools.repeat("192.0.2.2"))
        settings = GCPSettings(endpoint=server.address)
        cloud = Cloud(settings, sleep=short_pause)
        provider = GCP(settings, Path("/"), cloud=cloud, my_ip=lambda: next(addresses))
        box = provider.create(make_request())
        assert rules(server)["allow"]["sourceRanges"] == ["192.0.2.1/32"]
        assert provider.allow_my_ip(box) is True
        assert rules(server)["allow"]["sourceRanges"] == ["192.0.2.2/32"]
        assert provider.allow_my_ip(box) is False

    def test_a_private_box_is_open_to_private_networks(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """It has no public address."""
        make_provider(private=True, ssh_cidr=None).create(make_request())
        assert "10.0.0.0/8" in rules(server)["allow"]["sourceRanges"]

    def test_a_jump_host_without_a_known_address_is_refused(self) -> None:
        """Its address has to be in ssh_cidr: it cannot be looked up."""
        with pytest.raises(Conflict, match="set ssh_cidr too") as caught:
            GCPSettings(jump="bastion").check({})
        assert caught.value.key == "jump"

    def test_an_open_ssh_port_is_in_the_notes_of_each_box(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The user has allowed it."""
        provider = make_provider(ssh_cidr="0.0.0.0/0", allow_world_ssh=True)
        box = provider.create(make_request())
        assert any("whole world" in note for note in box.notes)
        assert rules(server)["allow"]["sourceRanges"] == ["0.0.0.0/0"]
