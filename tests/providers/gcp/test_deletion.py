"""Delete removes the box and its disk, and nothing else."""

from __future__ import annotations

import pytest

from onebox.errors import NotAllowed, ProviderError
from onebox.providers.gcp.provider import GCP
from onebox.providers.values import Box
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest, remove_free_objects
from .test_errors import nothing_left


class TestDelete:
    @pytest.fixture
    def box(self, provider: GCP, make_request: MakeRequest) -> Box:
        """A running box."""
        return provider.create(make_request())

    def test_a_refused_delete_is_an_error(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """Nothing is reported as gone."""
        server.fail("instances.delete", "forbidden", times=99)
        with pytest.raises(NotAllowed):
            provider.delete(box)
        assert provider.leftovers(box.id)

    def test_a_delete_with_expired_credentials_is_an_error(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """Nothing is reported as gone."""
        server.fail("instances.get", "401", times=99)
        with pytest.raises(NotAllowed):
            provider.delete(box)
        with pytest.raises(NotAllowed):
            provider.leftovers(box.id, box.place)

    def test_a_delete_that_fails_later_is_an_error(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """Google had accepted it."""
        server.fail("instances.delete", "op:INTERNAL_ERROR")
        with pytest.raises(ProviderError):
            provider.delete(box)
        assert provider.leftovers(box.id)
        provider.delete(box)
        nothing_left(server, provider, box.id)

    def test_a_protected_box_is_not_deleted(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """The error names the protection."""
        server.account.instance(box.id)["deletionProtection"] = True
        with pytest.raises(NotAllowed) as caught:
            provider.delete(box)
        assert "protection" in caught.value.next

    def test_a_disk_that_outlives_its_instance_is_deleted(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """It has the labels of the box."""
        server.account.instance(box.id)["disks"][0]["autoDelete"] = False
        provider.delete(box)
        nothing_left(server, provider, box.id)

    def test_a_box_whose_labels_were_changed_is_not_touched(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """Its owner is uncertain."""
        server.account.instance(box.id)["labels"]["onebox-project"] = "theirs"
        with pytest.raises(NotAllowed):
            provider.delete(box)
        with pytest.raises(NotAllowed):
            provider.stop(box)
        assert server.account.instance(box.id)["status"] == "RUNNING"

    def test_the_life_of_a_box_changes_nothing_else(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """Similar objects of others stay."""
        world = server.account
        theirs = {"name": "web-1", "labels": {"onebox": "1"}, "status": "RUNNING"}
        world.instances.all["us-central1-b", "web-1"] = {
            **world.instance(box.id),
            **theirs,
        }
        disk = {**world.instances.disks["us-central1-a", box.id]}
        world.instances.disks["us-central1-b", "web-1"] = {
            **disk,
            "name": "web-1",
            "labels": {},
        }
        world.firewalls["default-allow-ssh"] = {"name": "default-allow-ssh"}
        provider.delete(box)
        remove_free_objects(provider, box.tags.owner)
        assert ("us-central1-b", "web-1") in world.instances.all
        assert ("us-central1-b", "web-1") in world.instances.disks
        assert list(world.firewalls) == ["default-allow-ssh"]
