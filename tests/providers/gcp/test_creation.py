"""The parameters of the insert call, and how a box is read back."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid

import pytest

from onebox.errors import ProviderError, UsageError
from onebox.providers.gcp.provider import GCP
from onebox.providers.values import Offer
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest, image_of, when_up
from .conftest import OFFER, ZONE, MakeProvider


def metadata(body: dict[str, object]) -> dict[str, str]:
    """Return the metadata items of an instance as a mapping."""
    found = body["metadata"]
    assert isinstance(found, dict)
    return {item["key"]: item["value"] for item in found["items"]}


class TestInsert:
    def test_the_create_call_has_labels_deadline_and_boot_program(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Name, labels, deadline and boot program are in the create call."""
        request = make_request()
        provider.create(request)
        [call] = server.calls("instances.insert")
        body = call.body
        assert body["name"] == request.box
        assert uuid.UUID(call.query["requestId"]).int
        assert body["labels"]["onebox-managed"] == "1"
        assert body["labels"]["onebox-owner"] == request.tags.owner
        assert body["labels"]["onebox-box"] == request.box
        disk = body["disks"][0]
        assert disk["autoDelete"] is True
        assert disk["initializeParams"]["labels"] == body["labels"]
        assert disk["initializeParams"]["sourceImage"].endswith("ubuntu-2404-lts-amd64")
        assert disk["initializeParams"]["diskSizeGb"] == "100"
        assert "serviceAccounts" not in body

    def test_a_box_id_always_gives_the_same_request_id(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """Also in another process."""
        request = make_request()
        for _ in range(2):
            make_provider().create(request)
        other = make_request()
        make_provider().create(other)
        ids = [call.query["requestId"] for call in server.calls("instances.insert")]
        assert ids[0] == ids[1] != ids[2]
        assert server.account.instances.mutations == {request.box: 1, other.box: 1}

    @pytest.mark.parametrize("spot", [True, False])
    def test_google_stops_the_box_after_its_deadline(
        self, server: Server, provider: GCP, make_request: MakeRequest, spot: bool
    ) -> None:
        """The difference is a quarter of an hour."""
        request = make_request(offer=dataclasses.replace(OFFER, spot=spot))
        provider.create(request)
        [call] = server.calls("instances.insert")
        found = call.body["scheduling"]
        assert found["provisioningModel"] == ("SPOT" if spot else "STANDARD")
        assert found["automaticRestart"] is False
        assert found["instanceTerminationAction"] == "STOP"
        left = request.boot_config.deadline - time.time()
        seconds = int(found["maxRunDuration"]["seconds"])
        assert left + 890 < seconds < left + 960

    @pytest.mark.parametrize(
        ("type_", "policy"),
        [
            ("n2d-standard-4", "MIGRATE"),
            ("e2-standard-4", "MIGRATE"),
            ("g2-standard-4", "TERMINATE"),
            ("a2-highgpu-1g", "TERMINATE"),
            ("c3-standard-192-metal", "TERMINATE"),
        ],
    )
    def test_a_type_without_live_migration_is_terminated_for_maintenance(
        self,
        server: Server,
        provider: GCP,
        make_request: MakeRequest,
        type_: str,
        policy: str,
    ) -> None:
        """Types with GPUs and bare metal are created and started on demand."""
        size = dataclasses.replace(OFFER, type=type_, spot=False)
        box = when_up(provider, provider.create(make_request(offer=size)))
        scheduling = server.account.instance(box.id)["scheduling"]
        assert scheduling["onHostMaintenance"] == policy
        provider.stop(box)
        provider.start(box, time.time() + 600)
        scheduling = server.account.instance(box.id)["scheduling"]
        assert scheduling["onHostMaintenance"] == policy

    def test_the_metadata_items_configure_the_guest(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """OS Login is off, and host keys are published."""
        request = make_request()
        provider.create(request)
        items = metadata(server.calls("instances.insert")[0].body)
        assert items["enable-oslogin"] == "FALSE"
        assert items["block-project-ssh-keys"] == "TRUE"
        assert items["enable-guest-attributes"] == "TRUE"
        assert items["serial-port-enable"] == "FALSE"
        assert items["ssh-keys"].startswith("onebox:ssh-ed25519 ")
        assert items["user-data"].startswith("#cloud-config")
        assert "startup-script" not in items

    def test_debian_runs_a_startup_script(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Its images have no cloud-init."""
        provider.create(make_request(base="debian-12"))
        [call] = server.calls("instances.insert")
        items = metadata(call.body)
        assert items["startup-script"].startswith("#!/bin/sh")
        assert "user-data" not in items
        source = call.body["disks"][0]["initializeParams"]["sourceImage"]
        assert source == "projects/debian-cloud/global/images/family/debian-12"

    def test_no_private_key_is_sent(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """The box generates its own host key."""
        request = make_request()
        provider.create(request)
        assert request.host_key.private
        for line in request.host_key.private.splitlines()[1:3]:
            assert not any(line in json.dumps(one.body) for one in server.requests)

    def test_the_disk_has_the_requested_size_and_a_supported_kind(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """Not each family supports each kind."""
        provider = make_provider(disk_type="pd-ssd", disk=50 << 30)
        n4 = dataclasses.replace(OFFER, type="n4-standard-4")
        provider.create(make_request(disk=200 << 30))
        box = provider.create(make_request(offer=n4))
        assert box.notes == (
            "the disk is hyperdisk-balanced: n4-standard-4 does not support pd-ssd",
        )
        wanted = [
            call.body["disks"][0]["initializeParams"]
            for call in server.calls("instances.insert")
        ]
        assert [one["diskSizeGb"] for one in wanted] == ["200", "50"]
        assert [one["diskType"].rpartition("/")[2] for one in wanted] == [
            "pd-ssd",
            "hyperdisk-balanced",
        ]

    def test_a_private_box_is_reached_through_the_jump_host(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """It has no public address."""
        provider = make_provider(private=True, jump="me@bastion", subnet="lab")
        box = when_up(provider, provider.create(make_request()))
        [interface] = server.calls("instances.insert")[0].body["networkInterfaces"]
        assert "accessConfigs" not in interface
        wanted = "projects/test-project/regions/us-central1/subnetworks/lab"
        assert interface["subnetwork"] == wanted
        assert box.host.startswith("10.")
        assert box.jump == "me@bastion"

    @pytest.mark.parametrize("box", ["", "Ob-1", "ob_1", "1ob", "ob/../x", "o" * 64])
    def test_an_impossible_name_is_refused_before_any_call(
        self, provider: GCP, make_request: MakeRequest, box: str
    ) -> None:
        """Google allows few characters."""
        with pytest.raises(ProviderError):
            provider.create(make_request(box=box))


class TestWrongNames:
    def test_a_missing_machine_type_is_a_usage_error(
        self, provider: GCP, make_request: MakeRequest
    ) -> None:
        """The error names it."""
        size = dataclasses.replace(OFFER, type="n2d-standard-5")
        with pytest.raises(UsageError, match="n2d-standard-5"):
            provider.create(make_request(offer=size))

    def test_a_missing_network_is_a_usage_error(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """Nothing is left."""
        provider = make_provider(network="nowhere")
        request = make_request()
        with pytest.raises(UsageError, match="nowhere") as caught:
            provider.create(request)
        assert "[gcp] network" in caught.value.next
        assert not provider.leftovers(request.box)

    def test_a_missing_zone_is_a_usage_error(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The error names it."""
        size = dataclasses.replace(OFFER, place="us-central1-z")
        with pytest.raises(UsageError, match="us-central1-z"):
            make_provider().create(make_request(offer=size))

    def test_a_wrong_zone_or_project_does_not_make_a_box_gone(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """The box may exist elsewhere."""
        with pytest.raises(UsageError, match="us-central1-z"):
            provider.get(make_request().box, "us-central1-z")
        server.fail("instances.get", "notFound")
        with pytest.raises(UsageError):
            provider.get(make_request().box, ZONE)

    def test_an_unknown_base_is_refused(
        self, provider: GCP, make_request: MakeRequest
    ) -> None:
        """The error names it."""
        with pytest.raises(UsageError, match="fedora"):
            provider.create(make_request(base="fedora-41"))

    def test_a_missing_image_is_refused_before_the_create_call(
        self, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Nothing is created."""
        image = dataclasses.replace(image_of(make_request()), id="im-none")
        request = make_request(image=image)
        with pytest.raises(UsageError, match="im-none"):
            provider.create(request)
        assert not provider.leftovers(request.box)


class TestBox:
    def test_a_box_is_read_back_from_its_owner_alone(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """No other record exists."""
        size = Offer(
            "large", "n2-standard-64", 64, 256 << 30, 1.474, 3.1078, True, ZONE
        )
        request = make_request(offer=size)
        tags = dataclasses.replace(
            request.tags, project="Zensus 2026 / ä", name="x" * 70, kind="builder"
        )
        first = make_provider()
        box = when_up(first, first.create(dataclasses.replace(request, tags=tags)))
        assert box.tags == tags
        assert list(make_provider().find(tags.owner)) == [box]
        assert make_provider().get(box.id) == box
        assert (box.offer, box.place, box.user) == (size, ZONE, "onebox")
        assert box.created > time.time() - 60

    def test_a_box_is_starting_until_its_host_key_is_known(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """A client could not verify it."""
        server.account.instances.boot = 3600.0
        box = provider.create(make_request())
        assert (box.state, box.host_key, box.bootstrap_key) == ("starting", "", False)
        assert box.host
        server.account.later.hurry()
        box = when_up(provider, box)
        assert box.state == "running"
        assert box.host_key.startswith("ssh-ed25519 AAAA")

    def test_only_the_first_published_host_key_counts(
        self, server: Server, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """A job can publish another one later."""
        provider = make_provider()
        box = when_up(provider, provider.create(make_request()))
        server.account.instances.guest[box.id]["hostkeys/ssh-ed25519"] = "AAAAother"
        again = make_provider().get(box.id)
        assert again is not None
        assert again.host_key == box.host_key

    @pytest.mark.parametrize(
        "published", ["", "rubbish!", "AAAAC3NzaC1yc2E=", "ssh-ed25519"]
    )
    def test_a_published_key_of_another_kind_is_ignored(
        self, server: Server, provider: GCP, make_request: MakeRequest, published: str
    ) -> None:
        """Only an ed25519 key counts."""
        server.account.instances.boot = 60.0
        box = provider.create(make_request())
        server.account.instances.guest[box.id] = {"hostkeys/ssh-ed25519": published}
        again = provider.get(box.id, box.place)
        assert again is not None
        assert (again.state, again.host_key) == ("starting", "")

    def test_unreadable_host_keys_are_in_the_notes(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """The box is still found."""
        server.fail("instances.getGuestAttributes", "forbidden", times=99)
        box = provider.create(make_request())
        [found] = provider.find(box.tags.owner)
        assert found.state == "starting"
        assert "host key cannot be read" in found.notes[-1]
        provider.delete(found)

    def test_a_host_key_is_read_without_the_permission_for_labels(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Only storing it fails."""
        server.fail("instances.setLabels", "forbidden", times=99)
        box = when_up(provider, provider.create(make_request()))
        assert box.state == "running"

    def test_a_box_without_its_record_is_still_found(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Its price is unknown."""
        box = when_up(provider, provider.create(make_request()))
        server.account.instance(box.id)["metadata"]["items"] = []
        [found] = provider.find(box.tags.owner)
        assert found.offer.machine_price is None
        assert found.offer.type == box.offer.type
        wanted = dataclasses.replace(box.tags, deadline=float(int(box.tags.deadline)))
        assert found.tags == wanted
        provider.delete(found)

    def test_an_instance_without_the_labels_is_no_box(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Its name does not matter."""
        box = provider.create(make_request())
        server.account.instance(box.id)["labels"] = {"team": "other"}
        assert provider.get(box.id) is None
        assert list(provider.find(box.tags.owner)) == []
