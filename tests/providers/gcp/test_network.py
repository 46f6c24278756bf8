from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from onebox.providers.gcp import network
from onebox.providers.gcp.provider import GCP
from onebox.providers.gcp.settings import Settings
from onebox.settings.fields import Conflict

from ..contract import remove_free_objects
from .conftest import Make, MakeProvider, hurry
from .server import Google


def rules(google: Google) -> dict[str, dict[str, Any]]:
    """Return the rules that there are, by what comes last in their names."""
    return {n.rpartition("-")[2]: rule for n, rule in google.project.firewalls.items()}


class TestRules:
    def test_two(self, google: Google, provider: GCP, make_request: Make) -> None:
        """One rule lets this machine in, a weaker one keeps all others out."""
        provider.create(make_request())
        tags = google.calls("instances.insert")[0].body["tags"]["items"]
        found = rules(google)
        assert found["allow"]["sourceRanges"] == ["198.51.100.7/32"]
        assert found["deny"]["sourceRanges"] == ["0.0.0.0/0"]
        # Stronger than default-allow-ssh, which is 65534.
        assert found["allow"]["priority"] < found["deny"]["priority"] < 65534
        for rule, action in ((found["allow"], "allowed"), (found["deny"], "denied")):
            assert rule["targetTags"] == tags
            assert rule[action] == [{"IPProtocol": "tcp", "ports": ["22"]}]
            assert rule["direction"] == "INGRESS"

    def test_before_the_box(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """The rules are asked for before there is anything to reach."""
        provider.create(make_request())
        methods = [one.method for one in google.seen]
        first = methods.index("compute.instances.insert")
        assert methods[:first].count("compute.firewalls.insert") == 2

    def test_reused(
        self, google: Google, make_provider: MakeProvider, make_request: Make
    ) -> None:
        """All boxes of an owner share two rules, which the last one takes along."""
        provider = make_provider()
        first, second = (provider.create(make_request()) for _ in range(2))
        assert len(google.calls("firewalls.insert")) == 2
        provider.delete(first)
        assert len(google.project.firewalls) == 2
        make_provider().delete(second)
        assert not google.project.firewalls

    def test_leftovers(self, google: Google, provider: GCP, make_request: Make) -> None:
        """A rule that nobody needs any more is told as left over, at no price."""
        box = provider.create(make_request())
        kept = dict(google.project.firewalls)
        provider.delete(box)
        google.project.firewalls.update(kept)
        left = provider.leftovers(box.id, box.place)
        assert {(one.kind, one.price) for one in left} == {("firewall rule", 0.0)}
        provider.delete(box)
        assert not provider.leftovers(box.id, box.place)

    def test_repaired(self, google: Google, provider: GCP, make_request: Make) -> None:
        """Rules that somebody has changed are what they must be, with the next box."""
        provider.create(make_request())
        found = rules(google)
        found["deny"]["disabled"] = True
        found["allow"]["sourceRanges"] = ["0.0.0.0/0"]
        provider.create(make_request())
        assert rules(google)["deny"]["disabled"] is False
        assert rules(google)["allow"]["sourceRanges"] == ["198.51.100.7/32"]

    def test_removed_meanwhile(
        self,
        google: Google,
        provider: GCP,
        make_request: Make,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Rules that another command's teardown took are there again after a create."""
        before = provider.create(make_request())
        insert = google.project.instances.insert

        def meanwhile(*arguments: Any) -> dict[str, Any]:
            google.project.firewalls.clear()
            return insert(*arguments)

        monkeypatch.setattr(google.project.instances, "insert", meanwhile)
        provider.create(make_request())
        assert len(google.project.firewalls) == 2
        provider.delete(before)
        assert len(google.project.firewalls) == 2

    def test_removed_while_repaired(
        self,
        google: Google,
        provider: GCP,
        make_request: Make,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A rule that a teardown takes just before it is put right is made anew."""
        provider.create(make_request())
        rules(google)["deny"]["disabled"] = True
        agrees = network._agrees

        def meanwhile(found: Any, wanted: dict[str, Any]) -> bool:
            right = agrees(found, wanted)
            if not right:
                monkeypatch.setattr(network, "_agrees", agrees)
                google.project.firewalls.clear()
            return right

        monkeypatch.setattr(network, "_agrees", meanwhile)
        provider.create(make_request())
        assert rules(google)["deny"]["disabled"] is False
        assert len(rules(google)) == 2

    def test_sweep(self, google: Google, provider: GCP, make_request: Make) -> None:
        """Rules that no box needs any more are told of, and can be removed."""
        box = provider.create(make_request())
        kept = dict(google.project.firewalls)
        provider.delete(box)
        google.project.firewalls.update(kept)
        google.project.firewalls["theirs"] = {"name": "theirs", "description": "{}"}
        provider.find(box.tags.owner, everywhere=True)
        resources = provider.free_objects(box.tags.owner)
        assert {resource.id: resource.why for resource in resources} == dict.fromkeys(
            kept, ""
        )
        remove_free_objects(provider, box.tags.owner)
        assert list(google.project.firewalls) == ["theirs"]

    def test_own_network(
        self, google: Google, make_provider: MakeProvider, make_request: Make
    ) -> None:
        """Another network has rules of its own."""
        make_provider().create(make_request())
        make_provider(network="lab").create(make_request())
        found = google.project.firewalls.values()
        assert len({rule["network"] for rule in found}) == 2
        assert len(found) == 4

    def test_shared_network(
        self, google: Google, make_provider: MakeProvider, make_request: Make
    ) -> None:
        """A network that another project shares has its rules there."""
        provider = make_provider(network="projects/host-project/global/networks/lab")
        provider.delete(provider.create(make_request()))
        for method in ("firewalls.insert", "firewalls.list", "globalOperations.get"):
            assert {one.path["project"] for one in google.calls(method)} == {
                "host-project"
            }


class TestCaller:
    def test_admit(self, google: Google, make_request: Make) -> None:
        """A machine that has moved is let in, and its former address is not."""
        addresses = itertools.chain(["192.0.2.1"], itertools.repeat("192.0.2.2"))
        settings = Settings(endpoint=google.address)
        provider = GCP(settings, Path("/"), sleep=hurry, my_ip=lambda: next(addresses))
        box = provider.create(make_request())
        assert rules(google)["allow"]["sourceRanges"] == ["192.0.2.1/32"]
        assert provider.allow_my_ip(box) is True
        assert rules(google)["allow"]["sourceRanges"] == ["192.0.2.2/32"]
        assert provider.allow_my_ip(box) is False

    def test_private(
        self, google: Google, make_provider: MakeProvider, make_request: Make
    ) -> None:
        """A private box is reached from private addresses."""
        make_provider(private=True, ssh_cidr=None).create(make_request())
        assert "10.0.0.0/8" in rules(google)["allow"]["sourceRanges"]

    def test_a_jump_host_without_a_known_address_is_refused(self) -> None:
        """Its address has to be in ssh_cidr: it cannot be looked up."""
        with pytest.raises(Conflict, match="set ssh_cidr too") as caught:
            Settings(jump="bastion").check({})
        assert caught.value.key == "jump"

    def test_world(
        self, google: Google, make_provider: MakeProvider, make_request: Make
    ) -> None:
        """Each box of an open network says so."""
        provider = make_provider(ssh_cidr="0.0.0.0/0", allow_world_ssh=True)
        box = provider.create(make_request())
        assert any("whole world" in note for note in box.notes)
        assert rules(google)["allow"]["sourceRanges"] == ["0.0.0.0/0"]
